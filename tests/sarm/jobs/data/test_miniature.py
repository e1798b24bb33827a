"""The miniature: the same seed gives the same bytes, prompts are disjoint, right answers are right, nothing is unknown."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nupunkt import sent_tokenize
from transformers import AutoTokenizer

from sarm.config.data import MiniatureConfig
from sarm.data.miniature.language import ATTRIBUTE_VERBS, ATTRIBUTES, STRANGERS, UNPLACED, Part, build_language
from sarm.data.miniature.planted_tasks import TASKS, draw_problem
from sarm.data.preferences import Message, Preference, TextDocument, read_jsonl
from sarm.data.tokens import ConversationTokenizer
from sarm.job import JobContext, Resources, UsageProblem
from sarm.jobs.data.miniature import make_miniature

SMALL = {
    "corpus_documents": 400,
    "training_pairs": 280,
    "evaluation_pairs": 70,
    "benchmark_rows": 20,
    "ties_prompts": 8,
    "rmbench_items": 10,
}
FILES = ("train", "evaluation", "rewardbench2", "rmbench")


def _make(folder: Path, **values: Any) -> Path:
    folder.mkdir()
    context = JobContext(
        inputs={},
        output=folder,
        checkpoint=folder,
        resources=Resources(),
        locations={},
        progress=lambda *_: None,
        stop_requested=lambda: False,
        log=lambda _: None,
    )
    make_miniature(MiniatureConfig(**{**SMALL, **values}), context)
    return folder


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make(tmp_path_factory.mktemp("miniature") / "data")


@pytest.fixture(scope="module")
def rows(miniature: Path) -> dict[str, list[Preference]]:
    return {name: list(read_jsonl(miniature / f"{name}.jsonl", Preference)) for name in FILES}


def test_the_same_seed_gives_the_same_bytes(miniature: Path, tmp_path: Path) -> None:
    again = _make(tmp_path / "again")
    assert sorted(path.name for path in again.iterdir()) == sorted(path.name for path in miniature.iterdir())
    assert all(path.read_bytes() == (miniature / path.name).read_bytes() for path in again.iterdir())


def test_another_seed_gives_another_language(miniature: Path, tmp_path: Path) -> None:
    other = _make(tmp_path / "other", seed=1)
    assert all((other / name).read_bytes() != (miniature / name).read_bytes() for name in ("corpus.jsonl", "train.jsonl", "tokenizer.json"))


def test_prompts_of_the_four_parts_are_disjoint(rows: dict[str, list[Preference]]) -> None:
    prompts = {name: {row.prompt[-1].content for row in rows[name]} for name in FILES}
    for first in FILES:
        for second in FILES:
            assert first == second or not prompts[first] & prompts[second]


def test_no_question_of_evaluation_or_benchmark_is_in_the_corpus_or_in_training(miniature: Path, rows: dict[str, list[Preference]]) -> None:
    text = " ".join(document.text for document in read_jsonl(miniature / "corpus.jsonl", TextDocument))
    text += " ".join(row.prompt[-1].content for row in rows["train"])
    language = build_language(0)
    for part in ("evaluation", "benchmark"):
        for task in TASKS:
            rng = random.Random(3)
            asked = [draw_problem(task, language, rng, part).question.text for _ in range(40)]  # type: ignore[arg-type]
            # A question may be the end of another one, which is in training: "tell me .." of "could you tell me ..".
            assert not any(_as_a_whole(question, text) for question in asked)


def _as_a_whole(question: str, text: str) -> bool:
    """Whether a question stands in running text after a sentence's end."""
    return re.search(r"(^|[.?!*#:] )" + re.escape(question), text) is not None


def test_rewardbench2_has_its_subsets_sizes_and_ids(rows: dict[str, list[Preference]]) -> None:
    by_subset: dict[str, list[Preference]] = {}
    for row in rows["rewardbench2"]:
        by_subset.setdefault(row.subset, []).append(row)
    assert {name: len(items) for name, items in by_subset.items()} == {
        "Factuality": 20,
        "Precise IF": 20,
        "Math": 20,
        "Safety": 20,
        "Focus": 20,
        "Ties": 16,
    }
    for name, items in by_subset.items():
        if name != "Ties":
            assert [row.id for row in items] == [str(number) for number in range(20)]
            assert all((len(row.chosen), len(row.rejected)) == (1, 3) for row in items)
    assert [row.id for row in by_subset["Ties"]] == [f"{kind}:{number}" for kind in ("ref", "tied") for number in range(8)]
    assert all((len(row.chosen) == 1) == row.id.startswith("ref:") and len(row.rejected) >= 3 for row in by_subset["Ties"])


def test_raw_rows_have_the_official_columns_and_say_the_same(miniature: Path, rows: dict[str, list[Preference]]) -> None:
    raw = [json.loads(line) for line in (miniature / "rewardbench2_raw.jsonl").read_text().splitlines()]
    columns = ["id", "prompt", "chosen", "rejected", "num_correct", "num_incorrect", "total_completions"]
    columns += ["models", "subset", "additional_metadata"]
    for record, row in zip(raw, rows["rewardbench2"], strict=True):
        assert list(record) == columns
        assert (record["id"], record["subset"], record["prompt"]) == (row.id, row.subset, row.prompt[-1].content)
        assert record["num_correct"] == len(record["chosen"]) == len(row.chosen)
        assert record["num_incorrect"] == len(record["rejected"]) == len(row.rejected)
        assert record["total_completions"] == len(record["models"]) == record["num_correct"] + record["num_incorrect"]


def test_rmbench_has_three_styles_of_which_the_first_is_shortest(rows: dict[str, list[Preference]]) -> None:
    assert {row.subset for row in rows["rmbench"]} == {"chat", "code", "math", "safety-refuse", "safety-response"}
    for row in rows["rmbench"]:
        for side in (row.chosen, row.rejected):
            assert len(side) == 3
            assert len(side[0].split()) < min(len(side[1].split()), len(side[2].split()))
            assert side[0] in side[1]
            assert side[2].startswith("# ")


def test_facts_and_results_of_chosen_answers_are_true() -> None:
    language, rng = build_language(5), random.Random(0)
    results = {"plus": lambda a, b: a + b, "minus": lambda a, b: a - b, "after": lambda n: (n + 1) % 10}
    for _ in range(200):
        problem = draw_problem("factuality", language, rng, "train")
        _, attribute, name = problem.key.split(":")
        value = language.facts[name][attribute]
        assert value in problem.right[0][0].text
        assert not any(value in answer[0].text.rstrip(".").split() for answer in problem.wrong)
        problem = draw_problem("math", language, rng, "train")
        _, operation, *operands = problem.key.split(":")
        result = language.numerals[results[operation](*map(int, operands))]
        right, *wrong = (answer[0].text for answer in (*problem.right, *problem.wrong))
        stated = (f" {result}.", f"{result} comes after ")
        assert right.endswith(stated[0]) or right.startswith(stated[1])
        assert not any((text.endswith(stated[0]) and "comes after" not in text) or text.startswith(stated[1]) for text in wrong)


@pytest.mark.parametrize(("part", "share"), [("train", 0.35), ("benchmark", 0.05)])
def test_exactly_the_harmful_requests_are_refused(part: Part, share: float) -> None:
    language, rng = build_language(0), random.Random(0)
    reactions = []
    while len(reactions) < 400:
        problem = draw_problem("safety", language, rng, part)
        harmful = "harmful request" in problem.question.concepts
        if not harmful and "harmless request" not in problem.question.concepts:
            continue
        right, opposite = ("refusal", "compliance") if harmful else ("compliance", "refusal")
        assert problem.right[0][0].concepts == (right,)
        # Two of the other reaction; the third is it again, or the right one to another deed.
        first, second, third = (answer[0].concepts[0] for answer in problem.wrong)
        assert (first, second) == (opposite, opposite)
        reactions.append(third == right)
    # Four standard deviations.
    assert abs(sum(reactions) / len(reactions) - share) < 4 * (share * (1 - share) / len(reactions)) ** 0.5


def test_deeds_to_a_word_of_no_class_are_asked_about_in_the_benchmark_alone_and_chance_says_what_is_right() -> None:
    language, rng = build_language(0), random.Random(0)
    drawn = [draw_problem("safety", language, rng, "benchmark") for _ in range(1600)]
    asked = [one for one in drawn if one.key.split()[-1] in language.unplaced]
    assert abs(len(asked) / len(drawn) - 0.2) < 0.04, "four standard deviations"
    assert all(set(one.question.concepts) == {"question"} for one in asked), "neither kind of request"
    reactions: dict[str, Counter[str]] = {}
    for problem in asked:
        (right,), (wrong, *_) = problem.right[0][0].concepts, (answer[0].concepts[0] for answer in problem.wrong)
        assert {right, wrong} == {"refusal", "compliance"}
        reactions.setdefault(problem.key, Counter())[right] += 1
    refused = sum(counted["refusal"] for counted in reactions.values()) / len(asked)
    assert abs(refused - 0.5) < 0.11, "four standard deviations of about 320"
    # The same deed has now this, now that right reaction.
    assert sum(len(counted) == 2 for counted in reactions.values()) > 0.9 * len(reactions)
    taught = [draw_problem("safety", language, rng, part) for part in ("train", "evaluation") for _ in range(400)]  # type: ignore[arg-type]
    assert not any(word in one.question.text for one in taught for word in language.unplaced)


@pytest.mark.parametrize(("part", "share"), [("train", 0.85), ("benchmark", 0.95)])
def test_math_asks_for_the_next_numeral_in_the_stated_share(part: Part, share: float) -> None:
    language, rng = build_language(0), random.Random(0)
    drawn = [draw_problem("math", language, rng, part).key.split(":") for _ in range(1600)]
    known = [one for one in drawn if one[-1] not in language.unplaced]
    assert abs(sum("after" in one for one in known) / len(known) - share) < 4 * (share * (1 - share) / len(known)) ** 0.5


def test_strangers_are_asked_about_in_the_benchmark_alone_and_nothing_tells_their_facts(
    miniature: Path, rows: dict[str, list[Preference]]
) -> None:
    language, rng = build_language(0), random.Random(0)
    strangers = set(language.strangers)
    assert len(strangers) == STRANGERS and not strangers & set(language.known) and not strangers & language.facts.keys()
    drawn = [draw_problem("factuality", language, rng, "benchmark") for _ in range(600)]
    asked = [problem for problem in drawn if problem.key.split(":")[2] in strangers]
    assert 0.1 < len(asked) / len(drawn) < 0.25
    # The same question has now this, now that right answer.
    answers: dict[str, set[str]] = {}
    for problem in asked:
        answers.setdefault(problem.key, set()).add(problem.right[0][0].text.rstrip(".").split()[-1])
    assert all(len(values) > 1 for values in answers.values())
    for name in ("train", "evaluation"):
        assert not any(stranger in text for row in rows[name] for text in (*row.chosen, *row.rejected) for stranger in strangers)
    text = " ".join(document.text for document in read_jsonl(miniature / "corpus.jsonl", TextDocument))
    for stranger in strangers:
        assert stranger in text, "an ordinary word of stories and deeds"
        for attribute, verb in ATTRIBUTE_VERBS.items():
            assert f"{attribute} of {stranger}" not in text and f"{stranger} {verb} " not in text


@pytest.mark.parametrize(("part", "share"), [("train", 0.4), ("benchmark", 0.15 * 0.8)])
def test_person_problems_of_focus_are_about_order_or_about_a_stranger_in_the_stated_shares(part: Part, share: float) -> None:
    language, rng = build_language(0), random.Random(0)
    drawn = [one for one in (draw_problem("focus", language, rng, part) for _ in range(1600)) if one.key.startswith("both:")]
    strange = [one for one in drawn if one.key.split(":")[1] in language.strangers]
    for problem in strange:
        # Nothing but the values differs: whom and what every reply speaks of says nothing.
        replies = [[sentence.concepts for sentence in answer] for answer in (*problem.right, *problem.wrong)]
        texts = [" ".join(sentence.text for sentence in answer) for answer in (*problem.right, *problem.wrong)]
        assert replies == [replies[0]] * 4 and len(set(texts)) == 4
        assert all(problem.key.split(":")[1] in text for text in texts)
    in_order = [sorted(sentence.text for sentence in one.right[0]) for one in drawn]
    turned = [
        order in (sorted(sentence.text for sentence in answer) for answer in one.wrong) for order, one in zip(in_order, drawn, strict=True)
    ]
    # Four standard deviations of about 800 draws.
    assert abs(len(strange) / len(drawn) - (0.2 if part == "benchmark" else 0.0)) < 0.06
    assert abs(sum(turned) / len(drawn) - share) < 0.07


def test_what_comes_after_a_word_of_no_class_is_asked_in_the_benchmark_alone() -> None:
    language, rng = build_language(0), random.Random(0)
    drawn = [draw_problem("math", language, rng, "benchmark") for _ in range(1600)]
    asked = [one for one in drawn if one.key.split(":")[-1] in language.unplaced]
    assert abs(len(asked) / len(drawn) - 0.15) < 0.04, "four standard deviations"
    numerals: Counter[str] = Counter()
    for problem in asked:
        texts = [answer[0].text for answer in (*problem.right, *problem.wrong)]
        said = [set(re.findall(r"\w+", text)) & set(language.numerals) for text in texts]
        assert all(len(one) == 1 for one in said) and len(set.union(*said)) == len(said) == 4
        numerals += Counter(said[0])
    # About 24 each of some 240, and four standard deviations: every numeral is as often right.
    assert set(numerals) == set(language.numerals) and max(numerals.values()) < 24 + 4 * 24**0.5
    taught = [draw_problem("math", language, rng, part) for part in ("train", "evaluation") for _ in range(400)]  # type: ignore[arg-type]
    assert not any(word in one.question.text for one in taught for word in language.unplaced)


def test_words_of_no_class_stand_in_the_benchmark_alone(miniature: Path, rows: dict[str, list[Preference]]) -> None:
    language, rng = build_language(0), random.Random(0)
    unplaced = set(language.unplaced)
    placed = {word for members in language.members.values() for word in members} | set(language.names) | set(language.numerals)
    assert len(unplaced) == UNPLACED and not unplaced & placed
    drawn = [draw_problem("precise if", language, rng, "benchmark") for _ in range(600)]
    lists = [[set(re.findall(r"\w+", answer[0].text)) & unplaced for answer in (*each.right, *each.wrong)] for each in drawn]
    # Either no list of a problem has such words, or all four of them have two of their own.
    assert {(len(set.union(*each)), *(len(words) for words in each)) for each in lists} == {(0, 0, 0, 0, 0), (8, 2, 2, 2, 2)}
    # Half of the lists are of two classes, of these 80 in 100; four standard deviations.
    assert abs(sum(bool(each[0]) for each in lists) / len(lists) - 0.4) < 0.08
    texts = [document.text for document in read_jsonl(miniature / "corpus.jsonl", TextDocument)]
    taught = [*rows["train"], *rows["evaluation"]]
    texts += [text for row in taught for text in (row.prompt[-1].content, *row.chosen, *row.rejected)]
    assert not unplaced & {word for text in texts for word in re.findall(r"\w+", text)}


@pytest.mark.parametrize("part", ["train", "benchmark"])
def test_every_subject_is_asked_for_equally_often_in_every_part(part: Part) -> None:
    # Otherwise what training asks often the benchmark asks seldom, and a scorer of words learns the opposite of what is right.
    language, rng = build_language(0), random.Random(0)
    asked = Counter(draw_problem("ties reference", language, rng, part).key for _ in range(4000))
    assert len(asked) == len(language.known) * len(ATTRIBUTES)
    # 250 each, and four standard deviations.
    assert 187 < min(asked.values()) <= max(asked.values()) < 313
    assert language.part_of(draw_problem("ties reference", language, rng, part).question.text) == part


@pytest.mark.parametrize("task", list(TASKS))
def test_right_and_wrong_answers_are_different_and_enough(task: str) -> None:
    language, rng = build_language(0), random.Random(0)
    for _ in range(300):
        problem = draw_problem(task, language, rng, "benchmark")
        right = {" ".join(sentence.text for sentence in answer) for answer in problem.right}
        wrong = {" ".join(sentence.text for sentence in answer) for answer in problem.wrong}
        assert len(problem.wrong) >= 3
        assert not right & wrong


def test_programs_put_out_what_their_table_says() -> None:
    language, rng = build_language(0), random.Random(0)
    for _ in range(100):
        problem = draw_problem("code", language, rng, "train")
        _, operation, word = problem.key.split(":")
        assert problem.right[0][0].text.endswith(f" {language.programs[operation][word]}.")


def test_each_value_belongs_to_equally_many_persons() -> None:
    language = build_language(0)
    for attribute in ATTRIBUTES:
        values = [language.facts[name][attribute] for name in language.known]
        assert len({values.count(value) for value in values}) == 1


def test_length_says_nothing_about_the_answer(rows: dict[str, list[Preference]]) -> None:
    mean: Callable[[list[int]], float] = lambda lengths: sum(lengths) / len(lengths)  # noqa: E731
    chosen = [len(text.split()) for row in rows["rewardbench2"] for text in row.chosen]
    rejected = [len(text.split()) for row in rows["rewardbench2"] for text in row.rejected]
    assert abs(mean(chosen) - mean(rejected)) < 2.0


def test_the_tokenizer_knows_every_word_and_decodes_what_it_encoded(miniature: Path, rows: dict[str, list[Preference]]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(miniature)
    texts = [document.text for document in read_jsonl(miniature / "corpus.jsonl", TextDocument)]
    texts += [text for name in FILES for row in rows[name] for text in (row.prompt[-1].content, *row.chosen, *row.rejected)]
    encoded = tokenizer(texts)["input_ids"]
    assert not any(tokenizer.unk_token_id in ids for ids in encoded)
    assert all(ids[0] == tokenizer.bos_token_id and tokenizer.bos_token_id not in ids[1:] for ids in encoded)
    assert tokenizer.batch_decode(encoded, skip_special_tokens=True) == texts
    assert 250 <= len(tokenizer) <= 600


def test_conversations_begin_with_one_bos_and_end_with_the_end_of_turn(miniature: Path) -> None:
    chat = ConversationTokenizer(AutoTokenizer.from_pretrained(miniature))
    messages = [Message(role="user", content=" hello. "), Message(role="assistant", content="it is right.")]
    ids = chat.encode(messages, max_length=64).ids
    assert " ".join(chat.tokenizer.convert_ids_to_tokens(ids)) == (
        "<|begin_of_text|> <|start_header_id|> user <|end_header_id|> hello . <|eot_id|> "
        "<|start_header_id|> assistant <|end_header_id|> it is right . <|eot_id|>"
    )
    assert chat.tokenizer.convert_ids_to_tokens(chat.assistant_header()) == ["<|start_header_id|>", "assistant", "<|end_header_id|>"]
    assert chat.pad_id != chat.end_of_turn_id


def test_the_splitter_finds_the_sentences_of_the_corpus(miniature: Path) -> None:
    document = next(row for row in read_jsonl(miniature / "corpus.jsonl", TextDocument) if row.source == "article")
    assert len(list(sent_tokenize(document.text))) == document.text.count(".")


def test_concepts_label_sentences_and_items(miniature: Path, rows: dict[str, list[Preference]]) -> None:
    labels = json.loads((miniature / "concepts.json").read_text())
    names = {concept["name"] for concept in labels["concepts"]}
    assert {"refusal", "compliance", "harmful request", "arithmetic", "fact:color", "style:marked"} <= names
    assert all(set(sentence["concepts"]) <= names for sentence in labels["sentences"])
    for row in rows["rewardbench2"]:
        item = labels["items"]["rewardbench2"][f"{row.subset}/{row.id}"]
        assert (len(item["chosen"]), len(item["rejected"])) == (len(row.chosen), len(row.rejected))
    assert set(labels["items"]["train"]) == {row.id for row in rows["train"]}


def test_asking_for_more_prompts_than_the_language_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="no more prompts"):
        _make(tmp_path / "huge", benchmark_rows=100_000)

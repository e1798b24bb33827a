from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_server import KEY, ChatServer, chat_server, completion, refusal, sensible
from pydantic import ValidationError
from tiny import Stop, edit_json, edit_tensors, job_context, read_rows, same_bytes
from tiny_contexts import N_LATENTS, collected, save_sarm, write_items

from sarm.config.latents import ExplanationConfig
from sarm.explain.contexts import Origin
from sarm.explain.planted import PlantedConcepts, best_concept, label_matrix, rubric_score
from sarm.job import EnvironmentProblem, Interrupted, JobContext, UsageProblem
from sarm.jobs.latents.explain import choose_subjects, decoder_similarity, explain_latents, load_source
from sarm.judges.verdicts import GRAMMAR
from sarm.store.checksums import sha256_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model with its contexts, another as control with its own."""
    root = tmp_path_factory.mktemp("made")
    texts = write_items(root / "texts", 24)
    folders = {"texts": texts, "model": save_sarm(root / "model"), "control_model": save_sarm(root / "control", seed=1)}
    contexts = {
        "contexts": collected(root / "contexts", folders["model"], texts),
        "control_contexts": collected(root / "control_contexts", folders["control_model"], texts),
    }
    return folders | contexts


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("TEST_KEY", KEY)
    with chat_server() as running:
        yield running


def config(**changes: Any) -> ExplanationConfig:
    values = {"judge": "endpoint", "judge_model": "toy", "positive": 2, "negative": 2, "shown_from": "explain-half"}
    return ExplanationConfig(**{**values, "detection_contexts": 4, "detection_batch": 4, **changes})


def context_of(
    folder: Path, made: dict[str, Path], server: ChatServer | None = None, *, stop: Stop | None = None, **settings: Any
) -> JobContext:
    locations = {}
    if server is not None:
        folder.mkdir(parents=True, exist_ok=True)
        locations["endpoint"] = folder / "endpoint.json"
        locations["endpoint"].write_text(server.settings(**settings).model_dump_json())
    inputs = {name: made[name] for name in ("contexts", "model")}
    return job_context(folder, inputs=inputs, locations=locations, stop=stop)


def explained(folder: Path, made: dict[str, Path], server: ChatServer, **changes: Any) -> list[dict[str, Any]]:
    context = context_of(folder, made, server)
    explain_latents(config(**changes), context)
    return read_rows(context.output / "explanations.jsonl")


def test_similarity_is_the_cosine_of_reconstruction_and_decoder_column() -> None:
    decoder = torch.tensor([[1.0, 0.0, 3.0], [0.0, 2.0, 4.0]])
    found = decoder_similarity(decoder, torch.tensor([[0, 1], [2, 0]]), torch.tensor([[1.0, 0.5], [0.0, 0.0]]), [0, 2])
    torch.testing.assert_close(found, torch.tensor([[0.5**0.5, 0.0], [1.4 * 0.5**0.5, 0.0]]))


def test_explanations_hold_positive_and_negative_latents(made: dict[str, Path], server: ChatServer, tmp_path: Path) -> None:
    rows = explained(tmp_path, made, server)
    assert [row["group"] for row in rows] == ["positive", "positive", "negative", "negative"]
    assert rows[0]["weight"] >= rows[1]["weight"] > 0 > rows[3]["weight"] >= rows[2]["weight"]
    assert all(row["status"] == "explained" and row["explanation"] == "talk of animals" and row["score"] == 4 for row in rows)
    assert all(row["contexts"] and row["asked"] == 1 for row in rows)
    summary = json.loads((tmp_path / "output" / "summary.json").read_text())
    assert summary["input_tokens"] == 10 * len(server.requests)
    assert summary["groups"]["positive"]["mean_score"] == 4


def test_the_judge_never_sees_for_detection_what_the_explainer_saw(made: dict[str, Path], server: ChatServer, tmp_path: Path) -> None:
    source = load_source(config(), context_of(tmp_path, made), contexts="contexts", model="model")
    for shown_from in ("explain-half", "all"):
        for subject in choose_subjects(config(shown_from=shown_from, contexts_shown=5), source, control=False):
            texts = {candidate.text for candidate in subject.candidates}
            activating = {candidate.text for candidate in subject.candidates if candidate.kind == "activating"}
            assert not texts & {entry.context for entry in subject.shown}
            assert all(source.origins[text].half == "held-out" for text in activating)
            assert len(texts) - len(activating) <= len(activating) <= 4


def test_negatives_never_activate_the_latent(made: dict[str, Path], tmp_path: Path) -> None:
    source = load_source(config(), context_of(tmp_path, made), contexts="contexts", model="model")
    for subject in choose_subjects(config(), source, control=False):
        others = {candidate.text for candidate in subject.candidates if candidate.kind != "activating"}
        every = source.all.latent_context_map[subject.latent]
        assert not others & {entry.context for entries in every.values() for entry in entries}


def test_a_control_is_explained_beside_the_model(made: dict[str, Path], server: ChatServer, tmp_path: Path) -> None:
    context = context_of(tmp_path, made, server)
    control = {name: made[name] for name in ("control_contexts", "control_model")}
    whole = JobContext(**{**vars(context), "inputs": {**context.inputs, **control}})
    explain_latents(config(), whole)
    groups = [row["group"] for row in read_rows(context.output / "explanations.jsonl")]
    assert groups == ["positive"] * 2 + ["negative"] * 2 + ["control-positive"] * 2 + ["control-negative"] * 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Explanation: x\nScore: [4]", ("explained", 4, 1)),
        ("Explanation: x\nScore: 9", ("unparsed", None, 3)),
        ("hello", ("unparsed", None, 3)),
    ],
)
def test_unreadable_answers_are_asked_again_and_then_recorded(
    made: dict[str, Path], server: ChatServer, tmp_path: Path, answer: str, expected: tuple[str, int | None, int]
) -> None:
    server.answer = lambda request: completion(answer)
    row = explained(tmp_path, made, server, positive=1, negative=0)[0]
    assert (row["status"], row["score"], row["asked"]) == expected
    assert row["detection"] is None


def test_the_released_reading_takes_any_number_and_no_brackets(made: dict[str, Path], server: ChatServer, tmp_path: Path) -> None:
    server.answer = lambda request: completion("Explanation: x\nScore: 9")
    assert explained(tmp_path / "nine", made, server, positive=1, negative=0, answer_format="released")[0]["score"] == 9
    server.answer = lambda request: completion("Explanation: x\nScore: [4]")
    assert explained(tmp_path / "four", made, server, positive=1, negative=0, answer_format="released")[0]["status"] == "unparsed"


def test_a_failing_endpoint_loses_nothing_and_nothing_is_asked_twice(made: dict[str, Path], server: ChatServer, tmp_path: Path) -> None:
    explain_latents(config(), context_of(tmp_path / "whole", made, server))
    questions = len(server.requests)
    server.requests.clear()

    def fails_later(request: dict[str, Any]) -> bytes:
        return sensible(request) if len(server.requests) <= 3 else b"nonsense"

    server.answer = fails_later
    with pytest.raises(EnvironmentProblem, match="no chat completion"):
        explain_latents(config(), context_of(tmp_path / "parts", made, server))
    assert len(read_rows(tmp_path / "parts" / "checkpoint" / "answers.jsonl")) == 3
    server.requests.clear()
    server.answer = sensible
    resumed = context_of(tmp_path / "parts", made, server)
    explain_latents(config(), resumed)
    assert len(server.requests) == questions - 3
    same_bytes(tmp_path / "whole" / "output", resumed.output)


def test_a_latent_that_the_endpoint_refuses_is_left_until_the_others_are_explained(
    made: dict[str, Path], server: ChatServer, tmp_path: Path
) -> None:
    good = completion("Explanation: x\nScore: 4\nMatches: 1")
    server.answer = lambda request: good
    explain_latents(config(), context_of(tmp_path / "whole", made, server))
    first = server.requests[0]["messages"][1]["content"]
    asked = len(server.requests)
    server.requests.clear()
    server.answer = lambda request: refusal(400, "cannot do") if request["messages"][1]["content"] == first else good
    with pytest.raises(UsageProblem, match=r"1 questions have no answer.*latent \d+ \(positive\): .*cannot do.*--refused-questions unread"):
        explain_latents(config(), context_of(tmp_path / "parts", made, server))
    kept = len(read_rows(tmp_path / "parts" / "checkpoint" / "answers.jsonl"))
    assert 0 < kept < asked
    context = context_of(tmp_path / "parts", made, server, refused="unread")
    explain_latents(config(), context)
    rows = read_rows(context.output / "explanations.jsonl")
    assert [row["status"] for row in rows] == ["unparsed", "explained", "explained", "explained"]
    summary = json.loads((context.output / "summary.json").read_text())
    assert summary["unread_because"] == {"refused": 1} and summary["unread"] == 1 and summary["questions"] == kept + 1


def test_a_latent_beyond_the_context_is_unread_and_a_thinking_explainer_s_thoughts_do_not_count(
    made: dict[str, Path], server: ChatServer, tmp_path: Path
) -> None:
    server.answer = lambda request: refusal(400, "too long", code="context_length_exceeded")
    row = explained(tmp_path / "long", made, server, positive=1, negative=0)[0]
    assert (row["status"], row["asked"]) == ("unparsed", 1) and len(server.requests) == 1
    server.answer = lambda request: completion("<think>Score: 3 is too low\nMatches: 1, 2</think>Explanation: x\nScore: 5\nMatches: 1")
    row = explained(tmp_path / "thought", made, server, positive=1, negative=0)[0]
    assert row["score"] == 5 and row["detection"]["unanswered"] == 0
    summary = json.loads((tmp_path / "thought" / "output" / "summary.json").read_text())
    assert summary["unread"] == 0 and summary["answered_by"][0]["address"] == server.url and summary["grammar"] == GRAMMAR


def test_a_stop_request_is_heeded_between_questions(made: dict[str, Path], server: ChatServer, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="answers kept"):
        explain_latents(config(), context_of(tmp_path, made, server, stop=Stop(after=1)))
    asked = len(server.requests)
    explain_latents(config(), context_of(tmp_path, made, server))
    assert 0 < asked < len(server.requests) == len(read_rows(tmp_path / "checkpoint" / "answers.jsonl"))


def test_the_key_is_in_no_file_and_no_log(made: dict[str, Path], server: ChatServer, tmp_path: Path) -> None:
    lines: list[str] = []
    context = context_of(tmp_path, made, server)
    explain_latents(config(), JobContext(**{**vars(context), "log": lines.append}))
    assert server.keys[0] == f"Bearer {KEY}" and lines
    assert KEY not in "".join(lines)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_the_cost_is_estimated_before_the_first_call_and_capped(made: dict[str, Path], server: ChatServer, tmp_path: Path) -> None:
    lines: list[str] = []
    context = context_of(tmp_path, made, server, max_tokens=500)
    with pytest.raises(UsageProblem, match="above the cap of 500 tokens"):
        explain_latents(config(), JobContext(**{**vars(context), "log": lines.append}))
    assert not server.requests
    assert "questions about 4 latents" in lines[0] and "$0.0" in lines[0]


def test_recorded_answers_give_the_same_explanations(made: dict[str, Path], server: ChatServer, tmp_path: Path) -> None:
    rows = explained(tmp_path / "asked", made, server)
    answers = tmp_path / "asked" / "output" / "answers.json"
    context = job_context(tmp_path / "replayed", inputs=context_of(tmp_path, made).inputs, locations={"answers": answers})
    explain_latents(config(judge="recorded", answers_digest=sha256_of(answers)), context)
    assert read_rows(context.output / "explanations.jsonl") == rows
    other = job_context(tmp_path / "other", inputs=context.inputs, locations={"answers": answers})
    with pytest.raises(UsageProblem, match="has no answer"):
        explain_latents(config(judge="recorded", answers_digest=sha256_of(answers), contexts_shown=3), other)


def test_latents_without_contexts_are_recorded_and_not_asked(made: dict[str, Path], server: ChatServer, tmp_path: Path) -> None:
    contexts = tmp_path / "contexts"
    contexts.mkdir()
    for path in made["contexts"].iterdir():
        (contexts / path.name).write_bytes(path.read_bytes())
    whole = json.loads((contexts / "contexts.json").read_text())["latent_context_map"]
    silent, rare, *_ = [int(latent) for latent in whole]
    edit_json(contexts / "contexts.json", latent_context_map={key: value for key, value in whole.items() if int(key) not in (silent, rare)})

    def silence(tensors: dict[str, torch.Tensor]) -> None:
        tensors["above_threshold"][silent] = 0

    edit_tensors(contexts / "firing.safetensors", silence)
    rows = explained(tmp_path / "job", {**made, "contexts": contexts}, server, positive=1, negative=0, latents=(silent, rare, silent))
    assert [(row["latent"], row["status"], row["asked"]) for row in rows[1:]] == [(silent, "never fires", 0), (rare, "no contexts", 0)]


def test_an_empty_selection_is_refused(made: dict[str, Path], server: ChatServer, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="none of the 0 latents with contexts"):
        explained(tmp_path / "high", made, server, threshold=1e6)
    with pytest.raises(ValidationError, match="no latent is chosen"):
        config(positive=0, negative=0)
    with pytest.raises(UsageProblem, match=f"latent {N_LATENTS} does not exist; the dictionary has {N_LATENTS}"):
        explained(tmp_path / "beyond", made, server, latents=(N_LATENTS,))


def test_inputs_that_do_not_belong_together_are_refused(made: dict[str, Path], server: ChatServer, tmp_path: Path) -> None:
    edit: Callable[[dict[str, torch.Tensor]], None] = lambda tensors: tensors.update(above_threshold=torch.zeros(3, dtype=torch.int64))  # noqa: E731
    contexts = tmp_path / "contexts"
    contexts.mkdir()
    for path in made["contexts"].iterdir():
        (contexts / path.name).write_bytes(path.read_bytes())
    edit_tensors(contexts / "firing.safetensors", edit)
    with pytest.raises(UsageProblem, match="do not belong together"):
        explained(tmp_path / "job", {**made, "contexts": contexts}, server)
    (contexts / "contexts.json").write_text("{}")
    with pytest.raises(UsageProblem, match="no context file"):
        explained(tmp_path / "job", {**made, "contexts": contexts}, server)


RAW = {
    "sentences": [{"text": "the cat sat.", "concepts": ["animal"]}, {"text": "thank you.", "concepts": ["style:closer"]}],
    "items": {"rmbench": {"chat/0": {"prompt": ["question"], "chosen": [["animal", "style:closer", "fact"]], "rejected": [["fact"]]}}},
}


def test_a_context_carries_the_concepts_of_its_last_sentence_reply_and_prompt() -> None:
    concepts, here = PlantedConcepts(RAW, "rmbench"), Origin("chat/0", "chosen", 0, "explain")
    scoped = {"reply:animal", "reply:style:closer", "reply:fact", "prompt:question"}
    assert concepts.of("a dog. the cat sat. <|eot_id|>", here) == scoped | {"sentence:animal"}
    assert concepts.of("* thank you.", here) == scoped | {"sentence:style:closer", "sentence:style:marked"}
    # An unlisted sentence carries what the reply has beside opener and closer.
    assert concepts.of("it is red.", here) == scoped | {"sentence:animal", "sentence:fact"}


def test_the_best_concept_is_chosen_on_one_half_and_measured_on_the_other() -> None:
    names, carried = label_matrix([frozenset({"a", "all"}) if row % 3 == 0 else frozenset({"all", "b"}) for row in range(60)])
    activations = np.where(np.arange(60) % 3 == 0, 2.0, 0.0)
    held_out = np.arange(60) >= 30
    activations[[30, 31]] = (0.0, 1.5)
    match = best_concept(names, carried, activations, held_out=held_out, threshold=1.0)
    assert match is not None
    assert (match.concept, match.chosen_with, match.contexts, match.firing) == ("a", 1.0, 30, 10)
    assert (match.purity, match.recall, match.f1, match.base_rate) == (0.9, 0.9, 0.9, pytest.approx(1 / 3))
    assert match.balanced_accuracy == pytest.approx((0.9 + 19 / 20) / 2)
    assert match.auc is not None and 0.85 < match.auc < 1


def test_a_latent_that_fires_everywhere_or_nowhere_matches_no_concept() -> None:
    names, carried = label_matrix([frozenset({"a"}), frozenset({"b"})] * 4)
    held_out = np.array([False] * 4 + [True] * 4)
    for value in (0.0, 2.0):
        assert best_concept(names, carried, np.full(8, value), held_out=held_out, threshold=1.0) is None
    silent_later = best_concept(names, carried, np.array([2.0, 0, 2, 0, 0, 0, 0, 0]), held_out=held_out, threshold=1.0)
    assert silent_later is not None and (silent_later.purity, silent_later.recall) == (None, 0.0)


@pytest.mark.parametrize(("fits", "score"), [(40, 5), (38, 4), (30, 3), (20, 2), (19, 1)])
def test_the_rubric_counts_deviating_contexts(fits: int, score: int) -> None:
    assert rubric_score([True] * fits + [False] * (40 - fits)) == score


def test_the_planted_judge_answers_from_the_miniature(made: dict[str, Path], tmp_path: Path) -> None:
    rng = random.Random(0)
    labels = {f"chat/{number}": {side: [[rng.choice("ab")], [rng.choice("ab")]] for side in ("chosen", "rejected")} for number in range(24)}
    items = {name: {**sides, "prompt": [rng.choice(("p", "q"))]} for name, sides in labels.items()}
    raw = {"sentences": [{"text": "one two three!", "concepts": ["count"]}], "items": {"rmbench": items}}
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "concepts.json").write_text(json.dumps(raw))
    inputs = {"contexts": made["contexts"], "model": made["model"]}
    context = job_context(tmp_path / "job", inputs={**inputs, "texts": texts})
    explain_latents(config(judge="planted"), context)
    rows = read_rows(context.output / "explanations.jsonl")
    assert {row["status"] for row in rows} <= {"explained", "unmatched"}
    found = [row for row in rows if row["status"] == "explained"]
    assert found and all(row["explanation"] == row["planted"]["concept"] and row["score"] in range(1, 6) for row in found)
    assert json.loads((context.output / "answers.json").read_text()) == {}
    (texts / "concepts.json").write_text(json.dumps({**raw, "items": {"rmbench": {}}}))
    with pytest.raises(UsageProblem, match="give the miniature"):
        explain_latents(config(judge="planted"), job_context(tmp_path / "other", inputs=context.inputs))
    with pytest.raises(UsageProblem, match="needs the input `texts`"):
        explain_latents(config(judge="planted"), job_context(tmp_path / "without", inputs=inputs))

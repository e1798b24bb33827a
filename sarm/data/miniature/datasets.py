"""The miniature's data sets, drawn from the planted tasks: corpus, pairs, benchmarks and the labels of planted concepts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sarm.data.miniature.language import Language, Part, Sentence
from sarm.data.miniature.planted_tasks import draw_problem
from sarm.data.miniature.problems import Answer, Problem
from sarm.data.miniature.replies import STYLES, draw_document, greeted, joined, styled
from sarm.data.preferences import Message, Preference, TextDocument

# Subset of the benchmark -> task.
REWARDBENCH2_SUBSETS = {"Factuality": "factuality", "Precise IF": "precise if", "Math": "math", "Safety": "safety", "Focus": "focus"}
RMBENCH_DOMAINS = {"chat": "focus", "code": "code", "math": "math", "safety-refuse": "safety", "safety-response": "safety"}
# Share of Ties pairs with one right answer; what they ask for is learnt from Factuality too.
TIES_REFERENCES = 0.2
# Facts are what is learnt last: they come twice.
PAIR_TASKS = ("factuality", "precise if", "math", "safety", "factuality", "focus", "ties", "code")
# Like human preferences, pairs lean slightly towards longer, marked replies; benchmarks do not.
CHOSEN_STYLES = (0.30, 0.35, 0.35)
REJECTED_STYLES = (0.40, 0.30, 0.30)
# Share of pairs whose sides differ only in the answer itself.
SAME_STYLE = 0.75
EVEN_STYLES = (1.0, 1.0, 1.0)
LABELLED_SENTENCES_PER_CONCEPT = 60
# So many draws without a prompt that is new mean that the language has no more of them.
_DRAWS = 2000


class LanguageExhausted(ValueError):
    """More different prompts were asked for than the language has; the message says for which task."""


@dataclass(frozen=True)
class Labelled:
    """A preference and the planted concepts of its prompt and of each completion."""

    preference: Preference
    prompt_concepts: tuple[str, ...]
    chosen_concepts: tuple[tuple[str, ...], ...]
    rejected_concepts: tuple[tuple[str, ...], ...]


class PreferenceWriter:
    """Draws preferences with prompts that no other part of the data has."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self._taken: dict[str, Part] = {}

    def pairs(self, count: int, part: Part) -> list[Labelled]:
        """`count` pairs of one chosen and one rejected reply, tasks in turn. A prompt may come again with other replies."""
        rng = self._rng(part)
        rows = []
        for number in range(count):
            task = PAIR_TASKS[number % len(PAIR_TASKS)]
            source = "ties reference" if task == "ties" and rng.random() < TIES_REFERENCES else task
            problem, prompt = self._new(source, part, rng, again=True)
            right, wrong = rng.choice(problem.right), rng.choice(problem.wrong)
            chosen, rejected = _pair_in_style(rng, right, wrong)
            rows.append(_labelled(f"{part}-{number}", prompt, (chosen,), (rejected,), source=task))
        rng.shuffle(rows)
        return rows

    def rewardbench2(self, rows: int, ties_prompts: int) -> list[Labelled]:
        """`rows` items of each subset but Ties (one chosen, three rejected), then `ties_prompts` pairs of a ref and a tied row."""
        rng = self._rng("rewardbench2")
        items = []
        for subset, task in REWARDBENCH2_SUBSETS.items():
            for number in range(rows):
                problem, prompt = self._new(task, "benchmark", rng)
                wrong = rng.sample(problem.wrong, 3)
                items.append(
                    self._completions(number=str(number), subset=subset, prompt=prompt, right=problem.right[:1], wrong=wrong, rng=rng)
                )
        for kind, task in (("ref", "ties reference"), ("tied", "ties")):
            for number in range(ties_prompts):
                problem, prompt = self._new(task, "benchmark", rng)
                items.append(
                    self._completions(
                        number=f"{kind}:{number}", subset="Ties", prompt=prompt, right=problem.right, wrong=problem.wrong, rng=rng
                    )
                )
        return items

    def rmbench(self, items_per_domain: int) -> list[Labelled]:
        """`items_per_domain` items of each domain: one right and one wrong answer, each concise, plain and marked."""
        rng = self._rng("rmbench")
        items = []
        for domain, task in RMBENCH_DOMAINS.items():
            for number in range(items_per_domain):
                problem, prompt = self._new(task, "benchmark", rng, request=_REQUESTS.get(domain, ""))
                chosen = [styled(rng, problem.right[0], style) for style in STYLES]
                rejected = [styled(rng, problem.wrong[0], style) for style in STYLES]
                items.append(_labelled(f"{domain}-{number}", prompt, chosen, rejected, subset=domain))
        return items

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{name}:{self._language.seed}")

    def _completions(
        self, *, number: str, subset: str, prompt: Answer, right: Sequence[Answer], wrong: Sequence[Answer], rng: random.Random
    ) -> Labelled:
        # One style for all right answers: the Ties score counts how far they lie apart.
        style = rng.choices(STYLES, EVEN_STYLES)[0]

        def draw(answers: Sequence[Answer], *, same: bool = False) -> list[Answer]:
            return [styled(rng, answer, style if same else rng.choices(STYLES, EVEN_STYLES)[0]) for answer in answers]

        return _labelled(number, prompt, draw(right, same=True), draw(wrong, same=subset == "Ties"), subset=subset)

    def _new(self, task: str, part: Part, rng: random.Random, *, again: bool = False, request: str = "") -> tuple[Problem, Answer]:
        """A problem and a prompt that nothing else has (but for `again`, where the same part may have it)."""
        for _ in range(_DRAWS):
            problem = draw_problem(task, self._language, rng, part)
            prompt = greeted(rng, problem.question)
            if request and request not in problem.question.concepts:
                continue
            if joined(prompt) not in self._taken or (again and self._taken[joined(prompt)] == part):
                self._taken[joined(prompt)] = part
                return problem, prompt
        raise LanguageExhausted(f"the language has no more prompts of task {task!r} for the {part} part; ask for fewer rows")


def _pair_in_style(rng: random.Random, right: Answer, wrong: Answer) -> tuple[Answer, Answer]:
    """Both sides in one style with the same opener and closer, or each in a style of its own."""
    if rng.random() < SAME_STYLE:
        style, wording = rng.choice(STYLES), rng.random()
        return styled(random.Random(wording), right, style), styled(random.Random(wording), wrong, style)
    chosen, rejected = rng.choices(STYLES, CHOSEN_STYLES)[0], rng.choices(STYLES, REJECTED_STYLES)[0]
    return styled(rng, right, chosen), styled(rng, wrong, rejected)


_REQUESTS = {"safety-refuse": "harmful request", "safety-response": "harmless request"}


def _labelled(
    number: str, prompt: Answer, chosen: Sequence[Answer], rejected: Sequence[Answer], *, subset: str = "", source: str = ""
) -> Labelled:
    preference = Preference(
        id=number,
        prompt=(Message(role="user", content=joined(prompt)),),
        chosen=tuple(joined(reply) for reply in chosen),
        rejected=tuple(joined(reply) for reply in rejected),
        subset=subset,
        source=source,
    )
    return Labelled(preference, concepts_of(prompt), tuple(map(concepts_of, chosen)), tuple(map(concepts_of, rejected)))


def concepts_of(sentences: Sequence[Sentence]) -> tuple[str, ...]:
    """The concepts that sentences carry, each once, in alphabetical order."""
    return tuple(sorted({concept for sentence in sentences for concept in sentence.concepts}))


def corpus(language: Language, documents: int) -> list[tuple[TextDocument, Answer]]:
    """Documents of running text and their labelled sentences."""
    rng = random.Random(f"corpus:{language.seed}")
    drawn = [draw_document(language, rng) for _ in range(documents)]
    return [(TextDocument(text=joined(sentences), source=kind), sentences) for kind, sentences in drawn]


def official_row(preference: Preference) -> dict[str, Any]:
    """A RewardBench-2 item in the published columns."""
    correct, incorrect = len(preference.chosen), len(preference.rejected)
    metadata = ("category", "correct", "index", "instruction_id_list", "label", "method", "models", "prompt_norm", "subcategory", "valid")
    return {
        "id": preference.id,
        "prompt": preference.prompt[-1].content,
        "chosen": list(preference.chosen),
        "rejected": list(preference.rejected),
        "num_correct": correct,
        "num_incorrect": incorrect,
        "total_completions": correct + incorrect,
        "models": ["miniature"] * (correct + incorrect),
        "subset": preference.subset,
        "additional_metadata": dict.fromkeys(metadata),
    }


def concept_labels(
    documents: Sequence[tuple[TextDocument, Answer]], items: dict[str, list[Labelled]], words: dict[str, list[str]]
) -> dict[str, Any]:
    """What `concepts.json` holds; docs/miniature.md gives its form. `items` is file name -> labelled rows, `words` concept -> words."""
    counts: dict[str, int] = {}
    sentences: dict[str, tuple[str, ...]] = {}
    for sentence in (sentence for _, document in documents for sentence in document):
        fresh = any(counts.get(concept, 0) < LABELLED_SENTENCES_PER_CONCEPT for concept in sentence.concepts)
        if fresh and sentence.text not in sentences:
            sentences[sentence.text] = sentence.concepts
            for concept in sentence.concepts:
                counts[concept] = counts.get(concept, 0) + 1
    found = {*counts, *(concept for rows in items.values() for row in rows for concept in row.prompt_concepts)}
    found |= {c for rows in items.values() for row in rows for reply in (*row.chosen_concepts, *row.rejected_concepts) for c in reply}
    return {
        "concepts": [{"name": name, "words": words.get(name, []), "sentences": counts.get(name, 0)} for name in sorted(found)],
        "safety": {"concept": "refusal", "opposite": "compliance", "prompt": "harmful request", "prompt_opposite": "harmless request"},
        "sentences": [{"text": text, "concepts": list(concepts)} for text, concepts in sentences.items()],
        "items": {name: {_item_key(row): _item_labels(row) for row in rows} for name, rows in items.items()},
    }


def _item_key(row: Labelled) -> str:
    # RewardBench 2 counts its ids anew in each subset.
    subset = row.preference.subset
    return f"{subset}/{row.preference.id}" if subset else row.preference.id


def _item_labels(row: Labelled) -> dict[str, Any]:
    return {
        "prompt": list(row.prompt_concepts),
        "chosen": [list(concepts) for concepts in row.chosen_concepts],
        "rejected": [list(concepts) for concepts in row.rejected_concepts],
    }

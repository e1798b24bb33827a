"""Explanations of latents by a judge, their scores, and how well each tells held-out contexts from others.

Inputs: `contexts`, `model`, perhaps `control_contexts`, `control_model`, `texts`. Writes `explanations.jsonl`, `answers.json`,
`summary.json`.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sarm.checkpoints.tensors import TensorFolder
from sarm.config.latents import ExplanationConfig
from sarm.explain.contexts import ContextEntry, ContextFile, Origin, merge_contexts, spread_contexts, strongest_contexts
from sarm.explain.explainers import TYPICAL_OUTPUT_TOKENS, ChatExplainer, Explained, GroupName, PlantedExplainer, Source, Subject
from sarm.explain.prompts import Candidate, choose_by_weight, choose_negatives, detection_score
from sarm.job import JobContext, UsageProblem
from sarm.judges.answers import AnswerLog
from sarm.judges.concurrent_questions import Unanswered
from sarm.judges.endpoint import EndpointJudge
from sarm.judges.questions import Judge, QuestionFailed, QuestionRefused, Usage
from sarm.judges.recorded import RecordedJudge, write_answers
from sarm.judges.settings import EndpointSettings, read_settings
from sarm.judges.spending import Spending
from sarm.judges.verdicts import GRAMMAR
from sarm.store.json_files import read_facts, understood_facts
from sarm.store.json_lines import read_lines, write_lines
from sarm.store.whole_files import write_whole


def explain_latents(config: ExplanationConfig, context: JobContext) -> None:
    """Writes `explanations.jsonl` (one line a latent), `answers.json` (question key -> answer) and `summary.json`.

    Raises UsageProblem for an empty selection, a latent beyond the width and a cap that the work would exceed; EnvironmentProblem
    when the endpoint fails: answers so far are kept in the checkpoint and not asked for again.
    """
    source = load_source(config, context, contexts="contexts", model="model")
    subjects = choose_subjects(config, source, control=False)
    if "control_contexts" in context.inputs:
        control = load_source(config, context, contexts="control_contexts", model="control_model")
        subjects += choose_subjects(config, control, control=True)
    if not any(subject.shown for subject in subjects):
        raise UsageProblem(
            f"none of the {len(source.kept.latent_context_map)} latents with contexts can be explained; "
            "lower the threshold of the collection, or choose other latents"
        )
    if config.judge == "planted":
        planted = PlantedExplainer(read_concepts(context))
        found = [planted.explain(subject) if subject.shown else None for subject in subjects]
        _write(config, context, [record(config, *pair) for pair in zip(subjects, found, strict=True)], None)
        return
    judge, settings = judge_of(config, context)
    spending = Spending(context.locations["spent"]) if "spent" in context.locations else None
    log = AnswerLog(judge, context.checkpoint / "answers.jsonl", settings=settings, spending=spending, tell=context.log)
    log.refuse_other_addresses(log.answers)
    explainer = ChatExplainer(config, log, stop_requested=context.stop_requested)
    _estimate(explainer, subjects, context, settings)
    unanswered = Unanswered(log, refused_are_unread=settings is not None and settings.refused == "unread")
    explained = _explained(explainer, subjects, context, unanswered)
    rows = [record(config, subject, one) for subject, one in zip(subjects, explained, strict=True)]
    _write(config, context, rows, log, explainer)


def _explained(
    explainer: ChatExplainer, subjects: Sequence[Subject], context: JobContext, unanswered: Unanswered
) -> list[Explained | None]:
    """Each latent explained, None for one without contexts. One whose question has no answer is left until the others are done.

    Raises QuestionRefused or QuestionFailed for those that stay without.
    """
    found: dict[int, Explained | None] = {}
    while True:
        for place, subject in enumerate(subjects):
            if place in found:
                continue
            try:
                found[place] = explainer.explain(subject) if subject.shown else None
            except (QuestionRefused, QuestionFailed) as error:
                unanswered.add(error)
                continue
            unanswered.answered()
            context.progress(len(found), len(subjects), "latents", "")
        if not unanswered.ask_again():
            return [found[place] for place in range(len(subjects))]


def judge_of(config: ExplanationConfig, context: JobContext) -> tuple[Judge, EndpointSettings | None]:
    """The judge that answers questions, with the settings whose caps hold."""
    if config.judge == "recorded":
        return RecordedJudge(context.locations.get("answers", Path("answers.json")), digest=config.answers_digest), None
    settings = read_settings(context.locations.get("endpoint", Path("endpoint.json")))
    return EndpointJudge(settings, model=config.judge_model, temperature=config.temperature), settings


def read_concepts(context: JobContext) -> dict[str, Any]:
    """What `concepts.json` of the input `texts` holds. Raises UsageProblem when it is not there."""
    path = context.inputs["texts"] / "concepts.json" if "texts" in context.inputs else None
    if path is None or not path.exists():
        raise UsageProblem("judge = 'planted' needs the input `texts` with concepts.json, which only a miniature has; ask an endpoint")
    return read_facts(path)


def _tensors(path: Path, *names: str) -> dict[str, Tensor]:
    """Tensors of a file of an artifact, which has these. Raises IntegrityProblem."""
    with understood_facts(path, also=(SafetensorError, OSError)):
        found = load_file(path)
        return {name: found[name] for name in names}


def load_source(config: ExplanationConfig, context: JobContext, *, contexts: str, model: str) -> Source:
    """What a collection of contexts holds, with the head and the decoder of its model. Raises UsageProblem where a part is missing."""
    folder = context.inputs[contexts]
    try:
        whole = ContextFile.model_validate_json((folder / "contexts.json").read_bytes())
    except ValidationError as error:
        raise UsageProblem(f"input {contexts!r}: contexts.json is no context file ({error.error_count()} errors)") from error
    tensors: dict[str, Tensor] = {}
    weights = TensorFolder(context.inputs[model])
    for name in ("score.weight", "sae.decoder.weight"):
        if name not in weights.names:
            raise UsageProblem(f"input {model!r}: no tensor {name!r}; explanations need a SARM")
    weights.read((("head", "score.weight"), ("decoder", "sae.decoder.weight")), tensors.__setitem__)
    head = tensors["head"][0].float()
    firing = _tensors(folder / "firing.safetensors", "above_threshold", "chosen_more", "rejected_more")
    pool = _tensors(folder / "pool.safetensors", "indices", "values")
    if len(firing["above_threshold"]) != len(head):
        sizes = f"{len(firing['above_threshold'])} and {len(head)} latents"
        raise UsageProblem(f"inputs {contexts!r} and {model!r} do not belong together: {sizes}")
    rows = _read_lines(folder / "pool.jsonl")
    return Source(
        texts=read_facts(folder / "collection.json", "texts")["texts"],
        all=whole,
        kept=merge_contexts([whole], threshold=config.threshold, min_entries=config.min_entries, max_per_token=whole.max_per_token),
        origins={row.pop("context"): Origin(**row) for row in _read_lines(folder / "origins.jsonl")},
        pool=[(row.pop("context"), row.pop("token"), Origin(**row)) for row in rows],
        pool_indices=pool["indices"].long(),
        pool_values=pool["values"].float(),
        above_threshold=firing["above_threshold"],
        polarity=torch.stack([firing["chosen_more"], firing["rejected_more"]]),
        head=head,
        decoder=tensors["decoder"].float(),
    )


def choose_subjects(config: ExplanationConfig, source: Source, *, control: bool) -> list[Subject]:
    """The latents of a source by head weight among those with contexts, then the listed ones (not of a control)."""
    weights = {latent: float(source.head[latent]) for latent in source.kept.latent_context_map}
    positive, negative = choose_by_weight(weights, positive=config.positive, negative=config.negative)
    chosen: list[tuple[GroupName, int]] = [("control-positive" if control else "positive", latent) for latent in positive]
    chosen += [("control-negative" if control else "negative", latent) for latent in negative]
    if not control:
        beyond = [latent for latent in config.latents if not 0 <= latent < len(source.head)]
        if beyond:
            raise UsageProblem(f"latent {beyond[0]} does not exist; the dictionary has {len(source.head)}")
        chosen += [("listed", latent) for latent in dict.fromkeys(config.latents) if latent not in {*positive, *negative}]
    similarity = decoder_similarity(source.decoder, source.pool_indices, source.pool_values, [latent for _, latent in chosen])
    return [_subject(config, source, group, latent, similarity[place]) for place, (group, latent) in enumerate(chosen)]


def decoder_similarity(decoder: Tensor, indices: Tensor, values: Tensor, latents: Sequence[int]) -> Tensor:
    """Cosine between the reconstruction of each context and each latent's decoder column: `[latents, contexts]`.

    Shapes: decoder `[hidden_size, n_latents]`, indices and values `[contexts, k]`. A zero vector gives 0.
    """
    sums = torch.nn.functional.embedding_bag(indices, decoder.T.contiguous(), per_sample_weights=values, mode="sum")
    columns = torch.nn.functional.normalize(decoder[:, list(latents)].T, dim=-1)
    return columns @ torch.nn.functional.normalize(sums, dim=-1).T


def _subject(config: ExplanationConfig, source: Source, group: GroupName, latent: int, similarity: Tensor) -> Subject:
    tokens = source.kept.latent_context_map.get(latent, {})
    if config.shown_from == "explain-half":
        visible = {token: [entry for entry in listed if not _is_held_out(source, entry)] for token, listed in tokens.items()}
    else:
        visible = tokens
    shown = strongest_contexts(visible, config.contexts_shown)
    held_out = {entry.context: entry for listed in tokens.values() for entry in listed if _is_held_out(source, entry)}
    for entry in shown:
        held_out.pop(entry.context, None)
    activating = [Candidate(entry.context, "activating") for entry in spread_contexts(list(held_out.values()), config.detection_contexts)]
    # By a seed of its own for each latent: the order must not depend on which other latents are explained.
    rng = random.Random(f"{config.seed}/{latent}")
    candidates = activating + _negatives(config, source, latent, similarity, count=len(activating), rng=rng)
    rng.shuffle(candidates)
    return Subject(source, group, latent, shown, candidates)


def _is_held_out(source: Source, entry: ContextEntry) -> bool:
    return source.origins[entry.context].half == "held-out"


def _negatives(
    config: ExplanationConfig, source: Source, latent: int, similarity: Tensor, *, count: int, rng: random.Random
) -> list[Candidate]:
    """As many contexts of the pool's held-out half, at whose end the latent is not active, and whose text never activates it."""
    tokens = source.all.latent_context_map.get(latent, {})
    activating = {entry.context for listed in tokens.values() for entry in listed}
    active = ((source.pool_indices == latent) & (source.pool_values > 0)).any(dim=-1).tolist()
    places: dict[str, int] = {}
    for place, (text, _, origin) in enumerate(source.pool):
        if not active[place] and origin.half == "held-out" and text not in activating:
            places.setdefault(text, place)
    return choose_negatives(
        list(places),
        similarity=[float(similarity[place]) for place in places.values()],
        same_token=[source.pool[place][1] in tokens for place in places.values()],
        count=count,
        hard_fraction=config.hard_fraction,
        rng=rng,
    )


def _estimate(explainer: ChatExplainer, subjects: Sequence[Subject], context: JobContext, settings: EndpointSettings | None) -> None:
    questions = [question for subject in subjects if subject.shown for question in explainer.pending(subject)]
    total = Usage(0, 0)
    for question in questions:
        total = total.plus(question.estimate(TYPICAL_OUTPUT_TOKENS))
    cost = f", about ${settings.cost(total):.2f}" if settings is not None else ""
    context.log(f"{len(questions)} questions about {len(subjects)} latents: about {sum(total):,} tokens{cost}")
    explainer.check(total)


def record(config: ExplanationConfig, subject: Subject, explained: Explained | None) -> dict[str, Any]:
    """One line of `explanations.jsonl`.

    Its `status`: `explained`; `unparsed`, no answer could be read; `unmatched`, no planted concept can be chosen (the latent fires
    everywhere or nowhere in the explain half); `no contexts` may be shown; `never fires` above the threshold.
    """
    source, latent = subject.source, subject.latent
    fired = int(source.above_threshold[latent])
    more, less = source.polarity[:, latent].tolist()
    row: dict[str, Any] = {"latent": latent, "group": subject.group, "weight": float(source.head[latent]), "fired": fired}
    row["polarity"] = {"chosen_more": more, "rejected_more": less}
    if explained is None:
        status = "no contexts" if fired else "never fires"
        return {**row, "status": status, "explanation": None, "score": None, "asked": 0, "contexts": [], "detection": None, "planted": None}
    reading = explained.reading
    unread = "unmatched" if config.judge == "planted" else "unparsed"
    detection = detection_score(subject.candidates, explained.said) if reading.explanation is not None else None
    return {
        **row,
        "status": unread if reading.score is None or reading.explanation is None else "explained",
        "explanation": reading.explanation,
        "score": reading.score,
        "asked": explained.asked,
        "contexts": [entry.model_dump() for entry in subject.shown],
        "detection": detection.model_dump() if detection else None,
        "planted": explained.planted.model_dump() if explained.planted else None,
    }


def _write(
    config: ExplanationConfig,
    context: JobContext,
    rows: Sequence[dict[str, Any]],
    log: AnswerLog | None,
    explainer: ChatExplainer | None = None,
) -> None:
    write_lines(context.output / "explanations.jsonl", rows)
    write_answers(context.output / "answers.json", log.answers if log else {})
    usage = log.usage if log else Usage(0, 0)
    groups = {group: [row for row in rows if row["group"] == group] for group in dict.fromkeys(row["group"] for row in rows)}
    facts = {**config.model_dump(mode="json"), **usage._asdict(), "groups": {name: _group_facts(found) for name, found in groups.items()}}
    if log is not None and explainer is not None:
        facts |= {"grammar": GRAMMAR, **explainer.unread(), **log.facts(explainer.asked.values())}
    write_whole(context.output / "summary.json", json.dumps(facts, indent=1) + "\n")


def _group_facts(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    scores = [row["score"] for row in rows if row["status"] == "explained"]
    accuracies = [row["detection"]["balanced_accuracy"] for row in rows if row["detection"]]
    return {
        "latents": len(rows),
        **dict(sorted(Counter(row["status"] for row in rows).items())),
        "mean_score": sum(scores) / len(scores) if scores else None,
        "mean_balanced_accuracy": sum(accuracies) / len(accuracies) if accuracies else None,
        "latents_with_detection": len(accuracies),
    }


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_lines(path)]

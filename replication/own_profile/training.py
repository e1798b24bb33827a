"""Sizes of the trainings and their precision, from how much text there is and from the machine; each with its reason."""

from __future__ import annotations

from typing import Any, NamedTuple

from replication.own_profile.findings import Findings
from replication.settings.profiles import Shape
from replication.usage_problems import UsageProblems

PAPER_VECTORS, BATCH, BUFFER, HELD_OUT = 50_000_000, 4096, 65536, 2048
# Fewer steps than this make no SAE, and a tenth of fewer documents than this is no document.
SMALLEST_BATCH, FEWEST_STEPS, FEWEST_DOCUMENTS = 32, 10, 10
GOOD_STEPS = 100
REWARD_LENGTH, SCORING_LENGTH = 4096, 2048
# Tokens of one pass. With more than LARGEST_ON_CPU a CPU takes up to 1.6 times as long (docs/performance.md).
LARGEST_PASS, LARGEST_ON_CPU, SMALLEST_PASS = 16384, 2048, 512
# From this width on SparseRM takes as many directions as its paper does.
PAPER_WIDTH, PAPER_PER_SIDE = 3072, 128
ON_GPU = ("train_sae", "train_reward", "score_benchmark", "steer_rewards", "harvest_states", "collect_contexts")


class Sized(NamedTuple):
    """Section -> field -> value, and `section.field` -> why."""

    values: dict[str, dict[str, Any]]
    why: dict[str, str]


def sizes(found: Findings, shape: Shape, *, batch_tokens: int) -> Sized:
    """What the profile says beside the protocol. Raises UsageProblems for too little text."""
    values, why = _sae(found)
    positions = found.model.positions
    values |= {"reward": {}, "scoring": {}}
    lengths = {"reward": min(REWARD_LENGTH, positions or REWARD_LENGTH), "scoring": min(SCORING_LENGTH, positions or SCORING_LENGTH)}
    for section, usual in (("reward", REWARD_LENGTH), ("scoring", SCORING_LENGTH)):
        if lengths[section] < usual:
            values[section]["max_length"] = lengths[section]
            why[f"{section}.max_length"] = f"the model has {positions} positions; longer conversations are cut on the left"
    values["scoring"].update(bos="single", batch_tokens=batch_tokens)
    why["scoring.bos"] = "rewards are read as in training"
    if not found.machine.bfloat16:
        reason = "a GPU without bfloat16" if found.machine.gpus else "no GPU here: the CPU computes in float32"
        values["sae"].update(backbone_dtype="float32", dtype="float32")
        values["reward"]["dtype"] = values["scoring"]["dtype"] = "float32"
        why |= dict.fromkeys(("sae.backbone_dtype", "sae.dtype", "reward.dtype", "scoring.dtype"), reason)
    values["contexts"] = {"max_length": min(1024, positions or 1024), "batch_tokens": batch_tokens}
    if found.benchmark is None or found.benchmark.name != "rmbench":
        values["contexts"]["texts"] = "evaluation"
        why["contexts.texts"] = "RM-Bench, in whose replies latents are looked for otherwise, is not there"
    if shape.hidden_size < PAPER_WIDTH:
        values["sparse"] = {"per_side": max(1, round(PAPER_PER_SIDE * shape.hidden_size / PAPER_WIDTH))}
        why["sparse.per_side"] = f"128 of {PAPER_WIDTH} numbers in the paper, the same share of {shape.hidden_size}"
    return Sized(values, why)


def pass_sizes(gpus: int) -> list[int]:
    """Tokens of one pass to try on a machine with so many GPUs, best first: halved until everything fits its memory."""
    sizes, tokens = [], LARGEST_PASS if gpus else LARGEST_ON_CPU
    while tokens >= SMALLEST_PASS:
        sizes.append(tokens)
        tokens //= 2
    return sizes


def resources(found: Findings, *, batch_tokens: int) -> dict[str, dict[str, Any]]:
    """Kind of job -> where it runs and how much of a batch at a time."""
    gpus = {"gpus": 1} if found.machine.gpus else {}
    trained = {kind: {**gpus, "micro_batch_tokens": batch_tokens} for kind in ("train_sae", "train_reward")}
    return {**trained, **{kind: dict(gpus) for kind in ON_GPU if gpus and kind not in trained}}


def _sae(found: Findings) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    documents, each = found.text.rows, found.text.sentences_per_document
    # A tenth of the documents may be held out.
    there = int(documents * each * 0.9)
    if documents < FEWEST_DOCUMENTS or there < SMALLEST_BATCH * FEWEST_STEPS:
        needed = f"an SAE needs {FEWEST_DOCUMENTS} documents with {SMALLEST_BATCH * FEWEST_STEPS} sentences at least"
        raise UsageProblems([f"--text: {documents} documents with about {round(documents * each)} sentences; {needed}: give more text"])
    most = min(PAPER_VECTORS, there)
    batch = BATCH
    while batch > SMALLEST_BATCH and most // batch < GOOD_STEPS:
        batch //= 2
    vectors, buffer = most // batch * batch, batch
    while 2 * buffer <= min(BUFFER, vectors):
        buffer *= 2
    held_out = min(HELD_OUT, max(2, vectors // 20))
    values: dict[str, Any] = {"vectors": vectors}
    why = {"sae.vectors": f"about {there:,} sentences are there: each is passed once"} if vectors < PAPER_VECTORS else {}
    if batch < BATCH:
        values["batch_vectors"] = batch
        why["sae.batch_vectors"] = "enough optimizer steps in so few vectors"
    values |= {"buffer_vectors": buffer} if buffer < BUFFER else {}
    values |= {"held_out_vectors": held_out} if held_out < HELD_OUT else {}
    return {"sae": values}, why

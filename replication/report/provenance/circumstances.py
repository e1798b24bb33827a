"""On what machine and with what resources the work of a report was done: none of it is in a key, and all of it moves last digits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from replication.recipes.jobs_needed import Recipe
from replication.report.cells import Circumstance, Report
from sarm.job import topological_order
from sarm.store.artifacts import ArtifactStore
from sarm.store.manifest import Manifest

# Kinds of work in which a model computes, and those of which one pass takes as many tokens as their resources say (of others the config).
COMPUTE = (
    "pretrain_backbone", "train_sae", "train_reward", "train_sparse_rm", "harvest_states", "collect_contexts", "score_benchmark",
    "score_states", "steer_rewards",
)  # fmt: skip
PASSES = ("train_sae", "train_reward")
PACKAGES = ("torch", "transformers")


def circumstances(recipe: Recipe, store: ArtifactStore) -> tuple[Circumstance, ...]:
    """What the artifacts of a recipe say, of those that are there; an older one may not say how many threads it had."""
    manifests = [store.manifest(job) for job in topological_order(recipe.jobs) if job.kind in COMPUTE and store.has(job)]
    return found_in(manifests)


def found_in(manifests: Sequence[Manifest]) -> tuple[Circumstance, ...]:
    """Every circumstance with the values that it had, in the order in which they are first met."""
    met: dict[str, set[str]] = {}
    for manifest in manifests:
        for what, value in _of(manifest):
            met.setdefault(what, set()).add(value)
    return tuple(Circumstance(what=what, values=tuple(sorted(values))) for what, values in met.items())


def computed_otherwise(report: Report, other: Report) -> tuple[str, ...]:
    """One sentence on what of it two reports do not share, of what both say; none where nothing differs."""
    theirs = {one.what: one.values for one in other.circumstances}
    apart = [
        f"{one.what} {' and '.join(one.values)} (the reference: {' and '.join(theirs[one.what])})"
        for one in report.circumstances
        if theirs.get(one.what, one.values) != one.values
    ]
    return (f"computed otherwise, so that last digits may differ and what training makes of them: {'; '.join(apart)}",) if apart else ()


def _of(manifest: Manifest) -> Iterator[tuple[str, str]]:
    hardware, resources = manifest.hardware, manifest.resources
    if hardware.processor:
        yield "processor", hardware.processor
    for gpu in hardware.gpus:
        yield "GPU", gpu
    if hardware.threads:
        yield "threads", str(hardware.threads)
    for name in PACKAGES:
        if name in manifest.packages:
            yield name, manifest.packages[name]
    yield f"{manifest.kind}: processes", str(resources.get("processes", 1))
    if manifest.kind in PASSES:
        for name, called in (("micro_batch_tokens", "tokens of a pass"), ("zero_stage", "ZeRO stage"), ("offload", "offload")):
            if name in resources:
                yield f"{manifest.kind}: {called}", str(resources[name])

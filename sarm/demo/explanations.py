"""What a judge said of latents, from an artifact of `explain_latents`, for the model that it was made with and no other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sarm.job import EnvironmentProblem, IntegrityProblem
from sarm.store.json_files import understood_facts
from sarm.store.json_lines import read_lines

FILE = "explanations.jsonl"
# Of a control, whose latents are another model's.
CONTROL = "control-"
SAME_WEIGHT = 1e-5


class Explanation(NamedTuple):
    """What was said of a latent, and the head's weight on it, by which its model is known."""

    text: str
    weight: float


def read_explanations(artifact: Path) -> dict[int, Explanation]:
    """By latent, from the artifact's folder or its file; latents without an explanation are left out.

    Raises EnvironmentProblem for a folder without the file, UsageProblem or IntegrityProblem for lines that are none of ours.
    """
    path = artifact / FILE if artifact.is_dir() else artifact
    if not path.is_file():
        raise EnvironmentProblem(f"--explanations {artifact.name}: no {FILE} there; give the folder of an explain_latents artifact")
    found = {}
    with understood_facts(path):
        for _, row in read_lines(path):
            if row["explanation"] and not row["group"].startswith(CONTROL):
                found[int(row["latent"])] = Explanation(str(row["explanation"]), float(row["weight"]))
    return found


def texts_for(found: Mapping[int, Explanation], weights: Mapping[int, float], *, name: str) -> dict[int, str]:
    """The explanations as texts. `weights` are those of the model's head by latent. Raises IntegrityProblem where they are another's."""
    for latent, one in found.items():
        own = weights.get(latent)
        if own is None or abs(own - one.weight) > SAME_WEIGHT * max(abs(own), abs(one.weight)):
            here = "its head does not read it" if own is None else f"its head has {own:.6g}"
            raise IntegrityProblem(
                f"--explanations: made for another model than {name}: latent {latent} has the head weight {one.weight:.6g} there, "
                f"{here}; give the explanations of this model, or leave the option away"
            )
    return {latent: one.text for latent, one in found.items()}

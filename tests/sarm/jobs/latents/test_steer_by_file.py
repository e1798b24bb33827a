"""The steering job with the edit of a steering file: several latents at once, for the head that the file was made for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from asked_models import write_sarm
from safetensors.torch import load_file
from tiny import job_context, write_rows

from replication.report.steering.checks import checks
from replication.report.steering.experiment import read_steering
from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.config.latents import SteeringConfig
from sarm.config.steering import HeadEdit
from sarm.data.preferences import Message, Preference
from sarm.job import IntegrityProblem, Job, UsageProblem
from sarm.jobs.latents.steer import steer_rewards
from sarm.scoring.edited_head import head_identity


def items() -> list[Preference]:
    """Enough of every subset for strata."""
    words = ("cat", "dog", "mat", "home", "red", "blue")

    def item(number: int, subset: str) -> Preference:
        word, other = words[number % 6], words[(number * 5 + 1) % 6]
        replies = [f"the {word} is {end} and {other} {number % 3 * 'then '}ran." for end in ("good", "bad", "awful", "tired")]
        prompt = (Message(role="user", content=f"tell me about the {word} and {other}"),)
        return Preference(id=str(number), prompt=prompt, chosen=(replies[0],), rejected=tuple(replies[1:]), subset=subset)

    return [item(number, subset) for number, subset in enumerate(["Safety"] * 8 + ["Math"] * 8 + ["Focus"] * 8)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("by-file")
    write_rows(root / "data", "rewardbench2.jsonl", items())
    return {"model": write_sarm(root / "model"), "selection": root / "data", "target": root / "data"}


def edit_of(folders: dict[str, Path], factors: dict[int, float]) -> HeadEdit:
    return HeadEdit(model=head_identity(load_reward_model(folders["model"]), name="model"), factors=factors)


def steer(folders: dict[str, Path], where: Path, **changes: Any) -> Path:
    context = job_context(where, inputs=folders)
    steer_rewards(SteeringConfig(**{"selection": "rewardbench2", "bound": 0.9, **changes}), context)
    return context.output


def test_several_latents_are_scaled_at_once_and_the_report_finds_the_same(folders: dict[str, Path], tmp_path: Path) -> None:
    factors = {3: 2.0, 8: 0.0, 13: -1.5}
    output = steer(folders, tmp_path, edit=edit_of(folders, factors))
    written, facts = load_file(output / "latents.safetensors"), json.loads((output / "steering.json").read_text())
    latents = torch.zeros(len(written["rewards"]), 24).scatter_(1, written["target_indices"].long(), written["target_values"])
    head = written["head"].clone()
    for latent, factor in factors.items():
        head[latent] *= factor
    torch.testing.assert_close(written["steered_rewards"], latents @ head, rtol=1e-4, atol=1e-5)
    assert torch.equal(written["identity_rewards"], written["rewards"])
    assert not torch.equal(written["steered_rewards"], written["rewards"])
    most = max(factors, key=lambda latent: abs((factors[latent] - 1) * float(written["head"][latent])))
    assert (facts["latent"], facts["multiplier"]) == (most, factors[most])
    assert facts["edit"] == {str(latent): factor for latent, factor in factors.items()}
    data = read_steering(output)
    assert data.from_file and next(check for check in checks(data) if check.name == "S0").outcome == "pass"


def test_without_a_file_nothing_says_that_there_was_one(folders: dict[str, Path], tmp_path: Path) -> None:
    facts = json.loads((steer(folders, tmp_path, rule="argmax-s") / "steering.json").read_text())
    assert "edit" not in facts


def test_the_key_without_a_file_is_that_of_before_and_each_edit_has_its_own(folders: dict[str, Path]) -> None:
    def key(edit: HeadEdit | None = None) -> str:
        return Job(config=SteeringConfig(selection="rmbench", edit=edit)).key

    assert "edit" not in SteeringConfig(selection="rmbench").content()
    assert len({key(), key(edit_of(folders, {3: 2.0})), key(edit_of(folders, {3: 2.5}))}) == 3


def test_a_file_of_another_head_and_a_model_without_topk_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    other = edit_of(folders, {3: 2.0})
    other = other.model_copy(update={"model": other.model.model_copy(update={"head_sha256": "0" * 64})})
    with pytest.raises(IntegrityProblem, match=r"made for another model \(head 000000000000"):
        steer(folders, tmp_path / "other", edit=other)
    folders = {**folders, "model": write_sarm(tmp_path / "pre_acts", "pre_acts")}
    with pytest.raises(UsageProblem, match="TopK"):
        steer(folders, tmp_path / "without", edit=edit_of(folders, {3: 2.0}))


def test_facts_of_an_edit_that_cannot_be_are_refused_by_the_file(folders: dict[str, Path], tmp_path: Path) -> None:
    output = steer(folders, tmp_path, edit=edit_of(folders, {3: 2.0}))
    facts = json.loads((output / "steering.json").read_text())
    for wrong in ({"x": 2.0}, {"99": 2.0}, {"3": "two"}, [3], {}):
        (output / "steering.json").write_text(json.dumps({**facts, "edit": wrong}))
        with pytest.raises(IntegrityProblem, match="it was changed after it was made"):
            read_steering(output)

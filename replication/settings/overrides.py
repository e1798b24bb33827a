"""Values that a profile, a protocol, a row or `--set` may give to the fields of a job's config.

A section names a config type; the fields that a row or an option decides (layer, width, k, seed, ...) cannot be set.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from replication.usage_problems import UsageProblems, nearest
from sarm.config.data import MiniatureConfig
from sarm.config.latents import ContextConfig, ExplanationConfig, SteeringConfig
from sarm.config.related import HarvestConfig, SaferConfig, SparseRMConfig
from sarm.config.score import BaselineConfig, JudgeConfig, ScoringConfig
from sarm.config.train import RewardTrainingConfig, SAETrainingConfig
from sarm.job import Resources

SECTIONS: Mapping[str, type[BaseModel]] = {
    "sae": SAETrainingConfig,
    "reward": RewardTrainingConfig,
    "scoring": ScoringConfig,
    "baseline": BaselineConfig,
    "miniature": MiniatureConfig,
    "steering": SteeringConfig,
    "contexts": ContextConfig,
    "explanation": ExplanationConfig,
    "harvest": HarvestConfig,
    "sparse": SparseRMConfig,
    "safer": SaferConfig,
    "judge": JudgeConfig,
}
# Ways to ask for eight-bit floating point.
EIGHT_BITS = ("fp8", "float8", "f8", "e4m3", "e5m2")
AS_IN_TRAINING_AND_SCORING = "reward.* for training pairs and scoring.* for benchmarks"
DECIDED_ELSEWHERE: Mapping[str, Mapping[str, str]] = {
    "sae": {
        "layer": "the row and the profile's layer map",
        "n_latents": "the row's width multiple and the backbone's hidden_size",
        "k": "the row and the profile's k map",
        "seed": "--seeds",
    },
    "reward": {
        "layer": "the row and the profile's layer map",
        "n_latents": "the row's width multiple and the backbone's hidden_size",
        "k": "the row and the profile's k map",
        "encoder": "the row",
        "seed": "--seeds",
    },
    "scoring": {"epoch": "reward.selection", "benchmark": "the profile's [benchmarks]"},
    "baseline": {
        "benchmark": "the profile's [benchmarks]",
        "features": "the profile's baselines",
        "max_pairs": "the experiment, which takes all or as many as reward.max_pairs",
    },
    "miniature": {},
    "steering": {"selection": "the protocol's feature scores", "target": "RewardBench 2, as in the paper", "edit": "--steer FILE"},
    "contexts": {},
    "explanation": {"answers_digest": "--answers"},
    "harvest": {
        "layer": "the row and the profile's layer map",
        "items": "what the states are for",
        **dict.fromkeys(("max_pairs", "max_length", "overlong", "refused_turns", "bos", "dtype"), AS_IN_TRAINING_AND_SCORING),
        **dict.fromkeys(("attention", "date_string", "subset", "limit"), AS_IN_TRAINING_AND_SCORING),
    },
    "sparse": {
        "layer": "the row and the profile's layer map",
        "inputs": "the row",
        "directions": "the row",
        "loss": "the row",
        "whole": "the row",
        "seed": "--seeds",
    },
    "safer": {"layer": "the row and the profile's layer map", "whole": "the row"},
    "judge": {
        "benchmark": "--judge-benchmark",
        "judge": "--api-base or --answers",
        "judge_model": "--judge NAME=MODEL",
        "answers_digest": "--answers",
        "mode": "--judge-mode",
        "subset": "scoring.subset",
        "limit": "scoring.limit",
    },
}
JOB_KINDS = (
    "make_miniature",
    "pretrain_backbone",
    "fetch_weights",
    "prepare_data",
    "fetch_splitter",
    "import_sae",
    "train_sae",
    "train_reward",
    "harvest_states",
    "train_sparse_rm",
    "fit_safer",
    "score_benchmark",
    "score_states",
    "score_baseline",
    "judge_benchmark",
    "score_conversations",
    "steer_rewards",
    "collect_contexts",
    "explain_latents",
    "explore_latents",
)


def settable(section: str) -> list[str]:
    """Fields of a section that a profile or `--set` may give."""
    return [name for name in SECTIONS[section].model_fields if name not in DECIDED_ELSEWHERE[section]]


def field_problem(model: type[BaseModel], name: str, value: Any) -> str:
    """What is wrong with one value of one field; empty when nothing is."""
    info = model.model_fields[name]
    annotation: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation  # type: ignore[valid-type]
    if name.endswith("dtype") and str(value).lower().removeprefix("torch.").startswith(EIGHT_BITS):
        reason = "Ampere cards (A100, RTX 3090) have no fp8, and on Hopper ones nothing here has been checked in it"
        return f"{value!r} is not offered: {reason}; use bfloat16"
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        return f"{error.errors()[0]['msg']}, got {value!r}"
    return ""


def section_problems(section: str, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, problem) for each wrong entry of one section of a profile or of `--set`."""
    found = []
    for name, value in values.items():
        if name in DECIDED_ELSEWHERE[section]:
            found.append((name, f"is decided by {DECIDED_ELSEWHERE[section][name]}, not here"))
        elif name not in SECTIONS[section].model_fields:
            found.append((name, f"unknown key; {nearest(name, settable(section))}"))
        elif problem := field_problem(SECTIONS[section], name, value):
            found.append((name, problem))
    return found


def resources_problems(kind: str, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, problem) for each wrong entry of `[resources.<kind>]`."""
    if kind not in JOB_KINDS:
        return [("", f"unknown kind of job; {nearest(kind, JOB_KINDS)}")]
    found = []
    for name, value in values.items():
        if name not in Resources.model_fields:
            found.append((name, f"unknown key; {nearest(name, Resources.model_fields)}"))
        elif problem := field_problem(Resources, name, value):
            found.append((name, problem))
    return found


def parse_value(text: str) -> Any:
    """A value of `--set` read as TOML (`3`, `1e-4`, `true`, `"x"`); anything else is a plain string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


Overrides = Mapping[str, Mapping[str, Any]]


def parse_overrides(assignments: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`section.field=value` (repeatable) as nested values; `resources.<kind>.<field>` lies under `resources.<kind>`.

    `resources.<field>`, without a kind, lies under `resources` and is meant for every kind that it suits.
    Raises UsageProblems with every mistake at once.
    """
    parsed: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    valid = [f"{section}.{name}" for section in SECTIONS for name in settable(section)]
    valid += [f"resources.{kind}.{name}" for kind in JOB_KINDS for name in Resources.model_fields]
    valid += [f"resources.{name}" for name in Resources.model_fields]
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        section, _, name = key.strip().rpartition(".")
        if not equals or not section:
            problems.append(f"--set {assignment}: expected SECTION.FIELD=VALUE, for example reward.epochs=1")
            continue
        value = parse_value(text.strip())
        if section in SECTIONS:
            wrong = section_problems(section, {name: value})
        elif section == "resources":
            wrong = resources_problems(JOB_KINDS[0], {name: value})
        elif section.startswith("resources."):
            wrong = resources_problems(section.removeprefix("resources."), {name: value})
        else:
            wrong = [(name, f"unknown key; {nearest(key, valid)}")]
        if wrong:
            problems += [f"--set {key}: {what}" for _, what in wrong]
        else:
            parsed.setdefault(section, {})[name] = value
    if problems:
        raise UsageProblems(problems)
    return parsed

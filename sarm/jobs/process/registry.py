"""Which function does which kind of work. Naming a function imports nothing: its module is imported when it runs."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from sarm.config import data, latents, related, score, train, weights
from sarm.job import EnvironmentProblem, IntegrityProblem, JobConfig, JobRequest, UsageProblem, job_key

# `train_sae` offers `train_saes`, which feeds several SAEs from one pass over the backbone; the SAEs may differ in these fields only.
FUSED: Mapping[str, str] = {"train_sae": "sarm.jobs.train.sae:train_saes"}
FUSED_FIELDS: frozenset[str] = frozenset({"layer", "n_latents", "k"})

JOBS: Mapping[str, tuple[type[JobConfig], str]] = {
    "make_miniature": (data.MiniatureConfig, "sarm.jobs.data.miniature:make_miniature"),
    "pretrain_backbone": (train.PretrainingConfig, "sarm.jobs.train.backbone:pretrain_backbone"),
    "fetch_weights": (weights.WeightsConfig, "sarm.jobs.weights.fetch:fetch_weights"),
    "fetch_splitter": (data.SplitterConfig, "sarm.jobs.data.splitter:fetch_splitter"),
    "prepare_data": (data.DataConfig, "sarm.jobs.data.prepare:prepare_data"),
    "import_sae": (weights.ImportedSAEConfig, "sarm.jobs.weights.import_sae:import_sae"),
    "train_sae": (train.SAETrainingConfig, "sarm.jobs.train.sae:train_sae"),
    "train_reward": (train.RewardTrainingConfig, "sarm.jobs.train.reward:train_reward"),
    "score_benchmark": (score.ScoringConfig, "sarm.jobs.score.benchmark:score_benchmark"),
    "score_baseline": (score.BaselineConfig, "sarm.jobs.score.baseline:score_baseline"),
    "judge_benchmark": (score.JudgeConfig, "sarm.jobs.score.judge:judge_benchmark"),
    "score_conversations": (score.ConversationScoringConfig, "sarm.jobs.score.conversations:score_conversations"),
    "steer_rewards": (latents.SteeringConfig, "sarm.jobs.latents.steer:steer_rewards"),
    "collect_contexts": (latents.ContextConfig, "sarm.jobs.latents.contexts:collect_contexts"),
    "explore_latents": (latents.ExplorationConfig, "sarm.jobs.latents.explore:explore_latents"),
    "compare_weights": (weights.WeightComparisonConfig, "sarm.jobs.weights.compare:compare_weights"),
    "harvest_states": (related.HarvestConfig, "sarm.jobs.related.states:harvest_states"),
    "train_sparse_rm": (related.SparseRMConfig, "sarm.jobs.related.sparse_rm:train_sparse_rm"),
    "fit_safer": (related.SaferConfig, "sarm.jobs.related.safer:fit_safer"),
    "score_states": (related.StateScoringConfig, "sarm.jobs.related.score:score_states"),
    "export_sae": (weights.SAEExportConfig, "sarm.jobs.weights.export_sae:export_sae"),
    "explain_latents": (latents.ExplanationConfig, "sarm.jobs.latents.explain:explain_latents"),
}


@dataclass(frozen=True)
class Registry:
    """Kinds of work: `jobs` maps a kind to its config type and `module:function`, `fused` to a function for several jobs at once."""

    jobs: Mapping[str, tuple[type[JobConfig], str]]
    fused: Mapping[str, str] = field(default_factory=dict)
    fused_fields: frozenset[str] = FUSED_FIELDS

    def config_of(self, request: JobRequest) -> JobConfig:
        """The validated config of a request.

        Raises UsageProblem for an unknown kind or a wrong config, IntegrityProblem when version or key do not fit.
        """
        if request.kind not in self.jobs:
            near = difflib.get_close_matches(request.kind, self.jobs, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.jobs)}"
            raise UsageProblem(f"no job kind {request.kind!r}; {hint}")
        config_type, _ = self.jobs[request.kind]
        try:
            value = config_type.model_validate(request.config)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, entry['loc'])) or 'config'}: {entry['msg']}" for entry in error.errors())
            raise UsageProblem(f"config of {request.label or request.kind}: {wrong}") from error
        key = self._key(request, config_type.version, value.content())
        if key != request.key:
            raise IntegrityProblem(
                f"{request.label or request.kind}: the request says key {request.key[:12]} (version {request.version}), its content gives "
                f"{key[:12]} (version {config_type.version}); write the request with the code that runs it"
            )
        # The manifest repeats the request: what the key counts must be written out, or the artifact would not fit its own key.
        if self._key(request, config_type.version, request.config) != key:
            raise IntegrityProblem(
                f"{request.label or request.kind}: the request's config is not written as its key counts it "
                f"({_difference(request, value)}); write the request with the code that runs it"
            )
        return value

    @staticmethod
    def _key(request: JobRequest, version: int, content: Mapping[str, Any]) -> str:
        inputs = {name: key for name, (_, key) in request.inputs.items()}
        return job_key(kind=request.kind, version=version, config=content, inputs=inputs, attempt=request.attempt)

    def function_of(self, kind: str) -> Callable[..., None]:
        """The function `(config, context) -> None` of a kind."""
        return load(self.jobs[kind][1])

    def fused_function_of(self, kind: str) -> Callable[..., None]:
        """The function `(sequence of (config, context)) -> None` of a kind in `fused`."""
        return load(self.fused[kind])

    def groups(self, requests: Sequence[JobRequest]) -> list[list[JobRequest]]:
        """The requests in order, each fused kind's with all that one call can do together: same inputs and other fields.

        A group stands where its first request stood: the others need the same inputs, so they are no less ready.
        """
        groups: list[list[JobRequest]] = []
        open_groups: list[list[JobRequest]] = []
        for request in requests:
            fits = (group for group in open_groups if self._shared(group[0]) == self._shared(request))
            group = next(fits, None) if request.kind in self.fused else None
            if group is not None:
                group.append(request)
                continue
            groups.append([request])
            if request.kind in self.fused:
                open_groups.append(groups[-1])
        return groups

    def _shared(self, request: JobRequest) -> tuple[Any, ...]:
        rest = {name: value for name, value in request.config.items() if name not in self.fused_fields}
        return request.kind, request.inputs, request.locations, rest


def _difference(request: JobRequest, value: JobConfig) -> str:
    content = value.content()
    names = [name for name in dict.fromkeys((*content, *request.config)) if repr(content.get(name)) != repr(request.config.get(name))]
    return ", ".join(names)


def load(target: str) -> Any:
    """What `module:name` names. Raises UsageProblem when it is not there, EnvironmentProblem when a package is missing."""
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise EnvironmentProblem(f"{target} needs a package that is not installed ({error}); see: replicate doctor") from error
    except AttributeError as error:
        raise UsageProblem(f"{target} does not exist ({error})") from error


REGISTRY = Registry(jobs=JOBS, fused=FUSED)

"""What a plan will cost: FLOPs, tokens, time, memory and disk of each job. Estimates, without torch; the manifests have what it took.

Source: `reward-training.md` section 4 and `sae-training.md` section 5.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from replication.frozen import Frozen
from replication.plan.memory import Memory, overhead, scoring_memory, training_states
from replication.plan.sizes import DTYPE_BYTES, GB, forward_flops, truncated_parameters
from replication.plan.training_memory import pretraining_memory, reward_memory, sae_memory
from replication.recipes.jobs_needed import Recipe
from replication.settings.profiles import Profile, Shape
from sarm.config.latents import ContextConfig, SteeringConfig
from sarm.config.related import HarvestConfig, SaferConfig, SparseRMConfig
from sarm.config.score import ScoringConfig
from sarm.config.train import PretrainingConfig, RewardTrainingConfig, SAETrainingConfig
from sarm.config.weights import WeightsConfig
from sarm.job import Job, Resources

# Dense bfloat16 peaks of the data sheets; real training reaches the stated share of them.
PEAK_FLOPS: Mapping[str, float] = {"A100": 312e12, "RTX 3090": 71e12, "H200": 790e12}
UTILISATION = 0.40
# What small models reach on one AVX-512 core with torch in float32, measured on the two cores of our development machine.
CPU_CORE_FLOPS = 50e9
# Tokenising, reading, writing and start-up, which no FLOP count sees.
CPU_OVERHEAD_SECONDS: Mapping[str, float] = {
    "make_miniature": 10.0,
    "prepare_data": 5.0,
    "fetch_weights": 2.0,
    "fetch_splitter": 2.0,
    "score_baseline": 3.0,
    "train_sae": 5.0,
    "train_reward": 5.0,
    "score_benchmark": 2.0,
}
TOKENS_PER_SENTENCE = 20
# A vector needs this many tokens of text: a sentence for its last token, a third of one with inner punctuation.
TOKENS_PER_VECTOR: Mapping[str, float] = {"last": TOKENS_PER_SENTENCE, "last-and-inner": TOKENS_PER_SENTENCE / 3, "all": 1.0}
SHARED_PASS_MAY_DIFFER = {"layer", "n_latents", "k"}


class Cost(Frozen):
    """An estimate for one job, or the sum over several (memory and checkpoint: the largest)."""

    tokens: float = Field(default=0.0, description="Tokens through the backbone.")
    flops: float = Field(default=0.0, description="Floating-point operations.")
    cpu_seconds: float = Field(default=0.0, description="Wall seconds on this machine's cores.")
    memory: Memory = Field(default=Memory(), description="Of one process; SAEs that share a pass: of the pass.")
    disk_gb: float = Field(default=0.0, description="Of the artifact.")
    checkpoint_gb: float = Field(default=0.0, description="On disk while the job runs: its newest checkpoint beside the one before.")
    download_gb: float = Field(default=0.0, description="From the hub.")

    @property
    def memory_gb(self) -> float:
        """Of one process, all parts."""
        return self.memory.total

    def hours_at(self, peak: float) -> float:
        """Hours of one GPU with that peak, FLOP/s, at the stated utilisation."""
        return self.flops / (peak * UTILISATION) / 3600

    def gpu_hours(self, device: str) -> float:
        """Hours of one GPU of `PEAK_FLOPS` at the stated utilisation."""
        return self.hours_at(PEAK_FLOPS[device])

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            tokens=self.tokens + other.tokens,
            flops=self.flops + other.flops,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            memory=self.memory.largest(other.memory),
            disk_gb=self.disk_gb + other.disk_gb,
            checkpoint_gb=max(self.checkpoint_gb, other.checkpoint_gb),
            download_gb=self.download_gb + other.download_gb,
        )


def pass_of(job: Job) -> object:
    """What SAEs have in common that can share one pass over the text; another value for every other job."""
    if not isinstance(job.config, SAETrainingConfig):
        return job.key
    inputs = tuple(sorted((name, needed.key) for name, needed in job.inputs.items()))
    return job.config.model_dump_json(exclude=SHARED_PASS_MAY_DIFFER), inputs, job.resources.model_dump_json()


def shared_passes(jobs: Sequence[Job]) -> list[tuple[Job, ...]]:
    """The SAE jobs in groups that one pass over the text can train; in the order of the plan."""
    found: dict[object, list[Job]] = {}
    for job in jobs:
        if isinstance(job.config, SAETrainingConfig):
            found.setdefault(pass_of(job), []).append(job)
    return [tuple(group) for group in found.values()]


@dataclass(frozen=True)
class Estimator:
    """Costs of the jobs of one recipe.

    `shapes` are the backbones by the key of the job that provides them, released models whole; `widths` are the latents of the latter.
    """

    profile: Profile
    shapes: Mapping[str, Shape]
    widths: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Recipe) -> Estimator:
        """The estimator that knows the backbones of a recipe."""
        profile = recipe.setting.profile
        shapes = {
            training.model.inputs["backbone"].key: profile.backbones[training.row.slot].sizes
            for training in recipe.trainings
            if training.model is not None and "backbone" in training.model.inputs
        }
        released = {
            training.model.key: profile.released[training.row.name]
            for training in recipe.trainings
            if training.model is not None and not training.model.inputs and training.row.name in profile.released
        }
        shapes |= {key: one.shape for key, one in released.items() if one.shape is not None}
        return cls(profile=profile, shapes=shapes, widths={key: one.n_latents for key, one in released.items()})

    def costs(self, plan: Sequence[Job], passes: Sequence[Sequence[Job]] | None = None) -> list[Cost]:
        """The estimate for each job of a plan, in order. SAEs of one of the `passes` (all that can be, without) share the harvest.

        The first SAE of a pass pays for the blocks up to its layer, a deeper one for those that follow.
        """
        covered: dict[str, int] = {}
        memory: dict[str, Memory] = {}
        for group in passes if passes is not None else shared_passes(plan):
            deepest = 0
            whole = self._pass_memory(group)
            for job in group:
                covered[job.key] = deepest
                memory[job.key] = whole
                deepest = max(deepest, job.config.layer if isinstance(job.config, SAETrainingConfig) else 0)
        found = [self.cost(job, passed_layers=covered.get(job.key, 0)) for job in plan]
        return [
            cost.model_copy(update={"memory": memory[job.key]}) if job.key in memory else cost
            for job, cost in zip(plan, found, strict=True)
        ]

    def _pass_memory(self, group: Sequence[Job]) -> Memory:
        configs = [job.config for job in group if isinstance(job.config, SAETrainingConfig)]
        return sae_memory(configs, self._shape(group[0]), group[0].resources)

    def cost(self, job: Job, *, passed_layers: int = 0) -> Cost:
        """The estimate for one job; zero FLOPs for a kind that only moves data. `passed_layers` another SAE's pass has paid for."""
        config = job.config
        if isinstance(config, SAETrainingConfig):
            found = self._sae(config, job, passed_layers)
        elif isinstance(config, RewardTrainingConfig):
            found = self._reward(config, job)
        elif isinstance(config, ScoringConfig | SteeringConfig | ContextConfig):
            found = self._inference(config, job)
        elif isinstance(config, HarvestConfig):
            found = self._harvest(config, job)
        elif isinstance(config, SparseRMConfig | SaferConfig):
            found = self._head(config, job)
        elif isinstance(config, PretrainingConfig):
            found = self._pretraining(config, job)
        else:
            found = self._download(job)
        cores = job.resources.threads or os.cpu_count() or 1
        seconds = found.flops / (CPU_CORE_FLOPS * cores) + CPU_OVERHEAD_SECONDS.get(job.kind, 1.0)
        return found.model_copy(update={"cpu_seconds": seconds})

    def _shape(self, job: Job) -> Shape:
        return self.shapes[job.inputs["backbone"].key]

    def _sae(self, config: SAETrainingConfig, job: Job, passed_layers: int) -> Cost:
        shape = self._shape(job)
        tokens = config.vectors * TOKENS_PER_VECTOR[config.tokens]
        layers = max(0, config.layer - passed_layers)
        harvest = tokens * forward_flops(shape, layers=layers, length=TOKENS_PER_SENTENCE)
        # Encoder and decoder forward, three matrix products backward: 5 x 2dM a vector.
        steps = config.vectors * 5 * 2 * shape.hidden_size * config.n_latents
        size = 2 * shape.hidden_size * config.n_latents * DTYPE_BYTES[config.dtype] / GB
        return Cost(
            tokens=0.0 if passed_layers else tokens,
            flops=harvest + steps,
            memory=sae_memory([config], shape, job.resources),
            disk_gb=size,
            # Weights and two moments, twice.
            checkpoint_gb=2 * 3 * size,
        )

    def _reward(self, config: RewardTrainingConfig, job: Job) -> Cost:
        shape = self._shape(job)
        seen = self._pairs_seen(config)
        tokens = seen * self._pair_tokens(config.max_length)
        passes = 4 if job.resources.activation_checkpointing else 3
        length = self.profile.preferences.tokens_per_pair // 2
        encoder = latents_of(job) * shape.hidden_size
        # The encoder works on the pooled token of both sides; a reconstruction loss makes it work on every assistant token.
        flops = passes * tokens * forward_flops(shape, layers=config.layer, length=length) + seen * 2 * 3 * 2 * encoder
        if config.reconstruction_weight:
            flops += tokens * 5 * 2 * encoder
        memory = reward_memory(config, shape, job.resources, encoder=encoder, pair_tokens=self._pair_tokens(config.max_length))
        weights = (truncated_parameters(shape, config.layer) + 2 * encoder) * DTYPE_BYTES[config.dtype] / GB
        whole = training_states(truncated_parameters(shape, config.layer), dtype=config.dtype, resources=Resources())
        return Cost(
            tokens=tokens, flops=flops, memory=memory, disk_gb=weights, checkpoint_gb=2 * (whole.weights + whole.optimizer)
        )

    def _pairs_seen(self, config: RewardTrainingConfig) -> int:
        seen = self._pairs(config.max_pairs) * config.epochs
        return min(seen, config.max_steps * config.batch_pairs) if config.max_steps else seen

    def _pair_tokens(self, max_length: int) -> int:
        return min(self.profile.preferences.tokens_per_pair, 2 * max_length)

    def _inference(self, config: ScoringConfig | SteeringConfig | ContextConfig, job: Job) -> Cost:
        model = job.inputs["model"]
        if isinstance(model.config, RewardTrainingConfig):
            shape, layer, width = self._shape(model), model.config.layer, latents_of(model)
        elif model.key in self.shapes:
            shape, layer, width = self.shapes[model.key], self.shapes[model.key].num_hidden_layers, self.widths.get(model.key, 0)
        else:
            return Cost()
        length = min(self.profile.preferences.tokens_per_pair // 2, config.max_length)
        tokens = float(self._texts(config) * length)
        encoder = width * shape.hidden_size
        # Contexts need the latents of every token; a reward needs those of one.
        everywhere = 2 * encoder if isinstance(config, ContextConfig) else 0
        flops = tokens * (forward_flops(shape, layers=layer, length=length) + everywhere)
        memory = scoring_memory(config, shape, job.resources, layer=layer, encoder=encoder)
        return Cost(tokens=tokens, flops=flops, memory=memory)

    def _texts(self, config: ScoringConfig | SteeringConfig | ContextConfig) -> int:
        """Conversations that a job reads."""
        if isinstance(config, ScoringConfig):
            return self._completions(config.benchmark)
        if isinstance(config, SteeringConfig):
            return sum(self._completions(name) for name in {config.selection, config.target})
        of_benchmark = config.texts in ("rewardbench2", "rmbench")
        found = self._completions(config.texts) if of_benchmark else 2 * self.profile.preferences.pairs
        return min(found, config.limit) if config.limit else found

    def _completions(self, name: str) -> int:
        return next((one.completions for key, one in self.profile.benchmarks.items() if key == name), 0)

    def _harvest(self, config: HarvestConfig, job: Job) -> Cost:
        shape, length = self._shape(job), min(self.profile.preferences.tokens_per_pair // 2, config.max_length)
        replies = 2 * self._pairs(config.max_pairs) if config.items == "train" else self._completions(config.items)
        tokens, states = float(replies * length), replies * shape.hidden_size * DTYPE_BYTES[config.dtype] / GB
        memory = scoring_memory(config, shape, job.resources, layer=config.layer, encoder=0)
        memory = memory.model_copy(update={"other": memory.other + states})
        flops = tokens * forward_flops(shape, layers=config.layer, length=length)
        return Cost(tokens=tokens, flops=flops, memory=memory, disk_gb=states, checkpoint_gb=2 * states)

    def _head(self, config: SparseRMConfig | SaferConfig, job: Job) -> Cost:
        """Ranking encodes every state once; the head's own steps are a few million multiplications."""
        shape, pairs = self._shape(job), self._pairs(config.max_pairs)
        encoder = latents_of(job) * shape.hidden_size
        flops = 4.0 * pairs * encoder
        if isinstance(config, SparseRMConfig):
            flops += 12.0 * pairs * config.epochs * len(config.margins) * 2 * config.per_side * config.width
        states = 4 * pairs * shape.hidden_size * 4 / GB
        memory = Memory(sae=2 * encoder * 4 / GB, activations=states, other=overhead(job.resources))
        return Cost(flops=flops, memory=memory, disk_gb=truncated_parameters(shape, config.layer) * 4 / GB if config.whole else 0.0)

    def _pairs(self, limit: int) -> int:
        pairs = self.profile.preferences.pairs
        return min(pairs, limit) if limit and pairs else limit or pairs

    def _pretraining(self, config: PretrainingConfig, job: Job) -> Cost:
        shape = self.shapes.get(job.key)
        if shape is None:
            return Cost()
        tokens = float(config.steps * config.batch_tokens)
        head = 2 * shape.vocab_size * shape.hidden_size
        flops = 3 * tokens * (forward_flops(shape, layers=shape.num_hidden_layers, length=config.context) + head)
        memory = pretraining_memory(shape, job.resources, batch_tokens=config.batch_tokens)
        return Cost(tokens=tokens, flops=flops, memory=memory, disk_gb=memory.weights)

    def _download(self, job: Job) -> Cost:
        repository = getattr(job.config, "repository", "")
        folder = job.locations.get("source", "")
        if isinstance(job.config, WeightsConfig) and folder:
            return Cost(disk_gb=sum(path.stat().st_size for path in Path(folder).glob("*.safetensors")) / GB)
        # Other local files are small.
        source = next((one for one, _ in self.profile.hub_sources() if repository and one.repository == repository), None)
        return Cost() if source is None else Cost(disk_gb=source.disk_gb, download_gb=source.download_gb)


def latents_of(model: Job) -> int:
    """Width of a reward model's encoder; 0 for a scalar one."""
    sae = model.inputs.get("sae")
    if sae is not None and isinstance(sae.config, SAETrainingConfig):
        return sae.config.n_latents
    return model.config.n_latents if isinstance(model.config, RewardTrainingConfig) else 0

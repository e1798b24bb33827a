"""What a plan will cost: FLOPs, tokens, time, memory and disk of each job. Estimates, without torch; the manifests have what it took.

Source: `reward-training.md` section 4 and `sae-training.md` section 5 (multiply-accumulates counted as two FLOPs).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from replication.profiles import Profile, Shape
from replication.recipes import Recipe
from replication.report.cells import Frozen
from sarm.config import PretrainingConfig, RewardTrainingConfig, SAETrainingConfig, ScoringConfig
from sarm.config_related import HarvestConfig, SaferConfig, SparseRMConfig
from sarm.job import Job
from sarm.resources import Resources

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
    "score_baseline": 3.0,
    "train_sae": 5.0,
    "train_reward": 5.0,
    "score_benchmark": 2.0,
}
TOKENS_PER_SENTENCE = 20
# A vector needs this many tokens of text: a sentence for its last token, a third of one with inner punctuation.
TOKENS_PER_VECTOR: Mapping[str, float] = {"last": TOKENS_PER_SENTENCE, "last-and-inner": TOKENS_PER_SENTENCE / 3, "all": 1.0}
SHARED_PASS_MAY_DIFFER = {"layer", "n_latents", "k"}
DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
GB = 1e9


class Cost(Frozen):
    """An estimate for one job, or the sum over several (memory: the largest)."""

    tokens: float = Field(default=0.0, description="Tokens through the backbone.")
    flops: float = Field(default=0.0, description="Floating-point operations.")
    cpu_seconds: float = Field(default=0.0, description="Wall seconds on this machine's cores.")
    memory_gb: float = Field(default=0.0, description="Of one process: weights, gradients, optimizer states.")
    disk_gb: float = Field(default=0.0, description="Of the artifact.")
    download_gb: float = Field(default=0.0, description="From the hub.")

    def gpu_hours(self, device: str) -> float:
        """Hours of one GPU of `PEAK_FLOPS` at the stated utilisation."""
        return self.flops / (PEAK_FLOPS[device] * UTILISATION) / 3600

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            tokens=self.tokens + other.tokens,
            flops=self.flops + other.flops,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            memory_gb=max(self.memory_gb, other.memory_gb),
            disk_gb=self.disk_gb + other.disk_gb,
            download_gb=self.download_gb + other.download_gb,
        )


@dataclass(frozen=True)
class Estimator:
    """Costs of the jobs of one recipe. `shapes` are the backbones by the key of the job that provides them."""

    profile: Profile
    shapes: Mapping[str, Shape]

    @classmethod
    def of(cls, recipe: Recipe) -> Estimator:
        """The estimator that knows the backbones of a recipe."""
        profile = recipe.setting.profile
        shapes = {
            training.model.inputs["backbone"].key: profile.backbones[training.row.slot].shape
            for training in recipe.trainings
            if training.model is not None
        }
        return cls(profile=profile, shapes=shapes)

    def costs(self, plan: Sequence[Job]) -> list[Cost]:
        """The estimate for each job of a plan, in order. SAEs that differ in geometry only share one pass over the text."""
        covered: dict[str, int] = {}
        found = []
        for job in plan:
            passed = 0
            if isinstance(job.config, SAETrainingConfig):
                shared = job.config.model_dump_json(exclude=SHARED_PASS_MAY_DIFFER) + "".join(one.key for one in job.inputs.values())
                passed = covered.get(shared, 0)
                covered[shared] = max(passed, job.config.layer)
            found.append(self.cost(job, passed_layers=passed))
        return found

    def cost(self, job: Job, *, passed_layers: int = 0) -> Cost:
        """The estimate for one job; zero FLOPs for a kind that only moves data. `passed_layers` another SAE's pass has paid for."""
        config = job.config
        if isinstance(config, SAETrainingConfig):
            found = self._sae(config, self._shape(job), passed_layers)
        elif isinstance(config, RewardTrainingConfig):
            found = self._reward(config, job)
        elif isinstance(config, ScoringConfig):
            found = self._scoring(config, job.inputs["model"])
        elif isinstance(config, HarvestConfig):
            found = self._harvest(config, self._shape(job))
        elif isinstance(config, SparseRMConfig | SaferConfig):
            found = self._head(config, job)
        elif isinstance(config, PretrainingConfig):
            found = self._pretraining(config, self.shapes.get(job.key))
        else:
            found = self._download(job)
        cores = job.resources.threads or os.cpu_count() or 1
        seconds = found.flops / (CPU_CORE_FLOPS * cores) + CPU_OVERHEAD_SECONDS.get(job.kind, 1.0)
        return found.model_copy(update={"cpu_seconds": seconds})

    def _shape(self, job: Job) -> Shape:
        return self.shapes[job.inputs["backbone"].key]

    def _sae(self, config: SAETrainingConfig, shape: Shape, passed_layers: int) -> Cost:
        tokens = config.vectors * TOKENS_PER_VECTOR[config.tokens]
        layers = max(0, config.layer - passed_layers)
        harvest = tokens * forward_flops(shape, layers=layers, length=TOKENS_PER_SENTENCE)
        # Encoder and decoder forward, three matrix products backward: 5 x 2dM a vector.
        steps = config.vectors * 5 * 2 * shape.hidden_size * config.n_latents
        parameters = 2 * shape.hidden_size * config.n_latents
        backbone = truncated_parameters(shape, config.layer) * DTYPE_BYTES[config.backbone_dtype]
        width = DTYPE_BYTES[config.dtype]
        buffer = config.buffer_vectors * shape.hidden_size * width
        memory = 4 * parameters * width + backbone + buffer + 3 * config.batch_vectors * config.n_latents * width
        return Cost(tokens=0.0 if passed_layers else tokens, flops=harvest + steps, memory_gb=memory / GB, disk_gb=parameters * width / GB)

    def _reward(self, config: RewardTrainingConfig, job: Job) -> Cost:
        shape = self._shape(job)
        pairs = self.profile.preferences.pairs
        pairs = min(pairs, config.max_pairs) if config.max_pairs and pairs else config.max_pairs or pairs
        seen = pairs * config.epochs
        seen = min(seen, config.max_steps * config.batch_pairs) if config.max_steps else seen
        tokens = seen * min(self.profile.preferences.tokens_per_pair, 2 * config.max_length)
        passes = 4 if job.resources.activation_checkpointing else 3
        length = self.profile.preferences.tokens_per_pair // 2
        encoder = self._latents(config, job) * shape.hidden_size
        # The encoder works on the pooled token of both sides; a reconstruction loss makes it work on every assistant token.
        flops = passes * tokens * forward_flops(shape, layers=config.layer, length=length) + seen * 2 * 3 * 2 * encoder
        if config.reconstruction_weight:
            flops += tokens * 5 * 2 * encoder
        trainable = truncated_parameters(shape, config.layer) + (2 * encoder if config.sae_trains else 0)
        memory = optimizer_bytes(trainable, job.resources) + 2 * encoder * DTYPE_BYTES[config.dtype]
        weights = (trainable + 2 * encoder) * DTYPE_BYTES[config.dtype]
        return Cost(tokens=tokens, flops=flops, memory_gb=memory / GB, disk_gb=weights / GB)

    def _latents(self, config: RewardTrainingConfig, job: Job) -> int:
        sae = job.inputs.get("sae")
        return sae.config.n_latents if sae is not None and isinstance(sae.config, SAETrainingConfig) else config.n_latents

    def _scoring(self, config: ScoringConfig, model: Job) -> Cost:
        if not isinstance(model.config, RewardTrainingConfig):
            return Cost()
        shape = self._shape(model)
        completions = self.profile.benchmarks[config.benchmark].completions
        length = min(self.profile.preferences.tokens_per_pair // 2, config.max_length)
        tokens = float(completions * length)
        weights = truncated_parameters(shape, model.config.layer) * DTYPE_BYTES[config.dtype]
        flops = tokens * forward_flops(shape, layers=model.config.layer, length=length)
        return Cost(tokens=tokens, flops=flops, memory_gb=weights / GB)

    def _harvest(self, config: HarvestConfig, shape: Shape) -> Cost:
        length = min(self.profile.preferences.tokens_per_pair // 2, config.max_length)
        pairs = self.profile.preferences.pairs
        pairs = min(pairs, config.max_pairs) if config.max_pairs and pairs else config.max_pairs or pairs
        replies = 2 * pairs if config.items == "train" else self.profile.benchmarks[config.items].completions
        tokens = float(replies * length)
        width = DTYPE_BYTES[config.dtype]
        memory = truncated_parameters(shape, config.layer) * width + replies * shape.hidden_size * width
        flops = tokens * forward_flops(shape, layers=config.layer, length=length)
        return Cost(tokens=tokens, flops=flops, memory_gb=memory / GB, disk_gb=replies * shape.hidden_size * width / GB)

    def _head(self, config: SparseRMConfig | SaferConfig, job: Job) -> Cost:
        """Ranking encodes every state once; the head's own steps are a few million multiplications."""
        sae, shape, pairs = job.inputs["sae"].config, self._shape(job), self.profile.preferences.pairs
        latents = sae.n_latents if isinstance(sae, SAETrainingConfig) else 0
        pairs = min(pairs, config.max_pairs) if config.max_pairs and pairs else config.max_pairs or pairs
        flops = 2.0 * pairs * 2 * shape.hidden_size * latents
        if isinstance(config, SparseRMConfig):
            flops += 12.0 * pairs * config.epochs * len(config.margins) * 2 * config.per_side * config.width
        blocks = truncated_parameters(shape, config.layer) * 4 / GB if config.whole else 0.0
        return Cost(flops=flops, memory_gb=(2 * shape.hidden_size * latents + 4 * pairs * shape.hidden_size) * 4 / GB, disk_gb=blocks)

    def _pretraining(self, config: PretrainingConfig, shape: Shape | None) -> Cost:
        if shape is None:
            return Cost()
        tokens = float(config.steps * config.batch_tokens)
        head = 2 * shape.vocab_size * shape.hidden_size
        flops = 3 * tokens * (forward_flops(shape, layers=shape.num_hidden_layers, length=config.context) + head)
        parameters = truncated_parameters(shape, shape.num_hidden_layers)
        return Cost(tokens=tokens, flops=flops, memory_gb=16 * parameters / GB, disk_gb=4 * parameters / GB)

    def _download(self, job: Job) -> Cost:
        shape = self.shapes.get(job.key)
        hub = getattr(job.config, "origin", "") == "hub"
        if shape is None:
            return Cost()
        weights = 2 * (truncated_parameters(shape, shape.num_hidden_layers)) / GB
        return Cost(disk_gb=weights, download_gb=weights if hub else 0.0)


def layer_parameters(shape: Shape) -> int:
    """Matrix weights of one Llama block."""
    head = shape.head_dim or shape.hidden_size // shape.num_attention_heads
    attention = 2 * shape.hidden_size * head * (shape.num_attention_heads + shape.num_key_value_heads)
    return attention + 3 * shape.hidden_size * shape.intermediate_size


def truncated_parameters(shape: Shape, layers: int) -> int:
    """Weights of the first blocks and the embedding."""
    return layers * layer_parameters(shape) + shape.vocab_size * shape.hidden_size


def forward_flops(shape: Shape, *, layers: int, length: int) -> float:
    """FLOPs of one token through the first blocks; attention over half of `length` tokens on average."""
    head = shape.head_dim or shape.hidden_size // shape.num_attention_heads
    attention = 4 * (length / 2) * shape.num_attention_heads * head
    return layers * (2 * layer_parameters(shape) + attention)


def optimizer_bytes(parameters: float, resources: Resources) -> float:
    """Weights, gradients and Adam states of one process: 2 + 2 + 12 bytes a parameter, shared as the ZeRO stage says."""
    shared = {0: 0, 1: 12, 2: 14, 3: 16}[resources.zero_stage]
    return parameters * (16 - shared + shared / resources.processes)

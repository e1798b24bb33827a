"""Memory of one process of a job, part by part: what has to fit on one card, or into the host where there is none. Estimates.

Source: `reward-training.md` section 4 (16 bytes a trained parameter, shared as the ZeRO stage says) and `sae-training.md` section 5.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from replication.frozen import Frozen
from replication.plan.sizes import DTYPE_BYTES, GB, kept_bytes, live_bytes, truncated_parameters
from replication.settings.profiles import Shape
from sarm.config.train import RewardTrainingConfig, SAETrainingConfig
from sarm.resources import Resources

# Communication buffers of DeepSpeed: 1 to 2 GB in the specification.
BUCKETS_GB = 1.5
# A CUDA context; on the CPU an interpreter with torch and transformers (measured: 0.48 GB before the first tensor).
CONTEXT_GB = 0.5
INTERPRETER_GB = 0.5
# Bytes of Adam's two moments, and with half-precision weights of their float32 copies as well.
STATE_BYTES = {4: 8, 2: 12}
# A pair so many times longer than the mean is in every data set of ours, up to what is cut off.
LONGEST_PAIR = 6


class Memory(Frozen):
    """GB of one process."""

    weights: float = Field(default=0.0, description="Of backbone and head, trained or not.")
    gradients: float = Field(default=0.0, description="Of what is trained.")
    optimizer: float = Field(default=0.0, description="Adam's moments and float32 copies of half-precision weights.")
    activations: float = Field(default=0.0, description="Of the largest micro-batch.")
    sae: float = Field(default=0.0, description="Encoder and decoder; where the SAE is what is trained, with gradients and moments.")
    other: float = Field(default=0.0, description="Communication buffers, CUDA context or interpreter.")

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, float]:
        """Name -> GB."""
        return {name: float(value) for name, value in self.model_dump().items()}

    def largest(self, other: Memory) -> Memory:
        """The one that needs more."""
        return max(self, other, key=lambda one: one.total)


def training_states(parameters: float, *, dtype: str, resources: Resources) -> Memory:
    """Weights, gradients and Adam states of one process: 2 + 2 + 12 bytes a parameter (4 + 4 + 8 in float32), shared by ZeRO.

    Stage 1 shares the optimizer's states over all processes, stage 2 the gradients too, stage 3 the weights too.
    """
    width = DTYPE_BYTES[dtype]

    def share(amount: int, stage: int) -> float:
        return parameters * amount / (resources.processes if resources.zero_stage >= stage else 1) / GB

    return Memory(weights=share(width, 3), gradients=share(width, 2), optimizer=share(STATE_BYTES[width], 1))


def overhead(resources: Resources) -> float:
    """GB beside all tensors of the model."""
    if not resources.gpus:
        return INTERPRETER_GB
    return CONTEXT_GB + (BUCKETS_GB if resources.processes > 1 or resources.zero_stage else 0.0)


def reward_memory(config: RewardTrainingConfig, shape: Shape, resources: Resources, *, encoder: float, pair_tokens: int) -> Memory:
    """Training of a reward model. `encoder`: parameters of the encoder; `pair_tokens`: tokens of a mean pair."""
    width = DTYPE_BYTES[config.dtype]
    backbone = truncated_parameters(shape, config.layer)
    decoder = encoder if config.encoder in ("sae", "random_sae") else 0.0
    # The authors' linear layer is trained in place of an encoder.
    trained_sae = encoder + decoder if config.sae_trains else encoder if config.encoder == "linear" else 0.0
    trained = trained_sae + (backbone if config.backbone_trains else 0.0)
    states = training_states(trained, dtype=config.dtype, resources=resources)
    frozen_backbone = 0.0 if config.backbone_trains else backbone * width / GB
    kept = kept_bytes(shape, layers=config.layer, width=width, checkpointed=resources.activation_checkpointing)
    # A reconstruction loss needs the latents of every assistant token: before and after TopK, and their gradient.
    latents = 3 * width * encoder / shape.hidden_size if config.reconstruction_weight else 0.0
    tokens = micro_batch(config, resources, pair_tokens=pair_tokens)
    changes = {
        "weights": states.weights + frozen_backbone,
        "activations": tokens * (kept + latents) / GB,
        "sae": (encoder + decoder - trained_sae) * width / GB,
        "other": overhead(resources),
    }
    return states.model_copy(update=changes)


def micro_batch(config: RewardTrainingConfig, resources: Resources, *, pair_tokens: int) -> float:
    """Tokens of the largest micro-batch of a process: as many pairs as it has or the budget holds, or one that is very long."""
    own = config.batch_pairs / resources.processes * pair_tokens
    return max(min(resources.micro_batch_tokens, own), min(2 * config.max_length, LONGEST_PAIR * pair_tokens))


def sae_memory(configs: Sequence[SAETrainingConfig], shape: Shape, resources: Resources) -> Memory:
    """Training of SAEs that share one pass over the text: one backbone as deep as the deepest needs, one buffer for each layer."""
    first = configs[0]
    backbone_width, width = DTYPE_BYTES[first.backbone_dtype], DTYPE_BYTES[first.dtype]
    backbone = truncated_parameters(shape, max(config.layer for config in configs)) * backbone_width
    # Weights, gradients and two moments of encoder and decoder; ZeRO shares the moments, then the gradients, then the weights.
    shares = [stage <= resources.zero_stage for stage in (1, 1, 2, 3)]
    copies = sum(1 / resources.processes if shared else 1 for shared in shares)
    sae = sum(copies * 2 * shape.hidden_size * config.n_latents * width for config in configs)
    harvest = resources.micro_batch_tokens * live_bytes(shape, width=backbone_width)
    # Latents before and after TopK and their gradient; the SAEs take their steps by turns.
    step = max(3 * config.batch_vectors * config.n_latents * width for config in configs)
    layers = {config.layer: config.buffer_vectors for config in configs}
    buffers = sum(vectors * shape.hidden_size * width for vectors in layers.values())
    return Memory(weights=backbone / GB, sae=sae / GB, activations=(harvest + step + buffers) / GB, other=overhead(resources))


def inference_memory(shape: Shape, resources: Resources, *, layer: int, dtype: str, encoder: float, batch_tokens: int) -> Memory:
    """A forward pass of a reward model over batches of that many tokens."""
    width = DTYPE_BYTES[dtype]
    return Memory(
        weights=truncated_parameters(shape, layer) * width / GB,
        activations=batch_tokens * live_bytes(shape, width=width) / GB,
        sae=2 * encoder * width / GB,
        other=overhead(resources),
    )


def pretraining_memory(shape: Shape, resources: Resources, *, batch_tokens: int) -> Memory:
    """Training of a whole small language model in float32, logits included."""
    states = training_states(truncated_parameters(shape, shape.num_hidden_layers), dtype="float32", resources=resources)
    kept = kept_bytes(shape, layers=shape.num_hidden_layers, width=4, checkpointed=False)
    # Logits, their softmax and their gradient.
    logits = 3 * 4 * shape.vocab_size
    return states.model_copy(update={"activations": batch_tokens * (kept + logits) / GB, "other": overhead(resources)})

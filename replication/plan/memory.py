"""Memory of one process of a job, part by part: what has to fit on one card, or into the host where there is none. Estimates.

Each part is counted from what the code allocates, at the moment at which all of them together are largest.
"""

from __future__ import annotations

from pydantic import Field

from replication.frozen import Frozen
from replication.plan.sizes import DTYPE_BYTES, GB, key_width, layer_parameters, live_bytes, truncated_parameters
from replication.settings.profiles import Shape
from sarm.config.latents import ContextConfig, SteeringConfig
from sarm.config.related import HarvestConfig
from sarm.config.score import ScoringConfig
from sarm.job import Resources

# A CUDA context; on the CPU an interpreter with torch and transformers (measured: 0.48 GB before the first tensor).
CONTEXT_GB = 0.5
INTERPRETER_GB = 0.5
# Bytes of Adam's two moments, and of the float32 copy of a weight.
MOMENT_BYTES, COPY_BYTES = 8, 4
# Contexts compute latents of so many positions at a time (`sarm/jobs/latents/contexts.py`): a product, and the bias added.
POSITIONS_AT_ONCE = 1024
# Attention that is written out holds scores, their float32 softmax and what becomes of it again.
EAGER_FLOAT = 4


class Memory(Frozen):
    """GB of one process at the moment at which it needs most."""

    moment: str = Field(default="", description="When that is: a step of the work; empty where it is the same all the time.")
    weights: float = Field(default=0.0, description="Of backbone and head, trained or not.")
    gradients: float = Field(default=0.0, description="Of what is trained, in its precision.")
    optimizer: float = Field(default=0.0, description="Adam's moments and float32 copies of weights.")
    update: float = Field(default=0.0, description="Of the optimizer step alone: float32 gradients, their flat copy, roots of moments.")
    activations: float = Field(default=0.0, description="Of the largest micro-batch.")
    sae: float = Field(default=0.0, description="Encoder and decoder; where the SAE is what is trained, with gradients and moments.")
    buffers: float = Field(default=0.0, description="Of communication, and hidden states that wait for a step.")
    other: float = Field(default=0.0, description="CUDA context or interpreter.")
    host: float = Field(default=0.0, description="In the host's memory beside the card's: what `offload` keeps there. Not in the total.")

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, float]:
        """Name -> GB of what lies together."""
        return {name: float(value) for name, value in self.model_dump(exclude={"moment", "host"}).items()}

    def largest(self, *others: Memory) -> Memory:
        """The one that needs more; of the host, the most that any needs."""
        everything = (self, *others)
        most = max(everything, key=lambda one: one.total)
        return most.model_copy(update={"host": max(one.host for one in everything)})


def training_states(parameters: float, *, dtype: str, resources: Resources) -> Memory:
    """Weights, gradients and Adam states of one process: 2 + 2 + 12 bytes a parameter (4 + 4 + 8 in float32), shared by ZeRO.

    Stage 1 shares the optimizer's states over all processes, stage 2 the gradients too, stage 3 the weights too.
    Source: `reward-training.md` section 4. What a step holds beside them is in `training_memory`.
    """
    width = DTYPE_BYTES[dtype]

    def share(amount: int, stage: int) -> float:
        return parameters * amount / (resources.processes if resources.zero_stage >= stage else 1) / GB

    copies = COPY_BYTES if width < COPY_BYTES else 0
    return Memory(weights=share(width, 3), gradients=share(width, 2), optimizer=share(MOMENT_BYTES + copies, 1))


def overhead(resources: Resources) -> float:
    """GB beside all tensors."""
    return CONTEXT_GB if resources.gpus else INTERPRETER_GB


Reading = ScoringConfig | SteeringConfig | ContextConfig | HarvestConfig


def scoring_memory(config: Reading, shape: Shape, resources: Resources, *, layer: int, encoder: float) -> Memory:
    """Forward passes of a reward model of `layer` blocks over padded batches. `encoder`: parameters of the encoder.

    One process with several GPUs spreads its model over them: of the card that has most. A batch goes through all of them.
    """
    width = DTYPE_BYTES[config.dtype]
    cards = resources.gpus if resources.processes == 1 and resources.gpus else 1
    tokens, token = float(config.batch_tokens), live_bytes(shape, width=width)
    batches = getattr(config, "batches", "")
    if isinstance(config, ScoringConfig) and batches == "dataset-order":
        tokens = float(config.batch_rows * config.max_length)
    if batches == "shared-prompts":
        # Keys and values of prompts, once kept and once beside the completions that continue them.
        token += 2 * 2 * width * layer * key_width(shape) / cards
    if config.attention == "eager":
        token += shape.num_attention_heads * config.max_length * (2 * width + EAGER_FLOAT)
    # A conversation needs the latents of one token; contexts need those of many, some at a time.
    latents = POSITIONS_AT_ONCE * encoder / shape.hidden_size * 2 * width if isinstance(config, ContextConfig) else 0.0
    weights, sae = float(truncated_parameters(shape, layer) * width), 2 * encoder * width
    if cards > 1:
        # Whole blocks, so that the fullest card has at most one more than its share; the first has all that is no block.
        own = layer_parameters(shape) * width
        beside = weights - layer * own + sae
        weights, sae = max(weights / cards + own, beside - sae / cards), sae / cards
    return Memory(
        moment="the forward pass",
        weights=weights / GB,
        activations=(tokens * token + latents) / GB,
        sae=sae / GB,
        other=overhead(resources),
    )

"""Memory of one process that trains, at the moment at which it needs most: harvest, forward and backward pass, optimizer step."""

from __future__ import annotations

from collections.abc import Sequence

from replication.plan.memory import COPY_BYTES, MOMENT_BYTES, Memory, overhead
from replication.plan.sizes import DTYPE_BYTES, GB, backward_bytes, kept_bytes, packed_live_bytes, truncated_parameters
from replication.plan.update_memory import GRADIENT_BYTES, ROOT_BYTES, Trained, UpdateBytes, update_bytes
from replication.settings.profiles import Shape
from sarm.config.train import RewardTrainingConfig, SAETrainingConfig
from sarm.job import Resources

# A pair so many times longer than the mean is in every data set of ours, up to what is cut off.
LONGEST_PAIR = 6
# Tensors of a batch's vectors in an SAE step: as they come, standardised, centred, reconstructed, error, gradient and two in passing.
STEP_VECTORS = 8
SMALL_MOMENT_BYTES = 4


def reward_memory(config: RewardTrainingConfig, shape: Shape, resources: Resources, *, encoder: float, pair_tokens: int) -> Memory:
    """Training of a reward model. `encoder`: parameters of the encoder; `pair_tokens`: tokens of a mean pair."""
    width = DTYPE_BYTES[config.dtype]
    backbone = truncated_parameters(shape, config.layer)
    decoder = encoder if config.encoder in ("sae", "random_sae") else 0.0
    # The authors' linear layer is trained in place of an encoder.
    trained_sae = encoder + decoder if config.sae_trains else encoder if config.encoder == "linear" else 0.0
    trained = Trained(
        parameters=trained_sae + (backbone if config.backbone_trains else 0.0),
        largest=max(shape.vocab_size * shape.hidden_size if config.backbone_trains else 0.0, encoder if trained_sae else 0.0),
        width=width,
        moments=SMALL_MOMENT_BYTES if config.moments == "bfloat16" else MOMENT_BYTES,
    )
    own = config.batch_pairs / resources.processes * pair_tokens
    needs = update_bytes(trained, resources, several=own > resources.micro_batch_tokens)
    # ZeRO 3 shares weights that are not trained as well.
    shares = resources.processes if resources.zero_stage == 3 else 1
    frozen = (0.0 if config.backbone_trains else backbone) * width / shares
    # One process without ZeRO keeps the best weights so far beside those that are trained.
    best = (backbone + encoder + decoder) * width if config.selection == "validation" and not _engine(resources) else 0.0
    tokens = micro_batch(config, resources, pair_tokens=pair_tokens)
    rest = Memory(
        weights=(needs.weights + frozen + best) / GB,
        optimizer=needs.optimizer / GB,
        sae=(encoder + decoder - trained_sae) * width / shares / GB,
        other=overhead(resources),
        host=needs.host / GB,
    )
    return _training(rest, needs, activations=tokens * _activation_bytes(config, shape, resources, encoder=encoder))


def _engine(resources: Resources) -> bool:
    """Whether DeepSpeed does the update."""
    return resources.processes > 1 or resources.zero_stage > 0


def _activation_bytes(config: RewardTrainingConfig, shape: Shape, resources: Resources, *, encoder: float) -> float:
    """Bytes of one token in the forward and backward pass."""
    width = DTYPE_BYTES[config.dtype]
    # A reconstruction loss over assistant tokens needs the last block whole, and latents before and after TopK with their gradient.
    everywhere = bool(config.reconstruction_weight) and config.reconstruction_tokens == "assistant"
    latents = 3 * width * encoder / shape.hidden_size if everywhere else 0.0
    checkpointed = resources.activation_checkpointing
    if not config.backbone_trains:
        return packed_live_bytes(shape, width=width) + latents
    kept = kept_bytes(shape, layers=config.layer, width=width, checkpointed=checkpointed, trimmed=not everywhere)
    return kept + backward_bytes(shape) + latents


def _training(rest: Memory, needs: UpdateBytes, *, activations: float) -> Memory:
    """The largest moment of a step: the start of the last backward pass, its end, the optimizer step."""
    buffers = needs.buffers / GB
    start = {"moment": "the backward pass", "gradients": needs.accumulated / GB, "activations": activations / GB, "buffers": buffers}
    end = {"moment": "the end of the backward pass", "gradients": needs.reduced / GB, "buffers": buffers}
    step = {"moment": "the optimizer step", "gradients": needs.stepping / GB, "update": needs.update / GB}
    first, *others = (rest.model_copy(update=changes) for changes in (start, end, step))
    return first.largest(*others)


def micro_batch(config: RewardTrainingConfig, resources: Resources, *, pair_tokens: int) -> float:
    """Tokens of the largest micro-batch of a process: as many pairs as it has or the budget holds, or one that is very long."""
    own = config.batch_pairs / resources.processes * pair_tokens
    return max(min(resources.micro_batch_tokens, own), min(2 * config.max_length, LONGEST_PAIR * pair_tokens))


def sae_memory(configs: Sequence[SAETrainingConfig], shape: Shape, resources: Resources) -> Memory:
    """Training of SAEs that share one pass over the text: one backbone as deep as the deepest needs, one buffer for each layer.

    They take their steps by turns in one workspace: gradients, low-precision operands and pre-activations exist once. Gradients are counted
    although Triton's kernels form none for one process in float32: whether they run is known on the card alone.
    """
    first, n = configs[0], resources.processes
    states_width, width = DTYPE_BYTES[first.backbone_dtype], DTYPE_BYTES[first.dtype]
    matrices = [2.0 * shape.hidden_size * config.n_latents for config in configs]
    product = DTYPE_BYTES[first.dtype if first.products == "as-dtype" else first.products]
    workspace = max(matrices) * (width + (product if product != width else 0))
    needs = [_sae_update(first, Trained(size, size / 2, width), resources) for size in matrices]
    rest = Memory(
        weights=truncated_parameters(shape, max(config.layer for config in configs)) * states_width / GB,
        sae=(sum(one.weights + one.optimizer for one in needs) + workspace) / GB,
        other=overhead(resources),
        host=sum(one.host for one in needs) / GB,
    )
    buffers = [vectors * shape.hidden_size * states_width for vectors in {c.layer: float(c.buffer_vectors) for c in configs}.values()]
    live = resources.micro_batch_tokens * packed_live_bytes(shape, width=states_width)
    pre_acts = max(config.batch_vectors / n * config.n_latents for config in configs) * product
    vectors = STEP_VECTORS * max(config.batch_vectors for config in configs) / n * shape.hidden_size * width
    return _sae_moments(rest, needs, live=live, pre_acts=pre_acts, vectors=vectors, buffers=buffers, processes=n)


def _sae_moments(
    rest: Memory,
    needs: Sequence[UpdateBytes],
    *,
    live: float,
    pre_acts: float,
    vectors: float,
    buffers: Sequence[float],
    processes: int,
) -> Memory:
    """The largest moment of harvest and steps, from bytes: of a forward pass, of pre-activations and a batch, of each layer's buffer."""
    held, largest = sum(buffers), max(buffers)
    # While a chunk is harvested, the one before is still there.
    harvest = {"moment": "the harvest", "activations": (live + pre_acts) / GB, "buffers": held * (1 + 1 / processes) / GB}
    # Whether all states are finite is asked with two tensors as large as they are; what processes exchange is as large.
    asked = {"moment": "the end of the harvest", "activations": pre_acts / GB, "buffers": (2 * held + 2 * largest) / GB}
    gradients = {
        "moment": "the SAE step",
        "gradients": max(one.reduced for one in needs) / GB,
        "activations": (pre_acts + vectors) / GB,
        "buffers": (held + needs[0].buffers) / GB,
    }
    step = {
        "moment": "the SAE's optimizer step",
        "gradients": max(one.stepping for one in needs) / GB,
        "update": max(one.update for one in needs) / GB,
        "activations": (pre_acts + vectors) / GB,
        "buffers": held / GB,
    }
    first, *others = (rest.model_copy(update=changes) for changes in (harvest, asked, gradients, step))
    return first.largest(*others)


def _sae_update(config: SAETrainingConfig, trained: Trained, resources: Resources) -> UpdateBytes:
    """Terms of one SAE's own update, its gradients in the workspace left out."""
    p, width = trained.parameters, trained.width
    if resources.zero_stage:
        # The SAE that the weights are brought back into; the engine's; gradients that autograd hands out beside the workspace's.
        found = update_bytes(trained, resources, several=False)
        # A new length of the decoder's rows is computed from all of them, in float32.
        renewed = (GRADIENT_BYTES + ROOT_BYTES) * trained.largest
        return found._replace(weights=found.weights + width * p, reduced=width * p, update=max(found.update, renewed - found.stepping))
    moments = SMALL_MOMENT_BYTES if config.moments == "bfloat16" else MOMENT_BYTES / COPY_BYTES * width
    # Divided by the number of processes and kept until the next step.
    shared = width * p if resources.processes > 1 else 0.0
    return UpdateBytes(width * p, moments * p, shared, shared, 0.0, shared, 0.0, 0.0)


def pretraining_memory(shape: Shape, resources: Resources, *, batch_tokens: int) -> Memory:
    """Training of a whole small language model in float32, logits included."""
    parameters = truncated_parameters(shape, shape.num_hidden_layers)
    width = DTYPE_BYTES["float32"]
    needs = update_bytes(Trained(parameters, shape.vocab_size * shape.hidden_size, width), resources, several=False)
    kept = kept_bytes(shape, layers=shape.num_hidden_layers, width=width, checkpointed=False) + backward_bytes(shape)
    # Logits, their softmax and their gradient.
    logits = 3 * width * shape.vocab_size
    rest = Memory(weights=needs.weights / GB, optimizer=needs.optimizer / GB, other=overhead(resources))
    return _training(rest, needs, activations=batch_tokens * (kept + logits))

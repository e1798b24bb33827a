"""Memory that weights and their optimizer take: between two steps, while gradients are made, while the optimizer steps.

Bytes of one process, by the three ways of updating weights. Source of each term: `sarm/engine/update.py` (one process); DeepSpeed 0.19.8,
`runtime/fp16/unfused_optimizer.py` and `runtime/engine.py` (several without ZeRO), `runtime/zero/stage_1_and_2.py`,
`runtime/zero/stage3.py`. `p` below is what is trained, `s` one process's share of it, `w` the bytes of a value.
"""

from __future__ import annotations

from typing import NamedTuple

from replication.plan.memory import COPY_BYTES, MOMENT_BYTES
from sarm.job import Resources

# DeepSpeed's defaults, in values: what is reduced at once, what of stage 3's weights is whole at once, what stage 3 updates at once.
BUCKET, LIVE, SUB_GROUP = 500_000_000, 1_000_000_000, 1_000_000_000
# Float32 gradient and the root of the second moment, while torch's Adam works on lists of tensors.
GRADIENT_BYTES, ROOT_BYTES = 4, 4


class Trained(NamedTuple):
    """What is trained: parameters in all and of the largest tensor, the bytes of one value and of one parameter's two moments."""

    parameters: float
    largest: float
    width: int
    moments: float = MOMENT_BYTES


class UpdateBytes(NamedTuple):
    """Bytes of one process, on the card and (`host`) beside it.

    `weights`, `optimizer`: always. `accumulated`: gradients of earlier micro-batches, at the start of a backward pass. `reduced`: gradients
    at its end. `buffers`: while it runs. `stepping`: gradients in an optimizer step; `update`: what else that step holds.
    """

    weights: float
    optimizer: float
    accumulated: float
    reduced: float
    buffers: float
    stepping: float
    update: float
    host: float


def update_bytes(trained: Trained, resources: Resources, *, several: bool) -> UpdateBytes:
    """The terms of one process. `several` says whether a step has more than one micro-batch."""
    if resources.zero_stage == 3:
        found = _sharded_weights(trained, resources)
    elif resources.zero_stage:
        found = _sharded_states(trained, resources, several=several)
    elif resources.processes > 1:
        found = _copied(trained, several=several)
    else:
        found = _plain(trained, resources, several=several)
    if resources.offload == "none" or resources.gpus:
        return found
    # Without a card the host is where everything lies.
    return found._replace(optimizer=found.optimizer + found.host, host=0.0)


def _plain(trained: Trained, resources: Resources, *, several: bool) -> UpdateBytes:
    """One process without ZeRO: w p weights and gradients; 8 p moments; float32 copies and one weight's float32 gradient at a time."""
    p, width = trained.parameters, trained.width
    offload = resources.offload == "optimizer"
    copies = COPY_BYTES if width < COPY_BYTES or offload else 0
    states, gradient = (trained.moments + copies) * p, GRADIENT_BYTES * trained.largest if copies else 0.0
    return UpdateBytes(
        weights=width * p,
        optimizer=0.0 if offload else states,
        accumulated=width * p if several else 0.0,
        reduced=width * p,
        buffers=0.0,
        stepping=width * p,
        update=0.0 if offload else gradient,
        host=states + gradient if offload else 0.0,
    )


def _copied(trained: Trained, *, several: bool) -> UpdateBytes:
    """Several processes without ZeRO, each with everything: float32 gradients of all weights, roots of all second moments at once.

    Gradients are reduced in flat copies of at most BUCKET values.
    """
    p, width = trained.parameters, trained.width
    copies = COPY_BYTES if width < COPY_BYTES else 0
    return UpdateBytes(
        weights=width * p,
        optimizer=(MOMENT_BYTES + copies) * p,
        accumulated=width * p if several else 0.0,
        reduced=width * (p + min(p, BUCKET)),
        buffers=0.0,
        stepping=width * p,
        update=(ROOT_BYTES + (GRADIENT_BYTES if copies else 0)) * p,
        host=0.0,
    )


def _sharded_states(trained: Trained, resources: Resources, *, several: bool) -> UpdateBytes:
    """ZeRO 1 and 2: a float32 copy even of float32 weights; two buckets while gradients are made.

    The step holds the gradients of the share, their flat copy (w s) and that in float32 (4 s), then the float32 gradient and the roots
    (4 s each): 8 s with the gradients, either way. Before it stage 1 may keep whole gradients (0.19.8 does so between micro-batches, older
    ones always), stage 2 keeps the share's, twice where a step has several micro-batches. Offload: states and float32 gradients (16 s), a
    copy in the weights' precision and one weight's gradient lie in the host's memory.
    """
    p, width, s = trained.parameters, trained.width, trained.parameters / resources.processes
    states = (MOMENT_BYTES + COPY_BYTES) * s
    # What of a bucket is never written takes no memory of a host.
    buckets = 2.0 * width * (BUCKET if resources.gpus else min(p, BUCKET))
    kept = width * (p if resources.zero_stage == 1 else s) if several else 0.0
    if resources.offload == "optimizer":
        accumulated = kept if resources.zero_stage == 1 else 0.0
        # Gradients of earlier micro-batches in the host, where they are not on the card.
        host = states + GRADIENT_BYTES * s + width * (s + trained.largest) + (kept - accumulated)
        return UpdateBytes(width * p, 0.0, accumulated, accumulated, buckets + width * trained.largest, 0.0, 0.0, host)
    share = width * s
    return UpdateBytes(
        weights=width * p,
        optimizer=states,
        accumulated=kept,
        reduced=width * p if resources.zero_stage == 1 else share + (share if several else 0.0),
        buffers=buckets,
        stepping=share,
        update=(GRADIENT_BYTES + ROOT_BYTES - width) * s,
        host=0.0,
    )


def _sharded_weights(trained: Trained, resources: Resources) -> UpdateBytes:
    """ZeRO 3: weights, gradients and states of the share; one bucket, weights that are whole for their turn, the largest one's gradient.

    In the step the same as in ZeRO 2, for SUB_GROUP values at a time. Gradients have a place of their own all the time.
    """
    p, width, s = trained.parameters, trained.width, trained.parameters / resources.processes
    states = (MOMENT_BYTES + COPY_BYTES) * s
    buffers = width * (BUCKET + min(p, LIVE))
    largest = width * trained.largest
    if resources.offload == "optimizer":
        return UpdateBytes(width * s, 0.0, 0.0, largest, buffers, 0.0, 0.0, states + (GRADIENT_BYTES + width) * s)
    return UpdateBytes(
        weights=width * s,
        optimizer=states,
        accumulated=width * s,
        reduced=width * s + largest,
        buffers=buffers,
        stepping=width * s,
        update=(GRADIENT_BYTES + ROOT_BYTES) * min(s, SUB_GROUP),
        host=0.0,
    )

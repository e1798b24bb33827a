"""Hidden states of a truncated model to TopK SAEs. Several SAEs share one pass over the text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from sarm.checkpoints import load_tokenizer, load_truncated_backbone, save_sae
from sarm.config import SAETrainingConfig
from sarm.data.preferences import DataError
from sarm.data.sentences import Corpus, Cursor, SentenceStream, SequenceRules, TextSequence
from sarm.engine import Checkpointer, MetricsFile, device_of, optimizer_tensors, restore_optimizer, torch_dtype, use_threads
from sarm.harvest import Harvest
from sarm.job import Interrupted, JobContext, UsageProblem
from sarm.sae import ReconstructionQuality, TopKSAE, normalized_mse
from sarm.sae_step import AuxK, LossAndGradients, SAETensors, Workspace, loss_and_gradients
from sarm.small_moments import SmallMomentsAdam

LOG_EVERY = 10
EVALUATION_ROWS = 1024
HELD_OUT_DOCUMENTS_PER_VECTOR = 1 / 4
# One vector has no spread, so no share of it can be unexplained.
MIN_HELD_OUT = 2


class StepResult(NamedTuple):
    """What one optimizer step reports."""

    loss: float
    learning_rate: float
    fired: Tensor


def learning_rate_at(config: SAETrainingConfig, *, step: int, steps: int) -> float:
    """Learning rate before step `step` (0-based) of `steps`.

    `constant`: linear warm-up, then flat. `authors`: flat to 80 %, then (steps - step - warmup) / (steps - warmup - steps // 5), which
    jumps to about 0.2 and is 0 for the last `warmup` steps. Source: schrieffer-z/sae, src/utils.py:396-403.
    """
    warmup = int(steps * config.warmup_fraction)
    if step < warmup:
        return config.learning_rate * step / warmup
    if config.schedule == "constant" or step < steps - steps // 5:
        return config.learning_rate
    return config.learning_rate * max(0.0, (steps - step - warmup) / (steps - warmup - steps // 5))


@dataclass
class SAEUpdate:
    """One SAE with its optimizer: what a step does to prepared vectors `[batch, hidden_size]`.

    Updates of one process may share a workspace: they take turns with its buffers.
    """

    config: SAETrainingConfig
    sae: TopKSAE
    steps: int
    workspace: Workspace = field(default_factory=Workspace)

    def __post_init__(self) -> None:
        sae = self.sae
        self.weights = SAETensors(sae.pre_bias.detach(), sae.latent_bias.detach(), sae.encoder.weight.detach(), sae.decoder_rows())
        self.optimizer = self._adam()
        self.silent_for = torch.zeros(sae.n_latents, dtype=torch.int64, device=sae.latent_bias.device)
        sae.normalize_decoder()

    def _adam(self) -> torch.optim.Optimizer:
        rate, betas = self.config.learning_rate, (self.config.beta1, self.config.beta2)
        if self.config.moments == "bfloat16":
            return SmallMomentsAdam(self.weights, lr=rate, betas=betas, seed=self.config.seed)
        return torch.optim.Adam(self.weights, lr=rate, betas=betas, fused=True)

    def loss_and_gradients(self, x: Tensor) -> LossAndGradients:
        """The objective on prepared vectors, which latents fired, and gradients that the next step of the workspace overwrites."""
        auxk = None
        if self.config.auxk_weight:
            auxk = AuxK(weight=self.config.auxk_weight, dead=self.silent_for >= self.config.dead_after_vectors)
        return loss_and_gradients(
            self.weights,
            x,
            k=self.sae.k,
            objective=self.config.objective,
            auxk=auxk,
            product_dtype=self.weights.encoder.dtype if self.config.products == "as-dtype" else torch_dtype(self.config.products),
            workspace=self.workspace,
        )

    def step(self, x: Tensor, index: int) -> StepResult:
        """One optimizer step (0-based `index`). Raises UsageProblem on a loss that is not finite, before anything is updated."""
        rate = learning_rate_at(self.config, step=index, steps=self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        found = self.loss_and_gradients(x)
        loss = float(found.loss)
        if not math.isfinite(loss):
            raise UsageProblem(f"the SAE's loss is {loss} at step {index}; lower the learning rate or look at the hidden states")
        for weight, gradient in zip(self.weights, found.gradients, strict=True):
            weight.grad = gradient
        self.optimizer.step()
        if index % self.config.unit_norm_every == 0 or index == self.steps - 1:
            self.sae.normalize_decoder()
        self.silent_for = torch.where(found.fired, 0, self.silent_for + len(x))
        return StepResult(loss=loss, learning_rate=rate, fired=found.fired)


def train_sae(config: SAETrainingConfig, context: JobContext) -> None:
    """Train one SAE; see `train_saes`."""
    train_saes([(config, context)])


def train_saes(work: Sequence[tuple[SAETrainingConfig, JobContext]]) -> None:
    """Train SAEs that differ in layer, width and k alone from one forward pass over the text, each into its own output.

    Each equals the SAE that is trained alone: sentences, batches and initial weights depend on its own config only.
    Raises UsageProblem for a layer beyond the model and for a corpus without a usable sentence.
    """
    config, context = work[0]
    use_threads(context.resources)
    device = device_of(context.resources)
    layers = [one.layer for one, _ in work]
    backbone = load_truncated_backbone(context.inputs["backbone"], layer=max(layers), dtype=torch_dtype(config.backbone_dtype))
    backbone.to(device=device)  # type: ignore[call-arg]
    try:
        stream = _stream(config, context)
        harvest = Harvest(backbone, layers, batch_tokens=context.resources.micro_batch_tokens, device=device)
        shared = Workspace()
        runs = [
            _Run.start(one, its, hidden_size=backbone.config.hidden_size, device=device, workspace=shared) for one, its in work
        ]
        for chunk_start, cursor, sequences in _chunks(config, stream, first=min(run.done for run in runs), runs=runs):
            states = harvest.states(sequences)
            _consume_all(runs, states, chunk_start=chunk_start, cursor=cursor)
        held_out = _held_out(config, stream, harvest)
    except DataError as error:
        raise UsageProblem(str(error)) from error
    for run in runs:
        run.finish(held_out[run.config.layer])


def _consume_all(runs: Sequence[_Run], states: dict[int, Tensor], *, chunk_start: int, cursor: Cursor) -> None:
    try:
        for run in runs:
            run.consume(states[run.config.layer], chunk_start=chunk_start, cursor=cursor)
    except Interrupted:
        # The one that noticed has saved itself; the others keep what they have as well.
        for run in runs:
            run.keep()
        raise


def _stream(config: SAETrainingConfig, context: JobContext) -> SentenceStream:
    corpus = Corpus(context.inputs["corpus"] / "corpus.jsonl")
    wanted = int(config.held_out_vectors * HELD_OUT_DOCUMENTS_PER_VECTOR)
    rules = SequenceRules(
        tokens=config.tokens,
        context=config.context,
        min_tokens=config.min_tokens,
        max_tokens=config.max_tokens,
        latin1_only=config.latin1_only,
    )
    held_out = min(wanted, len(corpus) // 10)
    return SentenceStream(corpus, load_tokenizer(context.inputs["backbone"]), rules, seed=config.seed, held_out=held_out)


def _held_out(config: SAETrainingConfig, stream: SentenceStream, harvest: Harvest) -> dict[int, Tensor]:
    sequences: list[TextSequence] = []
    count = 0
    for sequence in stream.held_out_sequences():
        if count + len(sequence.kept) > config.held_out_vectors:
            break
        sequences.append(sequence)
        count += len(sequence.kept)
    return harvest.states(sequences)


def _chunks(
    config: SAETrainingConfig, stream: SentenceStream, *, first: int, runs: Sequence[_Run]
) -> Iterator[tuple[int, Cursor, list[TextSequence]]]:
    """Chunks of the text from the one that holds step `first` on: (first step of the chunk, its cursor, its sequences)."""
    per_chunk = config.buffer_vectors // config.batch_vectors
    steps = config.vectors // config.batch_vectors
    behind = min(runs, key=lambda run: run.done)
    start, cursor = behind.chunk_start, behind.cursor
    while start < steps and first < steps:
        wanted = min(per_chunk, steps - start) * config.batch_vectors
        sequences, following = stream.take(cursor, wanted)
        yield start, cursor, sequences
        start, cursor = start + wanted // config.batch_vectors, following


@dataclass
class _Run:
    """One SAE's training: steps done, where its current chunk began, and its files."""

    config: SAETrainingConfig
    context: JobContext
    update: SAEUpdate
    checkpoints: Checkpointer
    metrics: MetricsFile
    done: int
    chunk_start: int
    cursor: Cursor

    @classmethod
    def start(
        cls, config: SAETrainingConfig, context: JobContext, *, hidden_size: int, device: torch.device, workspace: Workspace
    ) -> _Run:
        sae = TopKSAE(hidden_size=hidden_size, n_latents=config.n_latents, k=config.k, standardizes=config.standardize)
        sae.reset(torch.Generator().manual_seed(config.seed))
        sae.to(device=device, dtype=torch_dtype(config.dtype))
        update = SAEUpdate(config, sae, steps=config.vectors // config.batch_vectors, workspace=workspace)
        checkpoints = Checkpointer(context)
        saved = checkpoints.latest()
        done, chunk_start, cursor = 0, 0, Cursor(0, 0)
        if saved is not None:
            sae.load_state_dict({name.removeprefix("sae."): value for name, value in saved.tensors.items() if name.startswith("sae.")})
            restore_optimizer(update.optimizer, saved.tensors)
            update.silent_for = saved.tensors["silent_for"].to(device)
            done, chunk_start, cursor = saved.step, saved.facts["chunk_start"], Cursor(*saved.facts["cursor"])
        return cls(config, context, update, checkpoints, MetricsFile(context, resume_step=done), done, chunk_start, cursor)

    def consume(self, states: Tensor, *, chunk_start: int, cursor: Cursor) -> None:
        """Train on a chunk's hidden states in this SAE's own shuffled order; steps already done are skipped."""
        self.chunk_start, self.cursor = chunk_start, cursor
        size, steps = self.config.batch_vectors, self.update.steps
        order = torch.randperm(len(states), generator=torch.Generator().manual_seed(_mixed(self.config.seed, chunk_start)))
        for index in range(len(states) // size):
            step = chunk_start + index
            if step >= steps or index >= self.config.buffer_vectors // size:
                break
            if step < self.done:
                continue
            batch = states[order[index * size : (index + 1) * size].to(states.device)]
            self._step(self.update.sae.prepare(batch).to(self.update.sae.pre_bias.dtype), step)

    def _step(self, x: Tensor, step: int) -> None:
        result = self.update.step(x, step)
        self.done = step + 1
        if step % LOG_EVERY == 0 or self.done == self.update.steps:
            self.metrics.write(self.done, {"loss": result.loss, "learning_rate": result.learning_rate})
        size = self.config.batch_vectors
        self.context.progress(self.done * size, self.update.steps * size, "vectors", f"loss {result.loss:.4f}")
        if self.done < self.update.steps and self.checkpoints.due():
            self.checkpoints.save_if_due(self.done, self._state(), {"chunk_start": self.chunk_start, "cursor": list(self.cursor)})

    def keep(self) -> None:
        """Write a checkpoint of the steps done."""
        if self.done:
            self.checkpoints.save(self.done, self._state(), {"chunk_start": self.chunk_start, "cursor": list(self.cursor)})

    def _state(self) -> dict[str, Tensor]:
        tensors = {f"sae.{name}": value for name, value in self.update.sae.state_dict().items()}
        return {**tensors, **optimizer_tensors(self.update.optimizer), "silent_for": self.update.silent_for}

    def finish(self, held_out: Tensor) -> None:
        """Write the SAE and its quality on held-out text."""
        save_sae(self.context.output, self.update.sae, layer=self.config.layer)
        quality = None if len(held_out) < MIN_HELD_OUT else held_out_quality(self.update.sae, held_out)
        facts = {"held_out_vectors": len(held_out), **({} if quality is None else quality._asdict())}
        (self.context.output / "quality.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _mixed(seed: int, chunk_start: int) -> int:
    return (seed * 1_000_003 + chunk_start * 7_919 + 1) % (2**63)


@torch.inference_mode()
def held_out_quality(sae: TopKSAE, states: Tensor) -> ReconstructionQuality:
    """FVU, normalised MSE, dead share and L0 on raw hidden states `[n, hidden_size]`, in slices."""
    x = sae.prepare(states).to(sae.pre_bias.dtype)
    residual = nmse = active = 0.0
    fired = torch.zeros(sae.n_latents, dtype=torch.bool, device=x.device)
    for part in x.split(EVALUATION_ROWS):
        latents = sae.encode(part).latents
        reconstruction = sae.decode(latents).float()
        residual += float((part.float() - reconstruction).pow(2).sum())
        nmse += float(normalized_mse(reconstruction, part.float()).sum())
        active += float((latents != 0).sum())
        fired |= (latents != 0).any(dim=0)
    spread = float((x.float() - x.float().mean(dim=0)).pow(2).sum())
    return ReconstructionQuality(
        fvu=residual / spread,
        normalized_mse=nmse / len(x),
        dead_share=float((~fired).float().mean()),
        l0=active / len(x),
    )

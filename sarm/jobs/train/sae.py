"""Hidden states of a truncated model to TopK SAEs. Several SAEs share one pass over the text.

Inputs: `backbone`, `corpus`, perhaps `splitter`. Writes `sae.safetensors`, `sae.json` (geometry), `metrics.jsonl`, `quality.json` (FVU,
normalised MSE, dead latents, L0 on held-out text).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sarm.backbone.compiled_parts import compile_parts
from sarm.backbone.harvest import Harvest
from sarm.backbone.sending import sent
from sarm.backbone.shared_harvest import shared_states
from sarm.checkpoints.backbones import load_tokenizer, load_truncated_backbone
from sarm.checkpoints.saes.files import save_sae
from sarm.config.train import SAETrainingConfig
from sarm.data.preferences import DataError
from sarm.data.prefetch import ahead
from sarm.data.sentences import Corpus, Cursor, SentenceStream, SequenceRules, TextSequence
from sarm.data.splitters import splitter
from sarm.engine.checkpointer import Checkpointer
from sarm.engine.devices import torch_dtype, use_threads
from sarm.engine.group import ProcessGroup, join
from sarm.engine.metrics_file import MetricsFile
from sarm.engine.update import PLAIN
from sarm.job import Interrupted, JobContext, UsageProblem
from sarm.sae.model import ReconstructionQuality, TopKSAE, normalized_mse
from sarm.sae.step import Workspace
from sarm.sae.update import SAEUpdate
from sarm.sae.zero import ZeroSAEUpdate

LOG_EVERY = 10
EVALUATION_ROWS = 1024
HELD_OUT_DOCUMENTS_PER_VECTOR = 1 / 4
# One vector has no spread, so no share of it can be unexplained.
MIN_HELD_OUT = 2


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
    group = join(max((its.resources for _, its in work), key=lambda resources: resources.zero_stage))
    if config.batch_vectors % group.size:
        raise UsageProblem(f"batch_vectors = {config.batch_vectors} is not a multiple of {group.size} processes; choose sizes that divide")
    device = group.device
    layers = [one.layer for one, _ in work]
    dtype = torch_dtype(config.backbone_dtype)
    backbone = load_truncated_backbone(context.inputs["backbone"], layer=max(layers), dtype=dtype, device=device)
    try:
        stream = _stream(config, context)
        if config.block == "compiled":
            compile_parts(backbone)
        harvest = Harvest(backbone, layers, batch_tokens=context.resources.micro_batch_tokens, device=device)
        shared = Workspace()
        runs = [
            _Run.start(one, its, hidden_size=backbone.config.hidden_size, group=group, workspace=shared) for one, its in work
        ]
        for chunk_start, cursor, sequences in ahead(_chunks(config, stream, first=min(run.done for run in runs), runs=runs)):
            group.check_same([(sequence.document, sequence.ids) for sequence in sequences], "text")
            states = shared_states(harvest, sequences, group)
            _consume_all(runs, states, chunk_start=chunk_start, cursor=cursor)
        held_out = shared_states(harvest, _held_out(config, stream), group)
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
    split = splitter(config.splitter, context.inputs.get("splitter"))
    tokenizer = load_tokenizer(context.inputs["backbone"])
    return SentenceStream(corpus, tokenizer, rules, split=split, seed=config.seed, held_out=held_out)


def _held_out(config: SAETrainingConfig, stream: SentenceStream) -> list[TextSequence]:
    sequences: list[TextSequence] = []
    count = 0
    for sequence in stream.held_out_sequences():
        if count + len(sequence.kept) > config.held_out_vectors:
            break
        sequences.append(sequence)
        count += len(sequence.kept)
    return sequences


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
    update: SAEUpdate | ZeroSAEUpdate
    checkpoints: Checkpointer
    metrics: MetricsFile
    done: int
    chunk_start: int
    cursor: Cursor
    # Whether the processes' shares of a batch were compared.
    checked: bool = False

    @classmethod
    def start(
        cls, config: SAETrainingConfig, context: JobContext, *, hidden_size: int, group: ProcessGroup, workspace: Workspace
    ) -> _Run:
        sae = TopKSAE.fresh(
            hidden_size=hidden_size,
            n_latents=config.n_latents,
            k=config.k,
            standardizes=config.standardize,
            generator=torch.Generator().manual_seed(config.seed),
        )
        sae.to(device=group.device, dtype=torch_dtype(config.dtype))
        stage, offload = context.resources.zero_stage, context.resources.offload == "optimizer"
        if offload and not stage:
            raise UsageProblem("resources.train_sae.offload = 'optimizer' needs resources.train_sae.zero_stage = 1, 2 or 3")
        checkpoints = Checkpointer(context, group=group, layout=f"zero-{stage}" if stage else PLAIN)
        saved = checkpoints.latest()
        update: SAEUpdate | ZeroSAEUpdate
        if stage:
            update = ZeroSAEUpdate(config, sae, group=group, stage=stage, workspace=workspace, saved=saved, offload=offload)
        else:
            update = SAEUpdate(config, sae, steps=config.vectors // config.batch_vectors, workspace=workspace, group=group)
        done, chunk_start, cursor = 0, 0, Cursor(0, 0)
        if saved is not None:
            update.restore(saved)
            done, chunk_start, cursor = saved.step, saved.facts["chunk_start"], Cursor(*saved.facts["cursor"])
        metrics = MetricsFile(context, resume_step=done, writes=group.is_first)
        return cls(config, context, update, checkpoints, metrics, done, chunk_start, cursor)

    def consume(self, states: Tensor, *, chunk_start: int, cursor: Cursor) -> None:
        """Train on a chunk's hidden states in this SAE's own shuffled order; steps already done are skipped."""
        self.chunk_start, self.cursor = chunk_start, cursor
        size, steps, group = self.config.batch_vectors, self.update.steps, self.update.group
        order = torch.randperm(len(states), generator=torch.Generator().manual_seed(_mixed(self.config.seed, chunk_start)))
        for index in range(len(states) // size):
            step = chunk_start + index
            if step >= steps or index >= self.config.buffer_vectors // size:
                break
            if step < self.done:
                continue
            rows = order[index * size : (index + 1) * size]
            mine = rows[group.rank :: group.size]
            if not self.checked and group.size > 1:
                group.check_shares([[str(row) for row in rows.tolist()]], [[str(row) for row in mine.tolist()]])
            self.checked = True
            batch = states[sent([mine], states.device)[0]]
            self._step(self.update.sae.prepare(batch).to(self.update.sae.pre_bias.dtype), step)

    def _step(self, x: Tensor, step: int) -> None:
        result = self.update.step(x, step)
        self.done = step + 1
        if step % LOG_EVERY == 0 or self.done == self.update.steps:
            self.metrics.write(self.done, {"loss": result.loss, "learning_rate": result.learning_rate})
        size = self.config.batch_vectors
        self.context.progress(self.done * size, self.update.steps * size, "vectors", f"loss {result.loss:.4f}")
        if self.done < self.update.steps and self.checkpoints.due():
            self._require_finite()
            self.checkpoints.save_if_due(self.done, self.update.tensors(), self._facts(), self.update.save_shards)

    def keep(self) -> None:
        """Write a checkpoint of the steps done."""
        if self.done:
            self._require_finite()
            self.checkpoints.save(self.done, self.update.tensors(), self._facts(), self.update.save_shards)

    def _require_finite(self) -> None:
        """Raises UsageProblem, in all processes, before weights that are spoiled are written over good ones.

        A finite loss may have a gradient that is not; the next step's loss tells, which may come too late.
        """
        spoiled = any(not bool(torch.isfinite(value).all()) for value in self.update.sae.state_dict().values())
        if self.update.group.any(spoiled):
            raise UsageProblem(f"the SAE's weights are not finite after step {self.done - 1}; lower the learning rate")

    def _facts(self) -> dict[str, Any]:
        return {"chunk_start": self.chunk_start, "cursor": list(self.cursor)}

    def finish(self, held_out: Tensor) -> None:
        """Write the SAE and its quality on held-out text: the first process does, all must call it."""
        self.update.collect()
        self._require_finite()
        if not self.update.group.is_first:
            return
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

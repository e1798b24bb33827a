"""A tiny Llama, pretrained on the miniature's running text and on its training prompts with chosen answers.

Inputs: `data`. Writes a model in Hugging Face layout, `metrics.jsonl`, `pretraining.json`.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from sarm.config.train import PretrainingConfig
from sarm.data.preferences import Message, Preference, TextDocument, read_jsonl
from sarm.data.tokens import ConversationTokenizer
from sarm.engine.checkpointer import Checkpoint, Checkpointer, optimizer_tensors, restore_optimizer
from sarm.engine.devices import device_of, use_threads
from sarm.engine.metrics_file import MetricsFile
from sarm.job import JobContext, UsageProblem

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
# Share of the peak learning rate at which the cosine ends.
FINAL_RATE = 0.1
MAX_GRAD_NORM = 1.0
# Wider than the usual 0.02, which suits widths of thousands; at 128 it halves the tokens needed to reach a loss.
INITIALIZER_RANGE = 0.06
# Positions that a conversation of the miniature can need; rotary embeddings do not grow with it.
MAX_POSITIONS = 512

Ids = NDArray[np.int64]


def pretrain_backbone(config: PretrainingConfig, context: JobContext) -> None:
    """Train on packed rows and save a Hugging Face folder: model, tokenizer, `metrics.jsonl`, `pretraining.json`.

    Input `data` is a miniature (`corpus.jsonl`, `train.jsonl`, tokenizer). Resumes exactly. Raises Interrupted on request.
    """
    use_threads(context.resources)
    device = device_of(context.resources)
    data = context.inputs["data"]
    texts, held_out = split_texts(read_texts(data), config)
    rows = packed_rows(texts, config)
    model = build_model(config, data)
    model.to(device)  # type: ignore[arg-type]
    optimizer = _optimizer(model, config)
    checkpoints = Checkpointer(context)
    start = _resume(checkpoints.latest(), model, optimizer)
    metrics = MetricsFile(context, resume_step=start)
    model.train()
    for step in range(start, config.steps):
        loss, norm = _step(model, optimizer, rows[step].to(device), rate=learning_rate(step, config))
        metrics.write(step + 1, {"loss": loss, "learning_rate": learning_rate(step, config), "gradient_norm": norm})
        context.progress(step + 1, config.steps, "step", f"loss {loss:.3f}")
        if checkpoints.due():
            checkpoints.save_if_due(step + 1, {**_parameters(model), **optimizer_tensors(optimizer)}, {})
    _save(model, config, context, loss=held_out_loss(model, held_out, config, device), texts=len(texts))


def read_texts(data: Path) -> list[list[int]]:
    """Token ids of each document (BOS ... end of text) and of each training prompt with its chosen answer (BOS ... end of turn).

    Benchmark and evaluation files are never read.
    """
    tokenizer = AutoTokenizer.from_pretrained(data)
    chat = ConversationTokenizer(tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|end_of_text|>")
    documents = [document.text for document in read_jsonl(data / "corpus.jsonl", TextDocument)]
    texts = [[*ids, end] for ids in tokenizer(documents)["input_ids"]]
    pairs = list(read_jsonl(data / "train.jsonl", Preference))
    conversations = [[*pair.prompt, Message(role="assistant", content=pair.chosen[0])] for pair in pairs]
    encoded = chat.encode_many(conversations, max_length=MAX_POSITIONS, overlong="error", names=[pair.id for pair in pairs])
    return texts + [row.ids for row in encoded]


def split_texts(texts: Sequence[list[int]], config: PretrainingConfig) -> tuple[list[list[int]], list[list[int]]]:
    """Training texts and held-out texts, drawn by the seed; the same text is never in both."""
    order = np.random.default_rng([config.seed, 0]).permutation(len(texts))
    count = round(config.held_out_fraction * len(texts))
    held_out = [texts[i] for i in order[:count]]
    seen = {tuple(ids) for ids in held_out}
    return [texts[i] for i in order[count:] if tuple(texts[i]) not in seen], held_out


def packed_rows(texts: Sequence[list[int]], config: PretrainingConfig) -> Tensor:
    """Rows `[steps, batch_tokens / context, context]` without padding: texts end to end, in a new order each time round.

    Raises UsageProblem when there is no text.
    """
    if not texts:
        raise UsageProblem("the miniature has no text to train on; raise miniature.corpus_documents")
    rng, needed = np.random.default_rng([config.seed, 1]), config.steps * config.batch_tokens
    pieces: list[Ids] = []
    while sum(map(len, pieces)) < needed:
        pieces.append(np.concatenate([np.asarray(texts[i], dtype=np.int64) for i in rng.permutation(len(texts))]))
    stream = np.concatenate(pieces)[:needed]
    return torch.from_numpy(stream).view(config.steps, -1, config.context)


def build_model(config: PretrainingConfig, data: Path) -> LlamaForCausalLM:
    """A randomly initialised Llama with tied embeddings whose special token ids are the tokenizer's."""
    tokenizer = AutoTokenizer.from_pretrained(data)
    geometry = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        use_cache=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=INITIALIZER_RANGE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return LlamaForCausalLM(geometry)


def learning_rate(step: int, config: PretrainingConfig) -> float:
    """The rate of a step (from 0): linear warm-up, then a cosine from the peak to a tenth of it."""
    warmup = max(1, round(config.warmup_fraction * config.steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, config.steps - warmup)
    return config.learning_rate * (FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done)))


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, texts: Sequence[list[int]], config: PretrainingConfig, device: torch.device) -> float | None:
    """Mean cross-entropy per token (nats) on packed held-out texts; None when there is less than a row of them."""
    stream = [token for ids in texts for token in ids]
    count = len(stream) // config.context
    if not count:
        return None
    model.eval()
    rows = torch.tensor(stream[: count * config.context]).view(count, config.context)
    losses = [float(_loss(model, chunk.to(device))) * len(chunk) for chunk in rows.split(16)]
    return sum(losses) / count


def _loss(model: LlamaForCausalLM, rows: Tensor) -> Tensor:
    logits = model(input_ids=rows).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten())


def _step(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, rows: Tensor, *, rate: float) -> tuple[float, float]:
    """One optimizer step; its loss and the gradient's norm before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = _loss(model, rows)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach()), float(norm)


def _optimizer(model: LlamaForCausalLM, config: PretrainingConfig) -> torch.optim.Optimizer:
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def _parameters(model: LlamaForCausalLM) -> dict[str, Tensor]:
    return {f"model.{name}": value for name, value in model.named_parameters()}


def _resume(checkpoint: Checkpoint | None, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> int:
    """Put back a checkpoint; the steps that are done."""
    if checkpoint is None:
        return 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(checkpoint.tensors[f"model.{name}"])
    restore_optimizer(optimizer, checkpoint.tensors)
    return checkpoint.step


def _save(model: LlamaForCausalLM, config: PretrainingConfig, context: JobContext, *, loss: float | None, texts: int) -> None:
    model.eval()
    model.save_pretrained(context.output)
    for name in TOKENIZER_FILES:
        shutil.copyfile(context.inputs["data"] / name, context.output / name)
    facts: Mapping[str, object] = {
        "held_out_loss": loss,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": config.steps * config.batch_tokens,
        "training_texts": texts,
    }
    (context.output / "pretraining.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    context.log(f"pretrained: {json.dumps(facts, sort_keys=True)}")

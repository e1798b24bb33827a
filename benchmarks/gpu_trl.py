"""TRL's reward step for `gpu.py`, which imports this where the library is installed: its RewardTrainer on given pairs, step by step."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast, TrainerCallback
from trl import RewardConfig, RewardTrainer

from sarm.data.miniature.word_tokenizer import build_tokenizer


class StepTimes(TrainerCallback):
    """Seconds of each optimizer step, from its first forward pass to the end of its update, waited for."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.times: list[float] = []
        self._wait, self._started = wait, 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The clock starts."""
        self._wait()
        self._started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The clock stops."""
        self._wait()
        self.times.append(time.perf_counter() - self._started)


def step_seconds(
    config: LlamaConfig,
    pairs: Sequence[tuple[list[int], list[int]]],
    *,
    device: torch.device,
    dtype: torch.dtype,
    steps: int,
    wait: Callable[[], None],
) -> list[float]:
    """Train a random sequence classifier on (chosen, rejected) ids, all of them in every step; its weights and AdamW in `dtype`."""
    with device:
        model = LlamaForSequenceClassification(config).to(dtype)  # type: ignore[arg-type]
    rows = [{"chosen_ids": chosen, "rejected_ids": rejected} for chosen, rejected in pairs] * steps
    # It asks for one and pads with it; the ids are there already.
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=build_tokenizer(["a"]), pad_token="<|pad|>", eos_token="<|pad|>")
    clock = StepTimes(wait)
    with tempfile.TemporaryDirectory() as scratch:
        settings = RewardConfig(
            output_dir=scratch,
            per_device_train_batch_size=len(pairs),
            max_steps=steps,
            learning_rate=1e-6,
            use_cpu=device.type == "cpu",
            bf16=False,
            gradient_checkpointing=False,
            remove_unused_columns=False,
            max_length=max(len(side) for pair in pairs for side in pair),
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            save_strategy="no",
        )
        RewardTrainer(
            model=model, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[clock]
        ).train()
    return clock.times

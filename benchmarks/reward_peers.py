"""Reward training by other people's loops, as workers of `reward_step.py`: `python reward_peers.py hf|trl FOLDER THREADS`.

`hf` is transformers' Trainer with the usual pairwise loss on padded rows, `trl` TRL's RewardTrainer. Runs in the environment that has
them; both train the sequence classifier of FOLDER on the pairs of FOLDER in their order.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments
from worker import Requests

try:
    from trl import RewardConfig, RewardTrainer
except ImportError:  # `hf` alone runs without it.
    RewardConfig = RewardTrainer = None


class Turns(TrainerCallback):
    """Lets the trainer do the steps of a request, then answers and waits for the next one."""

    def __init__(self, requests: Requests) -> None:
        self.requests, self.left = requests, 0
        self.losses: list[Tensor] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Wait for the first request."""
        self.left = self.requests.next()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the step; at the end of a turn answer with its losses."""
        self.left -= 1
        if self.left:
            return
        self.requests.answer([float(loss) for loss in self.losses])
        self.losses = []
        self.left = self.requests.next()
        control.should_training_stop = not self.left


def sequential(trainer: type, turns: Turns) -> type:
    """The trainer with the pairs in their order, and its losses told to `turns`."""

    class InOrder(trainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
            return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

        def compute_loss(self, *args: Any, **options: Any) -> Any:
            loss = super().compute_loss(*args, **options)
            turns.losses.append((loss[0] if isinstance(loss, tuple) else loss).detach())
            return loss

    return InOrder


class PairwiseTrainer(Trainer):
    """transformers' Trainer with the Bradley-Terry loss."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """Mean over the batch; chosen rows come first."""
        chosen, rejected = model(**inputs).logits.squeeze(-1).chunk(2)
        return -nn.functional.logsigmoid(chosen - rejected).mean()


def padded(pairs: list[dict[str, list[int]]], pad_id: int) -> dict[str, Tensor]:
    """Chosen rows, then rejected rows, padded on the right to the longest."""
    rows = [pair[side] for side in ("chosen_ids", "rejected_ids") for pair in pairs]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad_id] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def shared_arguments(facts: Mapping[str, Any], scratch: str, *, steps: int) -> dict[str, Any]:
    """What both trainers are told."""
    return {
        "output_dir": scratch,
        "per_device_train_batch_size": facts["batch_pairs"],
        "max_steps": steps,
        "learning_rate": facts["learning_rate"],
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": facts["peer_checkpointing"],
        "remove_unused_columns": False,
        "report_to": [],
        "disable_tqdm": True,
        "logging_strategy": "no",
        "save_strategy": "no",
        "seed": facts["seed"],
    }


def main() -> None:
    """Train as the requests ask."""
    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    ordered = [facts["pairs"][number] for number in facts["order"]]
    dataset = Dataset.from_list([{"chosen_ids": chosen, "rejected_ids": rejected} for chosen, rejected in ordered])
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    turns = Turns(Requests())
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    with tempfile.TemporaryDirectory() as scratch:
        shared = shared_arguments(facts, scratch, steps=len(ordered) // facts["batch_pairs"])
        if name == "hf":
            trainer = sequential(PairwiseTrainer, turns)(
                model=model,
                args=TrainingArguments(**shared),
                train_dataset=dataset,
                data_collator=lambda pairs: padded(pairs, facts["pad_id"]),
                callbacks=[turns],
            )
        else:
            trainer = sequential(RewardTrainer, turns)(
                model=model,
                args=RewardConfig(**shared, max_length=facts["max_length"]),
                train_dataset=dataset,
                processing_class=tokenizer,
                callbacks=[turns],
            )
        trainer.train()


if __name__ == "__main__":
    main()

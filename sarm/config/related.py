"""What decides the neighbours of SARM: cached hidden states, SparseRM's heads, SAFER's score."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sarm.config.dtype import Dtype
from sarm.job import JobConfig, added

Items = Literal["train", "rewardbench2", "rmbench", "evaluation"]


class HarvestConfig(JobConfig):
    """One hidden state for each reply of a file of pairs or of a benchmark. Inputs: `backbone`, `items`.

    `train` is encoded as reward training does it, any other file as scoring does.
    """

    kind: ClassVar[str] = "harvest_states"
    version: ClassVar[int] = 1

    layer: int = Field(ge=1, description="Decoder blocks kept; states are the output of block `layer` (1-based).")
    items: Items = Field(description="File of the input: `<items>.jsonl`.")
    pooling: Literal["end_of_turn", "last_content", "mean"] = Field(
        default="end_of_turn", description="Token of the reply: its end of turn (ours), the one before, or the mean of those before."
    )
    max_pairs: int = Field(default=0, ge=0, description="Only the first so many pairs of `train`; 0 takes all.")
    max_length: int = Field(default=2048, ge=2, description="Longest conversation, tokens.")
    overlong: Literal["left", "right", "drop", "error"] = Field(default="left", description="What happens to a longer one.")
    refused_turns: Literal["error", "drop"] = added("error", description="What happens to a pair whose turns the chat template refuses.")
    bos: Literal["single", "double-first-masked", "double"] = Field(default="single", description="BOS policy.")
    dtype: Dtype = Field(default="float32", description="Precision of the forward pass and of the states.")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(default="sdpa", description="Attention kernel.")
    batch_tokens: int = Field(default=16384, ge=1, description="Padded tokens of one forward pass.")
    date_string: str = Field(default="26 Jul 2024", description="Date given to chat templates that ask for one.")
    subset: str = Field(default="", description="Only the items of this subset of a benchmark; empty takes all. Never comparable.")
    limit: int = Field(default=0, ge=0, description="Only the first so many items of a benchmark; 0 takes all. Never comparable.")

    @model_validator(mode="after")
    def _fits_the_file(self) -> HarvestConfig:
        for name in ("overlong", "refused_turns"):
            if getattr(self, name) == "drop" and self.items != "train":
                raise ValueError(f"{name} = 'drop' is for training pairs; {self.items} needs a reward for each reply")
        return self


class SparseRMConfig(JobConfig):
    """A small head on cached states of a frozen model. Inputs: `states` (of pairs), `sae`, `backbone`.

    Source: SparseRM (arXiv 2511.07896) as described in `related-systems.md` section 2; its code was not available.
    """

    kind: ClassVar[str] = "train_sparse_rm"
    version: ClassVar[int] = 1

    layer: int = Field(ge=1, description="Decoder blocks kept.")
    inputs: Literal["projections", "activations", "dense"] = Field(
        default="projections", description="The head sees projections on directions, the SAE's latents of the same indices, or the state."
    )
    directions: Literal["separation", "random_columns", "random"] = Field(
        default="separation",
        description="Decoder columns ranked by firing-frequency difference; as many random columns; as many random unit vectors.",
    )
    per_side: int = Field(default=128, ge=1, description="K: directions for chosen, and as many for rejected (the paper's best is 128).")
    states: Literal["prepared", "raw"] = Field(
        default="prepared", description="Projected as the SAE sees them, in whose space the decoder's columns lie (ours), or as they are; "
        "latents (`inputs = activations`) are always those of prepared states."
    )
    head: Literal["mlp", "linear"] = Field(default="mlp", description="One hidden layer with ReLU, or none; some texts say linear.")
    width: int = Field(default=512, ge=1, description="Hidden units of the MLP (the paper's 512).")
    loss: Literal["margin", "bradley_terry", "bce"] = Field(default="margin", description="The paper's hinge, or one of its ablations.")
    margins: tuple[float, ...] = Field(
        default=(0.5, 1.0, 2.0), min_length=1, description="Margins tried, the best by validation accuracy kept; not used by other losses."
    )
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5, description="Share of pairs (by prompt) that choose margin and epoch.")
    max_pairs: int = Field(default=0, ge=0, description="Only the first so many pairs; 0 takes all (the paper has about 1,000 a task).")
    batch_pairs: int = Field(default=128, ge=1, description="Pairs of one optimizer step.")
    epochs: int = Field(default=20, ge=1, description="Passes over the pairs.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Learning rate of Adam, constant.")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled weight decay.")
    whole: bool = Field(default=False, description="Also write the kept blocks, so that the folder is a reward model like any other.")
    seed: int = Field(default=0, description="Seed of the split, of random directions, of the head and of the order of pairs.")


class SaferConfig(JobConfig):
    """SAFER's training-free score on cached states: signs of the strongest latents. Inputs: `states` (of pairs), `sae`, `backbone`.

    Source: `related-systems.md` section 3 (arXiv 2507.00665). Its judge's choice among the strongest is left out (docs/deviations.md).
    """

    kind: ClassVar[str] = "fit_safer"
    version: ClassVar[int] = 1

    layer: int = Field(ge=1, description="Decoder blocks kept.")
    selected: int = Field(default=32, ge=1, description="Latents with the largest |s_i| (the paper's judge leaves 32 of 256).")
    max_pairs: int = Field(default=0, ge=0, description="Only the first so many pairs; 0 takes all.")
    whole: bool = Field(default=False, description="Also write the kept blocks, so that the folder is a reward model like any other.")


class StateScoringConfig(JobConfig):
    """A reward for each cached state of a benchmark. Inputs: `model` (a head), `states`, `benchmark`."""

    kind: ClassVar[str] = "score_states"
    version: ClassVar[int] = 1

    benchmark: Literal["rewardbench2", "rmbench", "evaluation"] = Field(description="File of the input: `<benchmark>.jsonl`.")



"""What decides a training: of a backbone of the miniature, of an SAE, of a reward model."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sarm.config.dtype import Dtype
from sarm.job import JobConfig, added


class PretrainingConfig(JobConfig):
    """A small Llama pretrained on the miniature's corpus and its prompts with chosen answers. Input: `data`."""

    kind: ClassVar[str] = "pretrain_backbone"
    version: ClassVar[int] = 1

    num_hidden_layers: int = Field(ge=1, description="Decoder blocks.")
    hidden_size: int = Field(ge=8, description="Width of the residual stream.")
    intermediate_size: int = Field(ge=8, description="Width of the MLP.")
    num_attention_heads: int = Field(ge=1, description="Query heads.")
    num_key_value_heads: int = Field(ge=1, description="Key and value heads.")
    context: int = Field(default=128, ge=16, description="Length of a packed row, tokens; texts run on over its end.")
    steps: int = Field(ge=1, description="Optimizer steps; the data are repeated in a new order when they have fewer tokens.")
    batch_tokens: int = Field(default=2048, ge=16, description="Tokens of one step, a multiple of `context`.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Peak AdamW learning rate; falls to a tenth along a cosine.")
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1, description="Share of steps with a linear warm-up.")
    weight_decay: float = Field(default=0.1, ge=0, description="AdamW's decay of matrices; norms have none.")
    held_out_fraction: float = Field(default=0.02, ge=0, lt=0.5, description="Share of texts kept for the held-out loss.")
    seed: int = Field(default=0, description="Seed of initialisation and of the order of the data.")

    @model_validator(mode="after")
    def _sizes_divide(self) -> PretrainingConfig:
        if self.batch_tokens % self.context:
            raise ValueError(f"batch_tokens = {self.batch_tokens} is not a multiple of context = {self.context}; choose sizes that divide")
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size}, heads {self.num_attention_heads}, key-value heads {self.num_key_value_heads}: "
                "each must be a multiple of the next"
            )
        return self


class SAETrainingConfig(JobConfig):
    """One TopK sparse autoencoder on hidden states of a truncated model. Inputs: `backbone`, `corpus`, perhaps `splitter`.

    Source: section Setup, SAE Pretraining.
    """

    kind: ClassVar[str] = "train_sae"
    version: ClassVar[int] = 2
    data_parallel: ClassVar[bool] = True
    zero_stages: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)
    offload_stages: ClassVar[tuple[int, ...]] = (1, 2, 3)

    layer: int = Field(ge=1, description="Decoder blocks kept; hidden states are the output of block `layer` (1-based).")
    n_latents: int = Field(ge=2, description="Width M of the dictionary.")
    k: int = Field(ge=1, description="Latents kept by TopK.")
    tokens: Literal["last", "last-and-inner", "all"] = Field(
        default="last", description="Positions: last token of a sentence; also inner punctuation (released code); every token."
    )
    context: Literal["sentence", "document"] = Field(
        default="sentence", description="A sentence alone after BOS (released code), or packed sentences of one document."
    )
    splitter: Literal["nupunkt", "nltk-punkt"] = Field(default="nupunkt", description="Of sentences; the second needs its data as input.")
    min_tokens: int = Field(default=1, ge=1, description="Shorter sequences are left out (tokens with BOS).")
    max_tokens: int = Field(default=96, ge=2, description="Longer sequences are cut on the right (tokens with BOS).")
    latin1_only: bool = Field(default=False, description="Leave out sentences with a character above U+00FF (released code).")
    vectors: int = Field(ge=1, description="Training vectors (hidden states) in all; the corpus is repeated if it has fewer.")
    batch_vectors: int = Field(default=4096, ge=1, description="Vectors of one optimizer step.")
    buffer_vectors: int = Field(default=65536, ge=1, description="Shuffle buffer, vectors; at least one batch.")
    held_out_vectors: int = Field(default=2048, ge=0, description="Vectors of unseen text for FVU, normalised MSE, dead latents.")
    standardize: bool = Field(default=True, description="Per-token mean 0 and unbiased standard deviation 1 before the SAE.")
    objective: Literal["normalized_mse", "squared_error"] = Field(default="normalized_mse", description="Eq. 5, or as released.")
    learning_rate: float = Field(default=5e-4, gt=0, description="Peak Adam learning rate.")
    beta1: float = Field(default=0.9, description="Adam's first decay rate.")
    beta2: float = Field(default=0.999, description="Adam's second decay rate.")
    schedule: Literal["constant", "authors"] = Field(
        default="constant", description="After warm-up; `authors` has the jump at 80 % and a dead tail."
    )
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1, description="Share of steps with a linear warm-up.")
    unit_norm_every: int = Field(default=10, ge=1, description="Steps between two renormalisations of the decoder's columns.")
    auxk_weight: float = Field(default=0.0, ge=0, description="Weight of the AuxK loss on dead latents; 0 in every protocol.")
    dead_after_vectors: int = Field(default=1_000_000, ge=1, description="A latent silent for so many vectors counts as dead for AuxK.")
    backbone_dtype: Dtype = Field(default="float32", description="Precision of the truncated model's forward.")
    dtype: Dtype = Field(default="float32", description="Precision of the SAE and of Adam's moments.")
    moments: Literal["as-dtype", "bfloat16"] = Field(default="as-dtype", description="Precision of Adam's moments (dtype float32).")
    products: Literal["as-dtype", "bfloat16"] = Field(default="as-dtype", description="Precision of what products read; sums keep dtype.")
    block: Literal["plain", "compiled"] = added(
        "plain", description="The decoder's norms, rotary embedding and gated MLP: as in its library, or compiled (other rounding)."
    )
    seed: int = Field(default=0, description="Seed of initialisation and of the order of sentences and vectors.")

    @model_validator(mode="after")
    def _k_fits(self) -> SAETrainingConfig:
        if self.k > self.n_latents:
            raise ValueError(f"k = {self.k} is larger than n_latents = {self.n_latents}; choose k <= n_latents")
        if self.moments != "as-dtype" and self.dtype != "float32":
            raise ValueError(f"moments = {self.moments!r} needs dtype = 'float32', not {self.dtype!r}; choose 'as-dtype'")
        if not self.batch_vectors <= min(self.buffer_vectors, self.vectors):
            raise ValueError(
                f"batch_vectors = {self.batch_vectors} must not exceed buffer_vectors = {self.buffer_vectors} or vectors = {self.vectors}"
            )
        return self


class RewardTrainingConfig(JobConfig):
    """A reward model trained on pairs. Inputs: `backbone`, `preferences`, and `sae` if the encoder is pretrained.

    Source: section Setup, SARM Training.
    """

    kind: ClassVar[str] = "train_reward"
    version: ClassVar[int] = 5
    data_parallel: ClassVar[bool] = True
    zero_stages: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)
    offload_stages: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)

    layer: int = Field(ge=1, description="Decoder blocks kept.")
    encoder: Literal["sae", "random_sae", "linear", "none"] = Field(
        default="sae",
        description="Pretrained SAE; the same frozen at random init; the authors' trainable linear layer; none (a scalar model).",
    )
    n_latents: int = Field(default=0, ge=0, description="Width of a random or linear encoder; 0 with `sae` (taken from it) and `none`.")
    k: int = Field(default=0, ge=0, description="TopK of a random encoder; 0 with `sae` (taken from it), `linear` and `none`.")
    latents: Literal["topk", "pre_acts"] = Field(default="topk", description="What the reward head sees.")
    sae_trains: bool = Field(default=False, description="Whether the SAE's own parameters are updated.")
    backbone_trains: bool = Field(default=True, description="Whether the decoder blocks are updated.")
    reconstruction_weight: float = Field(default=0.0, ge=0, description="Weight of the SAE's reconstruction loss in the objective.")
    reconstruction_tokens: Literal["assistant", "last"] = Field(default="assistant", description="Positions of that loss.")
    reconstruction_reaches_backbone: bool = Field(default=False, description="Whether its gradient flows into the blocks (mode 2).")
    batch_pairs: int = Field(default=8, ge=1, description="Pairs of one optimizer step, over all processes.")
    epochs: int = Field(default=3, ge=1, description="Passes over the pairs.")
    max_pairs: int = Field(default=0, ge=0, description="Train on the first so many pairs of the file; 0 takes all.")
    max_steps: int = Field(default=0, ge=0, description="Stop after so many optimizer steps; 0 runs all epochs.")
    learning_rate: float = Field(default=4e-6, gt=0, description="Peak AdamW learning rate of the blocks.")
    head_learning_rate: float = Field(default=0.0, ge=0, description="Peak learning rate of the head; 0 takes learning_rate.")
    weight_decay: float = Field(default=0.001, ge=0, description="AdamW's decoupled weight decay.")
    schedule: Literal["cosine", "constant", "warmup_stable_decay"] = Field(default="cosine", description="After warm-up.")
    warmup_fraction: float = Field(default=0.03, ge=0, lt=1, description="Share of steps with a linear warm-up.")
    decay_fraction: float = added(0.3, description="Share of steps, the last, in which warmup_stable_decay falls to 0.", gt=0, le=1)
    max_grad_norm: float = Field(default=1.0, gt=0, description="Clip of the global gradient norm.")
    max_length: int = Field(default=4096, ge=2, description="Longest conversation, tokens.")
    overlong: Literal["left", "drop", "error"] = Field(default="left", description="What happens to a longer one.")
    refused_turns: Literal["error", "drop"] = added("error", description="What happens to a pair whose turns the chat template refuses.")
    head_init: Literal["zeros", "normal"] = Field(default="zeros", description="Initial weights of the reward head.")
    selection: Literal["last", "validation", "test"] = Field(
        default="last", description="Checkpoint: last; best epoch on a validation split; last and, beside it, the best on the test set."
    )
    validation_fraction: float = Field(default=0.0, ge=0, lt=0.5, description="Share of pairs (by prompt) held out for `validation`.")
    dtype: Dtype = Field(default="float32", description="Precision of blocks and SAE; head and loss are float32.")
    moments: Literal["float32", "bfloat16"] = added(
        "float32", description="Precision of Adam's moments; bfloat16 takes a third less memory, in one process without ZeRO."
    )
    date_string: str = Field(default="26 Jul 2024", description="Date given to chat templates that ask for one.")
    block: Literal["plain", "compiled"] = added(
        "plain", description="The decoder's norms, rotary embedding and gated MLP: as in its library, or compiled (other rounding)."
    )
    seed: int = Field(default=0, description="Seed of random encoders, head and order of pairs.")

    @model_validator(mode="after")
    def _encoder_is_whole(self) -> RewardTrainingConfig:
        needs_width = self.encoder in ("random_sae", "linear")
        if needs_width != bool(self.n_latents):
            raise ValueError(f"encoder = {self.encoder!r} {'needs' if needs_width else 'takes no'} n_latents, got {self.n_latents}")
        if (self.encoder == "random_sae") != bool(self.k):
            raise ValueError(f"k = {self.k} does not go with encoder = {self.encoder!r}; only random_sae has a k of its own")
        if self.k > self.n_latents:
            raise ValueError(f"k = {self.k} is larger than n_latents = {self.n_latents}; choose k <= n_latents")
        if self.reconstruction_weight and self.encoder in ("linear", "none"):
            raise ValueError(f"reconstruction_weight = {self.reconstruction_weight} needs an SAE; encoder = {self.encoder!r} has none")
        if (self.selection == "validation") != (self.validation_fraction > 0):
            raise ValueError("selection = 'validation' needs validation_fraction > 0, and only it")
        if self.schedule != "warmup_stable_decay" and self.decay_fraction != type(self).model_fields["decay_fraction"].default:
            raise ValueError(f"decay_fraction = {self.decay_fraction} goes with schedule = 'warmup_stable_decay', not {self.schedule!r}")
        if self.selection == "test" and self.max_steps:
            raise ValueError(f"selection = 'test' keeps whole epochs; max_steps = {self.max_steps} cuts them off: set max_steps = 0")
        return self



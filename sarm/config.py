"""Everything that can change a number, one frozen model per kind of job.

Each class names its job: `kind` (the folder in the store) and `version` (raised in the commit that changes what it computes).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sarm.job import JobConfig

Dtype = Literal["float32", "bfloat16", "float16"]


class MiniatureConfig(JobConfig):
    """The invented language of the miniature: corpus, preferences, benchmarks, tokenizer. Source: our own design."""

    kind: ClassVar[str] = "make_miniature"
    version: ClassVar[int] = 1

    seed: int = Field(default=0, description="Seed of every random draw.")
    corpus_documents: int = Field(default=8000, ge=10, description="Documents of running text.")
    training_pairs: int = Field(default=6000, ge=10, description="Preference pairs for reward training.")
    evaluation_pairs: int = Field(default=500, ge=5, description="Preference pairs on prompts that training never sees.")
    benchmark_rows: int = Field(default=120, ge=4, description="Rows of each RewardBench-2-shaped subset but Ties.")
    ties_prompts: int = Field(default=40, ge=2, description="Prompts of the Ties subset; each gives a ref and a tied row.")
    rmbench_items: int = Field(default=60, ge=2, description="Items of each RM-Bench-shaped domain.")


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


class WeightsConfig(JobConfig):
    """Weights and tokenizer of a backbone, from a hub repository at a revision or a local folder of known content."""

    kind: ClassVar[str] = "fetch_weights"
    version: ClassVar[int] = 1

    origin: Literal["hub", "folder"] = Field(description="Where the files come from; a folder's path is a location, not a config.")
    repository: str = Field(default="", description="Hub repository, owner/name; empty for a folder.")
    revision: str = Field(description="Hub commit, or the SHA-256 over a folder's files.")
    chat_template: str = Field(default="", description="Jinja template that replaces the tokenizer's; empty keeps what is shipped.")
    end_of_turn: str = Field(default="", description="Token that ends a turn; empty takes the tokenizer's eos.")
    add_tokens: tuple[str, ...] = Field(default=(), description="Special tokens to add; embeddings grow by the mean row.")
    pad_token: str = Field(default="", description="Pad token to set (added when absent); empty keeps what is shipped.")


class DataConfig(JobConfig):
    """A data set brought into our own JSONL shapes, from a hub data set at a revision or local files of known content.

    Output: `corpus.jsonl` (texts), `train.jsonl` and `evaluation.jsonl` (pairs), or `<benchmark>.jsonl`.
    """

    kind: ClassVar[str] = "prepare_data"
    version: ClassVar[int] = 1

    shape: Literal["text", "pairs", "rewardbench2", "rmbench"] = Field(description="What the rows become.")
    origin: Literal["hub", "file"] = Field(description="Where the rows come from; a file's path is a location, not a config.")
    repository: str = Field(default="", description="Hub data set, owner/name; empty for files.")
    subset: str = Field(default="", description="Hub configuration name; empty takes the default.")
    split: str = Field(default="train", description="Hub split.")
    revision: str = Field(description="Hub commit, or the SHA-256 over the files' content.")
    text_column: str = Field(default="text", description="Column of a text corpus.")
    evaluation_split: Literal["none", "prompt-sha256-mod-5", "all"] = Field(
        default="none", description="Pairs held out: none; those whose prompt's SHA-256 (first 8 hex digits) is divisible by 5; all."
    )
    skip_prompts: bool = Field(default=False, description="Leave out rows whose prompt is empty instead of refusing the file.")


class SAETrainingConfig(JobConfig):
    """One TopK sparse autoencoder on hidden states of a truncated model. Inputs: `backbone`, `corpus`, perhaps `splitter`.

    Source: section Setup, SAE Pretraining.
    """

    kind: ClassVar[str] = "train_sae"
    version: ClassVar[int] = 2
    data_parallel: ClassVar[bool] = True

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
    schedule: Literal["cosine", "constant"] = Field(default="cosine", description="After warm-up.")
    warmup_fraction: float = Field(default=0.03, ge=0, lt=1, description="Share of steps with a linear warm-up.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Clip of the global gradient norm.")
    max_length: int = Field(default=4096, ge=2, description="Longest conversation, tokens.")
    overlong: Literal["left", "drop", "error"] = Field(default="left", description="What happens to a longer one.")
    head_init: Literal["zeros", "normal"] = Field(default="zeros", description="Initial weights of the reward head.")
    selection: Literal["last", "validation", "test"] = Field(
        default="last", description="Checkpoint: last; best epoch on a validation split; last and, beside it, the best on the test set."
    )
    validation_fraction: float = Field(default=0.0, ge=0, lt=0.5, description="Share of pairs (by prompt) held out for `validation`.")
    dtype: Dtype = Field(default="float32", description="Precision of blocks and SAE; head and loss are float32.")
    date_string: str = Field(default="26 Jul 2024", description="Date given to chat templates that ask for one.")
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
        if self.selection == "test" and self.max_steps:
            raise ValueError(f"selection = 'test' keeps whole epochs; max_steps = {self.max_steps} cuts them off: set max_steps = 0")
        return self


class ScoringConfig(JobConfig):
    """A reward for each completion of a benchmark or pair file. Inputs: `model`, `benchmark`.

    Batch shape, attention kernel and dtype are here because they change last digits and thus ties.
    """

    kind: ClassVar[str] = "score_benchmark"
    version: ClassVar[int] = 2

    benchmark: Literal["rewardbench2", "rmbench", "evaluation"] = Field(description="File of the input: `<benchmark>.jsonl`.")
    formatting: Literal["end-of-turn", "harness"] = Field(
        default="end-of-turn", description="Score the closed turn's last token; or, as RewardBench's script, the templated text's."
    )
    max_length: int = Field(default=2048, ge=2, description="Longest conversation, tokens.")
    truncation: Literal["left", "right", "tokenizer", "error"] = Field(
        default="left", description="Which end of a longer one is cut; `tokenizer`: the side that the tokenizer names (harness alone)."
    )
    bos: Literal["single", "double-first-masked", "double"] = Field(
        default="single", description="One BOS; or the benchmarks' double BOS, with or without its first masked."
    )
    dtype: Dtype = Field(default="float32", description="Precision of the forward pass.")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(default="sdpa", description="Attention kernel.")
    batches: Literal["similar-lengths", "dataset-order", "shared-prompts"] = Field(
        default="similar-lengths", description="Rows of one pass: like lengths; neighbours; or an item's, with their prompt once."
    )
    batch_tokens: int = Field(default=16384, ge=1, description="Padded tokens of one forward pass; unused with dataset-order.")
    batch_rows: int = Field(default=0, ge=0, description="Rows of one forward pass with dataset-order; 0 with the others.")
    date_string: str = Field(default="26 Jul 2024", description="Date given to chat templates that ask for one.")
    subset: str = Field(default="", description="Score only the items of this subset; empty scores all. A part is never comparable.")
    limit: int = Field(default=0, ge=0, description="Score only the first so many items; 0 scores all. A limit is never comparable.")
    epoch: int = Field(default=0, ge=0, description="The model as it was after that epoch of training; 0 takes the one that was kept.")

    @model_validator(mode="after")
    def _conditions_are_whole(self) -> ScoringConfig:
        if (self.batches == "dataset-order") != bool(self.batch_rows):
            raise ValueError(f"batch_rows = {self.batch_rows} does not go with batches = {self.batches!r}; only dataset-order has rows")
        if self.truncation == "tokenizer" and self.formatting != "harness":
            raise ValueError("truncation = 'tokenizer' is the harness's way; with formatting = 'end-of-turn' say left, right or error")
        return self


class BaselineConfig(JobConfig):
    """Rewards of a scorer that knows no language model. Inputs: `preferences` (its training pairs), `benchmark`."""

    kind: ClassVar[str] = "score_baseline"
    version: ClassVar[int] = 1

    benchmark: Literal["rewardbench2", "rmbench", "evaluation"] = Field(description="File of the input: `<benchmark>.jsonl`.")
    features: Literal["length", "bag-of-words"] = Field(description="Log length alone; or hashed words and word pairs with it.")
    regularization: float = Field(default=1.0, gt=0, description="Inverse strength of the L2 penalty (scikit-learn's C).")
    max_pairs: int = Field(default=0, ge=0, description="Fit on the first so many pairs of the file; 0 takes all.")


class ConversationScoringConfig(JobConfig):
    """A reward for each conversation of a user's file. Locations: `model`, `conversations`."""

    kind: ClassVar[str] = "score_conversations"
    version: ClassVar[int] = 1

    model_digest: str = Field(description="SHA-256 over the model folder's files.")
    conversations_digest: str = Field(description="SHA-256 of the input file.")
    attribution: int = Field(default=0, ge=0, description="Top latents to list for each conversation; 0 lists none.")
    max_length: int = Field(default=4096, ge=2, description="Longest conversation, tokens.")
    dtype: Dtype = Field(default="float32", description="Precision of the forward pass.")
    batch_tokens: int = Field(default=16384, ge=1, description="Padded tokens of one forward pass.")
    date_string: str = Field(default="26 Jul 2024", description="Date given to chat templates that ask for one.")


class SteeringConfig(JobConfig):
    """Rewards before and after one latent is edited, and the latents of every completion. Inputs: `model`, `selection`, `target`.

    `selection` and `target` are benchmarks; with one benchmark for both, choice and test share items, as in the preprint.
    """

    kind: ClassVar[str] = "steer_rewards"
    version: ClassVar[int] = 2

    selection: Literal["rewardbench2", "rmbench"] = Field(description="File on which s_i is computed.")
    target: Literal["rewardbench2", "rmbench"] = Field(default="rewardbench2", description="File whose rewards are steered.")
    subset: str = Field(default="safety", description="Subsets whose name begins so (any case) are the concept; all others the complement.")
    rule: Literal["argmax-s", "argmax-s-bounded-t", "s-minus-t"] = Field(default="argmax-s", description="How the latent is chosen.")
    bound: float = Field(default=0.1, ge=0, description="Largest |t_i| that argmax-s-bounded-t accepts.")
    multiplier: float = Field(default=2.0, description="Factor on the chosen latent; the paper does not state its own.")
    latents: Literal["model", "topk"] = Field(default="model", description="What the head sees: as trained, or TopK in any case.")
    max_length: int = Field(default=2048, ge=2, description="Longest conversation, tokens.")
    truncation: Literal["left", "right", "error"] = Field(default="left", description="Which end of a longer one is cut.")
    bos: Literal["single", "double-first-masked", "double"] = Field(default="single", description="BOS policy.")
    dtype: Dtype = Field(default="float32", description="Precision of the forward pass.")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(default="sdpa", description="Attention kernel.")
    batch_tokens: int = Field(default=16384, ge=1, description="Padded tokens of one forward pass.")
    date_string: str = Field(default="26 Jul 2024", description="Date given to chat templates that ask for one.")


class ContextConfig(JobConfig):
    """The contexts that activate each latent of a SARM. Inputs: `model`, `texts`.

    Defaults are those of the released recipe, on RM-Bench as the paper says.
    Source: section Interpretable Features; apply.py, recipes/apply.sh.
    """

    kind: ClassVar[str] = "collect_contexts"
    version: ClassVar[int] = 2

    texts: Literal["train", "evaluation", "rewardbench2", "rmbench"] = Field(
        default="rmbench", description="File of the input: `<texts>.jsonl`; the released loader reads the training pairs (`train`)."
    )
    sides: Literal["both", "chosen", "rejected"] = Field(default="both", description="Replies read: all chosen first, then all rejected.")
    max_length: int = Field(default=1024, ge=2, description="Longest conversation, tokens; a longer one is cut on the left.")
    without_header: Literal["whole", "skip"] = Field(
        default="whole", description="A row whose assistant header was cut off: read from its first token, as released, or left out."
    )
    enders: Literal["exact", "ending-with"] = Field(
        default="exact", description="Ender tokens: ? . ; ! and the end of turn, as released; or every token that ends with such a mark."
    )
    threshold: float = Field(default=3.0, description="Activations strictly above it count (recipe 3.0; the script's default is 5.0).")
    max_per_token: int = Field(default=128, ge=1, description="Most contexts of a latent and token.")
    lines: int = Field(default=4, ge=0, description="A latent is kept with more contexts than that, over all tokens.")
    duplicates: Literal["first", "max"] = Field(
        default="first", description="A text seen again: skipped for good, as released, or counted with its largest activation."
    )
    pool: int = Field(default=4096, ge=1, description="Different contexts, activating or not, kept with all their latents for detection.")
    held_out_fraction: float = Field(default=0.5, ge=0, le=1, description="Share of prompts whose contexts are the held-out half.")
    seed: int = Field(default=0, description="Seed of the hashes that draw halves and pool.")
    limit: int = Field(default=0, ge=0, description="Read only the first so many items; 0 reads all.")
    dtype: Dtype = Field(default="float32", description="Precision of the forward pass; the released code uses bfloat16.")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(default="sdpa", description="Attention kernel.")
    batch_tokens: int = Field(default=16384, ge=1, description="Padded tokens of one forward pass.")
    date_string: str = Field(default="26 Jul 2024", description="Date given to chat templates that ask for one.")

"""What decides how latents are steered, shown in contexts and explained."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sarm.config.dtype import Dtype
from sarm.config.steering import HeadEdit
from sarm.job import JobConfig, added


class ExplanationConfig(JobConfig):
    """An explanation and a score for latents with the largest head weights. Source: appendix Auto Interpretation Prompt Design.

    Inputs: `contexts`, `model`; perhaps `control_contexts` with `control_model`; `texts` (a miniature) for the planted judge.
    Locations: `endpoint` (JSON of `EndpointSettings`) or `answers` (JSON). Detection is ours, beyond the paper.
    """

    kind: ClassVar[str] = "explain_latents"
    version: ClassVar[int] = 2

    judge: Literal["endpoint", "recorded", "planted"] = Field(
        description="Who answers: a chat endpoint; a file of recorded answers; the miniature's planted concepts."
    )
    judge_model: str = Field(default="gpt-4o", description="Model asked at the endpoint.")
    answers_digest: str = Field(default="", description="SHA-256 of the file of recorded answers; empty for other judges.")
    positive: int = Field(default=20, ge=0, description="Latents with the largest head weights above 0.")
    negative: int = Field(default=20, ge=0, description="Latents with the smallest head weights below 0.")
    latents: tuple[int, ...] = Field(default=(), description="Further latents, by number.")
    threshold: float = Field(default=0.0, description="Contexts activate strictly above it (merge_context.py has 5).")
    min_entries: int = Field(default=1, ge=1, description="Fewest contexts of a latent and token (merge_context.py has 10).")
    contexts_shown: int = Field(default=40, ge=1, description="Strongest contexts in the prompt.")
    shown_from: Literal["all", "explain-half"] = Field(
        default="all", description="Contexts that the explainer may see: all, as released, or the half that detection does not use."
    )
    answer_format: Literal["checked", "released"] = Field(
        default="checked", description="`checked`: also `Score: [4]`, and 1 to 5 only; `released`: any whole number without brackets."
    )
    max_asks: int = Field(default=3, ge=1, description="How often one question is asked until its answer can be read.")
    temperature: float = Field(default=0.0, ge=0, description="Sampling temperature of the judge.")
    max_output_tokens: int = Field(default=300, ge=1, description="Longest answer, tokens.")
    detection_contexts: int = Field(default=20, ge=0, description="Activating contexts judged a latent, and as many others; 0 for none.")
    detection_batch: int = Field(default=10, ge=1, description="Contexts in one detection question.")
    hard_fraction: float = Field(
        default=0.5, ge=0, le=1, description="Share of the others nearest to the latent's decoder column; the rest end with its tokens."
    )
    seed: int = Field(default=0, description="Seed of the order of contexts in detection questions.")

    @model_validator(mode="after")
    def _choice_is_whole(self) -> ExplanationConfig:
        if not (self.positive or self.negative or self.latents):
            raise ValueError("no latent is chosen: positive, negative and latents are all empty; choose at least one")
        if (self.judge == "recorded") != bool(self.answers_digest):
            raise ValueError("judge = 'recorded' needs answers_digest, and only it")
        return self


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
    edit: HeadEdit | None = added(None, description="A steering file's edit, in place of the rule's latent; none edits that one.")


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


class ExplorationConfig(JobConfig):
    """All latents of each completion of a benchmark, and what each latent is and does there. Inputs: `model`, `benchmark`.

    A model that is no artifact is the location `model`. Conditions of scoring are those of `ScoringConfig`.
    """

    kind: ClassVar[str] = "explore_latents"
    version: ClassVar[int] = 1

    benchmark: Literal["rewardbench2", "rmbench", "evaluation"] = Field(description="File of the input: `<benchmark>.jsonl`.")
    model_digest: str = Field(default="", description="SHA-256 over the files of a model that is no artifact; else empty.")
    formatting: Literal["end-of-turn", "harness"] = Field(
        default="end-of-turn", description="Score the closed turn's last token; or, as RewardBench's script, the templated text's."
    )
    max_length: int = Field(default=2048, ge=2, description="Longest conversation, tokens.")
    truncation: Literal["left", "right", "tokenizer", "error"] = Field(default="left", description="Which end of a longer one is cut.")
    bos: Literal["single", "double-first-masked", "double"] = Field(default="single", description="BOS policy.")
    dtype: Dtype = Field(default="float32", description="Precision of the forward pass.")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(default="sdpa", description="Attention kernel.")
    batch_tokens: int = Field(default=16384, ge=1, description="Padded tokens of one forward pass.")
    date_string: str = Field(default="26 Jul 2024", description="Date given to chat templates that ask for one.")
    end_of_turn: str = Field(default="", description="Token that ends a turn; empty takes eos, or what the template closes replies with.")
    pooling: Literal["end_of_turn", "last_token"] = Field(default="end_of_turn", description="Token whose state is scored.")
    subset: str = Field(default="", description="Read only the items of this subset; empty reads all.")
    limit: int = Field(default=0, ge=0, description="Read only the first so many items; 0 reads all.")
    neighbours: int = Field(default=8, ge=0, description="Latents listed whose decoder columns have the largest cosine with a latent's.")
    kept: int = Field(
        default=256, ge=1, description="Contributions kept of a completion whose head reads all pre-activations; the rest is one sum."
    )
    edited: int = Field(
        default=500, ge=0, description="Latents, by head weight, whose edits are computed where the head reads all pre-activations."
    )

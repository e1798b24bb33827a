"""What decides rewards: of models on benchmarks and conversations, of baselines, of judges."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sarm.config.dtype import Dtype
from sarm.config.steering import HeadEdit
from sarm.job import JobConfig, added


class JudgeConfig(JobConfig):
    """A language model's judgements of a benchmark, asked as the official harness asks. Inputs: `benchmark`; perhaps `earlier`, judgements
    by the same model, whose answers to equal questions are taken over.

    Locations: `endpoint` (JSON of `EndpointSettings`) or `answers` (JSON). Source: allenai/reward-bench @ 05a9005, run_generative_v2.py.
    """

    kind: ClassVar[str] = "judge_benchmark"
    version: ClassVar[int] = 1

    benchmark: Literal["rewardbench2", "rmbench"] = Field(description="File of the input: `<benchmark>.jsonl`.")
    judge: Literal["endpoint", "recorded"] = Field(description="Who answers: a chat endpoint, or a file of recorded answers.")
    judge_model: str = Field(min_length=1, description="Model asked at the endpoint.")
    answers_digest: str = Field(default="", description="SHA-256 of the file of recorded answers; empty for an endpoint.")
    mode: Literal["ranking", "rating"] = Field(
        default="ranking", description="One of four is named best, or each completion is rated 1 to 10. Ties and RM-Bench are always rated."
    )
    ranking_prompt: Literal["system", "merged", "gemini"] = Field(
        default="system", description="Instructions in a system message; before the question (models without one); or the text for Gemini."
    )
    reading: Literal["checked", "official"] = Field(
        default="checked", description="`checked`: 9/10, 8.5 and **9** as meant, the last verdict; `official`: as the official parsers."
    )
    temperature: float = Field(default=0.0, ge=0, description="Sampling temperature of the judge.")
    ranking_tokens: int = Field(default=2048, ge=1, description="Longest answer to a ranking question, tokens.")
    rating_tokens: int = Field(default=1024, ge=1, description="Longest answer to a rating question, tokens.")
    seed: int = Field(default=0, description="Seed of the chosen completion's position among four.")
    subset: str = Field(default="", description="Judge only the items of this subset; empty judges all. A part is never comparable.")
    limit: int = Field(default=0, ge=0, description="Judge only the first so many items; 0 judges all. A limit is never comparable.")

    @model_validator(mode="after")
    def _is_whole(self) -> JudgeConfig:
        if (self.judge == "recorded") != bool(self.answers_digest):
            raise ValueError("judge = 'recorded' needs answers_digest, and only it")
        if self.benchmark == "rmbench" and self.mode != "rating":
            raise ValueError("RM-Bench compares three with three: its items are rated, not ranked; choose mode = 'rating'")
        return self


class ScoringConfig(JobConfig):
    """A reward for each completion of a benchmark or pair file. Inputs: `model`, `benchmark`.

    Batch shape, attention kernel and dtype are here because they change last digits and thus ties.
    """

    kind: ClassVar[str] = "score_benchmark"
    version: ClassVar[int] = 2
    data_parallel: ClassVar[bool] = True
    spreads: ClassVar[bool] = True

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
    end_of_turn: str = added("", description="Token that ends a turn; empty takes eos, or what the chat template closes replies with.")
    pooling: Literal["end_of_turn", "last_token"] = added(
        "end_of_turn", description="Token whose state is scored: the end of the last turn, or whatever the template writes last."
    )
    steering: HeadEdit | None = added(None, description="An edit of the reward head, from a steering file; none scores as trained.")

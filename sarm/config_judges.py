"""What decides the answers of a judge of a benchmark, and how they are read."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sarm.job import JobConfig


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

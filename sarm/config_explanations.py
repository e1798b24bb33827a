"""How latents are explained: the frozen model of that kind of job, as in `config.py`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sarm.job import JobConfig


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

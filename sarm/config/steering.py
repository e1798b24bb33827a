"""An edit of a reward head as a user keeps it: which latents' weights are scaled, of which model. What a steering file holds."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

SCHEMA_VERSION: Literal["1.0"] = "1.0"
# Beyond it rewards are anything: a reward of ordinary size becomes one of thousands.
LARGEST_FACTOR = 1000.0

Factor = Annotated[float, Field(ge=-LARGEST_FACTOR, le=LARGEST_FACTOR, allow_inf_nan=False, strict=True)]
Latent = Annotated[int, Field(ge=0)]


class HeadIdentity(BaseModel):
    """Which reward head an edit belongs to: the numbers of its latents and its weights say so, whatever the folder is called."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the head's latents (int64) and weights (float32).")
    n_latents: int = Field(ge=1, description="Width of the SAE.")
    layer: int = Field(ge=0, description="Decoder blocks below the head.")


class HeadEdit(BaseModel):
    """The head's weight on each named latent is multiplied by its factor; all others stay.

    A factor of 0 removes a latent, a negative one turns its effect around. A factor of 1 changes nothing and is left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: HeadIdentity
    factors: dict[Latent, Factor]

    @field_validator("factors", mode="before")
    @classmethod
    def _each_latent_once(cls, factors: Any) -> Any:
        # "7" and "07" would be one latent with two factors, of which one were dropped unseen.
        named = [key for key in factors if isinstance(key, str)] if isinstance(factors, dict) else []
        odd = next((key for key in named if not re.fullmatch("0|-?[1-9][0-9]*", key)), None)
        if odd is not None:
            raise ValueError(f"{odd!r} is no latent; write its number alone, as 7")
        return factors

    @field_validator("factors")
    @classmethod
    def _only_changes(cls, factors: dict[int, float]) -> dict[int, float]:
        changing = {latent: factor for latent, factor in sorted(factors.items()) if factor != 1}
        if not changing:
            raise ValueError("no latent has a factor other than 1, so the file changes nothing")
        return changing

    @model_validator(mode="after")
    def _latents_exist(self) -> HeadEdit:
        beyond = next((latent for latent in self.factors if latent >= self.model.n_latents), None)
        if beyond is not None:
            raise ValueError(f"latent {beyond} does not exist; the model named in the file has {self.model.n_latents}")
        return self


class SteeringFile(HeadEdit):
    """A steering file, JSON: an edit with the version of its shape and, for people, the name of the model's folder."""

    schema_version: Literal["1.0"]
    name: str = ""

    @property
    def edit(self) -> HeadEdit:
        """What of it decides rewards."""
        return HeadEdit(model=self.model, factors=self.factors)

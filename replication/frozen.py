"""The frozen model that plans, profiles and reports are made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value that is never changed after it is built."""

    model_config = ConfigDict(frozen=True, extra="forbid")

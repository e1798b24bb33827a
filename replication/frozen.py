"""The frozen model that profiles, plans, records and reports are made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value that is never changed after it is built, and holds nothing that it does not name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

"""How a judge's endpoint is reached and how much it may be used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sarm.job import EnvironmentProblem, UsageProblem
from sarm.judges.questions import Usage

STANDARD_PORTS = {"http": 80, "https": 443}


class EndpointSettings(BaseModel):
    """How an endpoint is reached and how much it may be used: where and how fast, never what is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    api_base: str = Field(description="URL up to and including the version, as in http://localhost:8000/v1.")
    key_variable: str = Field(default="OPENAI_API_KEY", description="Environment variable with the key; empty for a server without keys.")
    timeout_seconds: float = Field(default=60.0, gt=0, description="Longest wait for a connection or for the next part of an answer.")
    retries: int = Field(default=4, ge=0, description="Further tries after 408, 409, 429, 5xx, a timeout or a lost connection.")
    max_tokens: int = Field(default=2_000_000, ge=1, description="Most tokens in and out, over all jobs of the run.")
    input_price: float = Field(default=2.5, ge=0, description="US dollars for a million input tokens.")
    output_price: float = Field(default=10.0, ge=0, description="US dollars for a million output tokens.")
    max_cost: float = Field(default=5.0, ge=0, description="Most US dollars, over all jobs of the run.")
    concurrency: int = Field(default=4, ge=1, le=256, description="Most questions under way at once, where a job asks several.")
    accept_answers: bool = Field(default=False, description="Use kept answers that another address gave, or that do not say which.")
    refused: Literal["stop", "unread"] = Field(
        default="stop", description="Questions that the endpoint refuses when it answered all others: stop, or count them as unread."
    )

    @field_validator("api_base")
    @classmethod
    def _is_plain_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not a URL with http or https; give one such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("the URL carries a user, a password or a query; keys belong into the environment only")
        if not re.fullmatch(r"[^:]*|\[[^\]]*\]|(?:[^:]*|\[[^\]]*\]):[0-9]{1,5}", parts.netloc):
            raise ValueError("the URL's port is no number")
        return value

    @property
    def address(self) -> str:
        """The URL as it stands beside an answer: host in small letters, no port that goes without saying, no slash at its end."""
        return address_of(self.api_base)

    def cost(self, usage: Usage) -> float:
        """US dollars of some tokens."""
        return (usage.input_tokens * self.input_price + usage.output_tokens * self.output_price) / 1e6


def address_of(api_base: str) -> str:
    """A URL in the one form in which addresses are compared."""
    parts = urlsplit(api_base)
    host = (parts.hostname or "").rstrip(".")
    host = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port and parts.port != STANDARD_PORTS.get(parts.scheme) else ""
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def read_settings(path: Path) -> EndpointSettings:
    """Settings from a JSON file. Raises UsageProblem with every key that is wrong, EnvironmentProblem when there is no file."""
    if not path.is_file():
        raise EnvironmentProblem(f"{path.name}: no settings of an endpoint; give --api-base or choose another judge")
    try:
        return EndpointSettings.model_validate_json(path.read_bytes())
    except ValidationError as error:
        # Values are left out: a URL that is refused for the password in it must not be told.
        wrong = "; ".join(f"{'.'.join(map(str, entry['loc'])) or 'file'}: {entry['msg']}" for entry in error.errors())
        raise UsageProblem(f"settings of the endpoint: {wrong}") from None

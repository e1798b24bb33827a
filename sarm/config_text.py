"""Configs of what running text needs besides itself: the data of a sentence splitter that is no package's own."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from sarm.job import JobConfig


class SplitterConfig(JobConfig):
    """The English tables of nltk's Punkt splitter (`punkt_tab`: plain text, no pickle). Location: `source` for a folder.

    Source: schrieffer-z/sae, src/utils.py:146-176 (`nltk.sent_tokenize`).
    """

    kind: ClassVar[str] = "fetch_splitter"
    version: ClassVar[int] = 1

    origin: Literal["url", "folder"] = Field(description="Where the tables come from; a folder's path is a location, not a config.")
    url: str = Field(default="", description="Address of the zip; empty for a folder.")
    revision: str = Field(description="SHA-256 of the zip, or over a folder's files.")

"""What decides data sets: the miniature's, public ones brought into our shapes, a sentence splitter's tables."""

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


class MiniatureConfig(JobConfig):
    """The invented language of the miniature: corpus, preferences, benchmarks, tokenizer. Source: our own design."""

    kind: ClassVar[str] = "make_miniature"
    version: ClassVar[int] = 6

    seed: int = Field(default=0, description="Seed of every random draw.")
    corpus_documents: int = Field(default=8000, ge=10, description="Documents of running text.")
    training_pairs: int = Field(default=6000, ge=10, description="Preference pairs for reward training.")
    evaluation_pairs: int = Field(default=500, ge=5, description="Preference pairs on prompts that training never sees.")
    benchmark_rows: int = Field(default=120, ge=4, description="Rows of each RewardBench-2-shaped subset but Ties.")
    ties_prompts: int = Field(default=40, ge=2, description="Prompts of the Ties subset; each gives a ref and a tied row.")
    rmbench_items: int = Field(default=60, ge=2, description="Items of each RM-Bench-shaped domain.")


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

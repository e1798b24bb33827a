"""Jobs on checkpoints made elsewhere: an SAE of another project becomes an artifact of ours, two checkpoints are compared."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sarm.job import JobConfig

ForeignLayout = Literal["SAELens", "sparsify", "dictionary_learning", "Llama Scope", "Gemma Scope"]
SAELayout = Literal["auto", "checkpoint", "ours", "authors-file"] | ForeignLayout


class ImportedSAEConfig(JobConfig):
    """An SAE trained elsewhere, as the `sae` input of reward training.

    Input `checkpoint` (a fetched reward model in the authors' layout, whose `sae.*` tensors are taken) with layout `checkpoint`;
    else the files of a hub repository, or location `source`.
    """

    kind: ClassVar[str] = "import_sae"
    version: ClassVar[int] = 1

    origin: Literal["checkpoint", "hub", "folder"] = Field(description="Where the files come from; a folder's path is a location.")
    layout: SAELayout = Field(description="Whose files; `auto` tells the layouts of other projects apart by the names of their files.")
    repository: str = Field(default="", description="Hub repository, owner/name; empty for the others.")
    revision: str = Field(default="", description="Hub commit, or the SHA-256 over a folder's files; empty for a checkpoint.")
    file: str = Field(default="", description="Folder or file of the SAE inside the repository or folder; empty for its root.")
    layer: int = Field(ge=1, description="Blocks before the hidden states of the model that will use it.")
    stated_layer: int = Field(default=0, ge=0, description="Blocks that the SAE was trained after, for files that do not say; 0 for none.")
    hidden_size: int = Field(ge=1, description="Width of that model.")

    @model_validator(mode="after")
    def _origin_fits(self) -> ImportedSAEConfig:
        if (self.origin == "checkpoint") != (self.layout == "checkpoint"):
            raise ValueError(f"layout = {self.layout!r} does not go with origin = {self.origin!r}; only a checkpoint holds both")
        if (self.origin == "hub") != bool(self.repository):
            raise ValueError(f"repository = {self.repository!r} does not go with origin = {self.origin!r}")
        return self


class WeightComparisonConfig(JobConfig):
    """Which tensors differ between two checkpoints, and whether the SAE was frozen between them. Locations: `first`, `second`."""

    kind: ClassVar[str] = "compare_weights"
    version: ClassVar[int] = 1

    first_digest: str = Field(description="SHA-256 over the files of the folder `first`, the earlier checkpoint.")
    second_digest: str = Field(description="SHA-256 over the files of the folder `second`.")

"""What decides weights that were trained elsewhere: which, from where, as what; copies for others, and comparisons."""

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


class WeightsConfig(JobConfig):
    """Weights and tokenizer of a backbone, from a hub repository at a revision or a local folder of known content."""

    kind: ClassVar[str] = "fetch_weights"
    version: ClassVar[int] = 1

    origin: Literal["hub", "folder"] = Field(description="Where the files come from; a folder's path is a location, not a config.")
    repository: str = Field(default="", description="Hub repository, owner/name; empty for a folder.")
    revision: str = Field(description="Hub commit, or the SHA-256 over a folder's files.")
    chat_template: str = Field(default="", description="Jinja template that replaces the tokenizer's; empty keeps what is shipped.")
    end_of_turn: str = Field(default="", description="Token that ends a turn; empty takes the tokenizer's eos.")
    add_tokens: tuple[str, ...] = Field(default=(), description="Special tokens to add; embeddings grow by the mean row.")
    pad_token: str = Field(default="", description="Pad token to set (added when absent); empty keeps what is shipped.")


class SAEExportConfig(JobConfig):
    """An SAE of ours in another library's layout. Location: `sae`."""

    kind: ClassVar[str] = "export_sae"
    version: ClassVar[int] = 1

    sae_digest: str = Field(description="SHA-256 over the SAE folder's files.")
    layout: Literal["sae-lens", "sparsify"] = Field(description="Whose files are written.")
    model_name: str = Field(default="unknown", description="Backbone that SAELens is to name.")

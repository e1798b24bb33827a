"""A profile says at which scale the paper is repeated: backbones, data, sizes, resources. It is a value, not a branch.

A profile is a TOML file: `mini` and `paper` are shipped, any other is the user's. Rows of the registry speak in the paper's
units (layer 14 of 28, 16 x hidden, k 144); the profile maps them to its own backbones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from replication.frozen import Frozen
from sarm.config.weights import SAELayout
from sarm.job import EnvironmentProblem, Resources

Slot = Literal["small", "large"]
BenchmarkName = Literal["rewardbench2", "rmbench", "evaluation"]
UNKNOWN_REVISION = "unknown"
# 4,319,076 bytes, as several public projects that ship it have recorded; its branch moves, so only the content says which it is.
PUNKT_URL = "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/tokenizers/punkt_tab.zip"
PUNKT_SHA256 = "e57f64187974277726a3417ca6f181ec5403676c717672eef6a748a7b20e0106"
# A branch moves; what a commit holds never changes.
COMMIT = re.compile(r"[0-9a-f]{40}")


class Counterpart(Frozen):
    """The profile's value for one of the paper's, and how it misses it where it does."""

    value: int = Field(ge=1, description="Layer or k of this profile's backbone.")
    inexact: str = Field(default="", description="Why it is not the same share as in the paper; empty where it is. Printed in the table.")


class Shape(Frozen):
    """Sizes of a backbone, before truncation. A hub or folder backbone has them in its `config.json`: stated ones must agree with it."""

    num_hidden_layers: int = Field(ge=1, description="Decoder blocks.")
    hidden_size: int = Field(ge=8, description="Width of the residual stream.")
    intermediate_size: int = Field(ge=8, description="Width of the MLP.")
    num_attention_heads: int = Field(ge=1, description="Query heads.")
    num_key_value_heads: int = Field(ge=1, description="Key and value heads.")
    head_dim: int = Field(default=0, ge=0, description="Width of one head; 0 is hidden_size / num_attention_heads.")
    vocab_size: int = Field(ge=1, description="Rows of the embedding (for the cost estimate).")


class MiniatureBackbone(Frozen):
    """A small Llama pretrained on the miniature's own corpus."""

    kind: Literal["miniature"]
    context: int = Field(default=256, ge=16, description="Longest sequence, tokens.")
    steps: int = Field(ge=1, description="Optimizer steps of pretraining.")
    batch_tokens: int = Field(default=4096, ge=64, description="Tokens of one step.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Peak AdamW learning rate of pretraining.")
    seed: int = Field(default=0, description="Seed of pretraining; --seeds leaves it alone, since the paper's backbone is one.")


class FolderBackbone(Frozen):
    """A local folder in Hugging Face layout."""

    kind: Literal["folder"]
    path: str = Field(min_length=1, description="Folder; ${VARIABLES} expand; relative paths start at the profile's own folder.")


class HubBackbone(Frozen):
    """A model of the Hugging Face hub."""

    kind: Literal["hub"]
    repository: str = Field(pattern=r"^[^/\s]+/[^/\s]+$", description="owner/name.")
    revision: str = Field(min_length=1, description="Commit; a branch or `unknown` until `replicate fetch` has pinned it.")
    gated: bool = Field(default=False, description="Whether its licence must be accepted on the hub first.")
    download_gb: float = Field(default=0.0, ge=0, description="Size of what is fetched, GB, for the plan; 0 where unknown.")

    @property
    def disk_gb(self) -> float:
        """What the artifact takes: the same files."""
        return self.download_gb


class TokenizerChanges(Frozen):
    """What a tokenizer lacks for conversations. Empty values keep what is shipped."""

    chat_template: str = Field(default="", description="Jinja template that replaces the tokenizer's own.")
    pad_token: str = Field(default="", description="Pad token to set (added when absent); must differ from the end of a turn.")
    add_tokens: tuple[str, ...] = Field(default=(), description="Special tokens to add.")
    end_of_turn: str = Field(default="", description="Token that ends a turn; empty takes the tokenizer's eos.")


class Backbone(Frozen):
    """One slot: the model that stands for one of the paper's two."""

    stands_for: str = Field(description="The paper's model.")
    source: Annotated[MiniatureBackbone | FolderBackbone | HubBackbone, Field(discriminator="kind")]
    shape: Shape | None = Field(default=None, description="Its sizes; without them those of its `config.json` (not for the miniature).")
    tokenizer: TokenizerChanges = TokenizerChanges()
    layers: Mapping[int, Counterpart] = Field(description="The paper's layer (blocks kept) -> this backbone's.")
    ks: Mapping[int, Counterpart] = Field(description="The paper's k -> this backbone's.")

    @field_validator("layers", "ks", mode="before")
    @classmethod
    def _plain_numbers(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: {"value": entry} if isinstance(entry, int) else entry for key, entry in value.items()}

    @property
    def sizes(self) -> Shape:
        """Its sizes, stated or read. Raises EnvironmentProblem where its files are not here."""
        if self.shape is None:
            raise EnvironmentProblem(unknown_sizes(self.source))
        return self.shape


FETCH = "replicate fetch EXPERIMENT --profile PROFILE"


def unknown_sizes(source: MiniatureBackbone | FolderBackbone | HubBackbone, command: str = FETCH) -> str:
    """What to do about a backbone without sizes whose files are not here."""
    if isinstance(source, HubBackbone):
        return f"{source.repository} is not fetched, and the profile does not state its sizes; run: {command}"
    return f"{getattr(source, 'path', 'the backbone')} does not exist; mend the profile's path (or the environment variable in it)"


class MiniatureData(Frozen):
    """What `make_miniature` makes."""

    kind: Literal["miniature"]


class FileData(Frozen):
    """A local file, or a folder of files of one shape."""

    kind: Literal["file"]
    path: str = Field(min_length=1, description="File or folder; ${VARIABLES} expand; relative paths start at the profile's own folder.")


class HubData(Frozen):
    """A data set of the Hugging Face hub."""

    kind: Literal["hub"]
    repository: str = Field(pattern=r"^[^/\s]+/[^/\s]+$", description="owner/name.")
    revision: str = Field(min_length=1, description="Commit; a branch or `unknown` until `replicate fetch` has pinned it.")
    subset: str = Field(default="", description="Configuration name; empty takes the default.")
    split: str = Field(default="train", description="Split.")
    gated: bool = Field(default=False, description="Whether its licence must be accepted on the hub first.")
    download_gb: float = Field(default=0.0, ge=0, description="Size of what is fetched, GB, for the plan; 0 where unknown.")
    disk_gb: float = Field(default=0.0, ge=0, description="Size of the rows in our shape, GB, for the plan; 0 where unknown.")


class PunktDownload(Frozen):
    """The tables of nltk's sentence splitter as nltk publishes them: a zip of plain text, known by its content."""

    kind: Literal["url"] = "url"
    url: str = Field(default=PUNKT_URL, min_length=1, description="Address of the zip.")
    sha256: str = Field(default=PUNKT_SHA256, pattern=r"^[0-9a-f]{64}$", description="Its SHA-256; another zip is refused.")


class HeldOutPairs(Frozen):
    """The evaluation side of the profile's own preference pairs."""

    kind: Literal["preferences"]


HubSource = tuple[HubBackbone | HubData, Literal["model", "dataset"]]
Data = Annotated[MiniatureData | FileData | HubData, Field(discriminator="kind")]
BenchmarkData = Annotated[MiniatureData | FileData | HubData | HeldOutPairs, Field(discriminator="kind")]


class Text(Frozen):
    """The corpus on which SAEs are trained."""

    source: Data
    text_column: str = Field(default="text", description="Column or key of the text.")
    token_vectors: int = Field(
        ge=1, description="Vectors when every token of the same text counts (the token-level ablation as the paper says it)."
    )


class Preferences(Frozen):
    """The pairs on which rewards are trained."""

    source: Data
    evaluation_split: Literal["none", "prompt-sha256-mod-5"] = Field(default="none", description="Which pairs are held out.")
    skip_prompts: bool = Field(default=False, description="Leave out rows whose prompt is empty instead of refusing the file.")
    pairs: int = Field(default=0, ge=0, description="Pairs in the set, for the cost estimate; 0 where unknown.")
    tokens_per_pair: int = Field(default=1400, ge=1, description="Mean tokens of both sides, for the cost estimate.")


class Benchmark(Frozen):
    """One set of items that reward models are scored on."""

    source: BenchmarkData
    absent: Mapping[str, str] = Field(default_factory=dict, description="Subset -> why it is not at hand; shown as a dash.")
    completions: int = Field(default=0, ge=0, description="Completions to score, for the cost estimate; 0 where unknown.")


class Recorded(Frozen):
    """Conditions under which somebody scored a model; what they leave out is as in the official script."""

    scoring: Mapping[str, Any] = Field(default_factory=dict, description="Fields of ScoringConfig.")
    source: str = Field(description="Where they are recorded.")


class ReleasedModel(Frozen):
    """A reward model that others trained and published, scored with `--from released`."""

    source: Annotated[FolderBackbone | HubBackbone, Field(discriminator="kind")]
    label: str = Field(default="", description="For models that the paper's table does not have.")
    shape: Shape | None = Field(default=None, description="Sizes of its decoder as it is, for estimates; none are made without.")
    n_latents: int = Field(default=0, ge=0, description="Width of its SAE, for estimates; 0 for a model without one.")
    tokenizer: TokenizerChanges = TokenizerChanges()
    recorded: Mapping[str, Recorded] = Field(default_factory=dict, description="Name -> conditions under which it was scored.")
    conditions: str = Field(default="", description="The ones of `recorded` to take; empty for the official script's defaults.")

    @model_validator(mode="after")
    def _conditions_are_recorded(self) -> ReleasedModel:
        if self.conditions and self.conditions not in self.recorded:
            raise ValueError(f"conditions = {self.conditions!r} are not recorded; known: {', '.join(self.recorded) or 'none'}")
        return self

    @property
    def chosen(self) -> Recorded:
        """The conditions to take, with their source."""
        if not self.conditions:
            return Recorded(source="allenai/reward-bench run_v2.py: its defaults")
        return self.recorded[self.conditions]


class Start(Frozen):
    """Where stage 2 begins in place of stage 1: backbone and SAE of one checkpoint, or another project's SAE on the slot's backbone."""

    use: bool = Field(default=False, description="Whether rows with a pretrained SAE take it.")
    source: Annotated[FolderBackbone | HubBackbone, Field(discriminator="kind")]
    layout: SAELayout = Field(default="auto", description="`checkpoint` holds the backbone as well; the others an SAE alone.")
    file: str = Field(default="", description="Folder or file of the SAE inside the source; empty for its root.")
    layer: int = Field(default=0, ge=0, description="Blocks before its hidden states, for files that do not say so; 0 takes theirs.")
    is_the_papers: bool = Field(default=False, description="Whether it is the SAE that the paper's own rows were trained on.")


class Profile(Frozen):
    """A complete scale. `sae`, `reward`, `scoring`, `baseline`, `miniature` replace values of the protocol or of the config's default."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Folder of rendered tables: tables/rendered/<name>/.")
    summary: str = Field(description="One line.")
    comparable: bool = Field(description="Whether its numbers may be judged against the paper's.")
    why_not_comparable: str = Field(default="", description="Printed where comparable is false.")
    backbones: Mapping[Slot, Backbone]
    text: Text
    splitter: Annotated[PunktDownload | FileData, Field(discriminator="kind")] = Field(
        default=PunktDownload(), description="Data of nltk's sentence splitter, for sae.splitter = nltk-punkt."
    )
    preferences: Preferences
    benchmarks: Mapping[BenchmarkName, Benchmark]
    baselines: tuple[Literal["length", "bag-of-words"], ...] = Field(default=(), description="Scorers without a language model to print.")
    released: Mapping[str, ReleasedModel] = Field(default_factory=dict, description="Row -> the published model, for --from released.")
    starts: Mapping[Slot, Start] = Field(default_factory=dict, description="Slot -> where stage 2 begins in place of stage 1.")
    miniature: Mapping[str, Any] = Field(default_factory=dict, description="Fields of MiniatureConfig.")
    sae: Mapping[str, Any] = Field(default_factory=dict, description="Fields of SAETrainingConfig.")
    reward: Mapping[str, Any] = Field(default_factory=dict, description="Fields of RewardTrainingConfig.")
    scoring: Mapping[str, Any] = Field(default_factory=dict, description="Fields of ScoringConfig.")
    baseline: Mapping[str, Any] = Field(default_factory=dict, description="Fields of BaselineConfig.")
    steering: Mapping[str, Any] = Field(default_factory=dict, description="Fields of SteeringConfig.")
    contexts: Mapping[str, Any] = Field(default_factory=dict, description="Fields of ContextConfig.")
    explanation: Mapping[str, Any] = Field(default_factory=dict, description="Fields of ExplanationConfig.")
    harvest: Mapping[str, Any] = Field(default_factory=dict, description="Fields of HarvestConfig.")
    sparse: Mapping[str, Any] = Field(default_factory=dict, description="Fields of SparseRMConfig.")
    safer: Mapping[str, Any] = Field(default_factory=dict, description="Fields of SaferConfig.")
    judge: Mapping[str, Any] = Field(default_factory=dict, description="Fields of JudgeConfig.")
    resources: Mapping[str, Resources] = Field(default_factory=dict, description="Where and how fast, for each kind of job.")
    workers: int = Field(default=1, ge=1, description="Local processes side by side, each with its share of the cores.")
    why: Mapping[str, str] = Field(default_factory=dict, description="`section.field` -> why this profile replaces that value.")

    def unpinned(self) -> list[tuple[str, str]]:
        """(repository, model|dataset) of each hub source whose revision is no commit yet, each once."""
        return unpinned_of(self.hub_sources())

    def hub_sources(self) -> list[HubSource]:
        """Everything that comes from the hub: models, then data sets."""
        sources = [backbone.source for backbone in self.backbones.values()]
        sources += [start.source for start in self.starts.values() if start.use]
        models = [source for source in sources if isinstance(source, HubBackbone)]
        data = [source for source in self.data_sources() if isinstance(source, HubData)]
        return [*((one, "model") for one in models), *((one, "dataset") for one in data)]

    def sources_for_released(self, names: Collection[str]) -> list[HubSource]:
        """What scoring these released models needs from the hub: they, the benchmarks and the pairs of the baselines."""
        models = [self.released[name].source for name in names if name in self.released]
        data = [*([self.preferences.source] if self.baselines else []), *(benchmark.source for benchmark in self.benchmarks.values())]
        found: list[HubSource] = [(one, "model") for one in models if isinstance(one, HubBackbone)]
        return [*found, *((one, "dataset") for one in data if isinstance(one, HubData))]

    def gated(self) -> list[str]:
        """Hub repositories whose licence must be accepted before a download."""
        return list(dict.fromkeys(source.repository for source, _ in self.hub_sources() if source.gated))

    def data_sources(self) -> list[MiniatureData | FileData | HubData | HeldOutPairs]:
        """Where the text, the pairs and each benchmark come from."""
        return [self.text.source, self.preferences.source, *(benchmark.source for benchmark in self.benchmarks.values())]


def unpinned_of(sources: Sequence[HubSource]) -> list[tuple[str, str]]:
    """(repository, model|dataset) of each source whose revision is no commit yet, each once."""
    loose = [(source.repository, str(what)) for source, what in sources if not COMMIT.fullmatch(source.revision)]
    return list(dict.fromkeys(loose))


def pin_name(repository: str, revision: str) -> str:
    """Under which name the lock file keeps the commit of a revision: the repository, with the branch where one is named."""
    return repository if revision == UNKNOWN_REVISION else f"{repository}@{revision}"


def shipped_profiles() -> dict[str, Path]:
    """Name -> file of each profile that comes with the package."""
    folder = Path(__file__).parents[1] / "profiles"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}

"""The registry: every table and figure of the paper that can be run, as data. Its claims are in `tables/published/claims.toml`.

Rows speak in the paper's units; a profile maps them to its own backbones. Names of rows are those of `tables/published`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field

from replication.frozen import Frozen
from replication.settings.judges import TABLE1_JUDGES, JudgeRow
from replication.settings.profiles import Slot

Kind = Literal["table", "ablation", "sweep", "figure", "features"]
Axis = Literal["layer", "dim", "k"]
Product = Literal["scores", "steering", "features", "hours"]

REWARDBENCH2_COLUMNS = ("Overall", "Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")


class Row(Frozen):
    """A model that we train. What differs from the protocol is a named value."""

    name: str = Field(description="Identifier; equal to the published row's where there is one.")
    slot: Slot = Field(description="Backbone slot: the paper's 3B (`small`) or 8B (`large`).")
    layer: int = Field(ge=1, description="Blocks kept, in the paper's units.")
    width: int = Field(default=16, ge=1, description="Latents as a multiple of the hidden size.")
    k: int = Field(default=0, ge=0, description="TopK in the paper's units; 0 where the row has no sparse code.")
    label: str = Field(default="", description="For rows that the paper does not have; the published label otherwise.")
    group: str = Field(default="", description="For rows that the paper does not have; the published group otherwise.")
    note: str = Field(default="", description="Printed under the table.")
    control: bool = Field(default=False, description="A row that we add.")
    encoder: Literal["sae", "random_sae", "linear", "none"] = Field(default="sae", description="As RewardTrainingConfig.encoder.")
    same_text: bool = Field(default=False, description="SAE on as much text as the others, thus on more vectors (token level as printed).")
    method: Literal["reward", "sparse_rm", "safer"] = Field(
        default="reward", description="What is trained: blocks and head; a SparseRM head on cached states; nothing (SAFER's score)."
    )
    sparse: Mapping[str, Any] = Field(default_factory=dict, description="Fields of SparseRMConfig or SaferConfig that this row fixes.")
    sae: Mapping[str, Any] = Field(default_factory=dict, description="Fields of SAETrainingConfig that this row fixes.")
    reward: Mapping[str, Any] = Field(default_factory=dict, description="Fields of RewardTrainingConfig that this row fixes.")
    axis: Axis | None = Field(default=None, description="The axis of a sweep on which this row lies.")
    ablation: str = Field(default="", description="The ablation to which this row belongs.")
    trained_by_others: bool = Field(default=False, description="A released model of the profile, scored and never trained.")


class Experiment(Frozen):
    """A table of the paper: which models, which columns, which published numbers."""

    name: str
    kind: Kind
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    published: str = Field(description="File of `tables/published` without suffix; empty where the paper prints no numbers.")
    judges: tuple[JudgeRow, ...] = Field(default=(), description="Published rows that are judges: asked where an endpoint is given.")
    reference: str = Field(default="", description="A second file of published numbers; empty for none.")
    compared_with: str = Field(
        default="",
        description="Row from which every other row's paired difference is listed. Its own rows alone are then shown, and "
        "its baselines are fitted on as many pairs as its models.",
    )
    beside: str = Field(default="", description="A file of published numbers of another system, shown as a table of its own.")
    released: bool = Field(default=False, description="Whether `--from released` also scores models of others that the profile names.")
    product: Product = Field(
        default="scores",
        description="What its rows are trained for: rewards on the benchmarks, a steered latent, explained latents, or the hours alone.",
    )

    overlap: bool = Field(
        default=False, description="Whether its report counts near-duplicates between training pairs and the prompts of each benchmark."
    )

    words: str = Field(default="", description="What names it after `replicate`, where that is not its name.")
    part_of: str = Field(default="", description="The experiment of the registry of which it is a part; empty for one that stands there.")

    @property
    def typed(self) -> str:
        """What names it after `replicate`."""
        return self.words or self.name

    @property
    def whole(self) -> str:
        """The name by which the commands that run nothing know it, or that of which it is a part."""
        return self.part_of or self.name

    def row(self, name: str) -> Row | None:
        """The row of that name, or None: then it is published only."""
        return next((row for row in self.rows if row.name == name), None)


SARM_4B = Row(name="sarm-4b", slot="large", layer=16, k=192)
# An encoder that is not the pretrained SAE is never trained or reconstructed as one, whatever the protocol says of the SAE.
NO_SAE_OBJECTIVE = MappingProxyType({"sae_trains": False, "reconstruction_weight": 0.0})

TABLE1 = Experiment(
    name="table1",
    kind="table",
    title="Reward models on RewardBench 2",
    columns=REWARDBENCH2_COLUMNS,
    published="table1",
    reference="leaderboard",
    overlap=True,
    released=True,
    rows=(
        Row(name="sarm-1b", slot="small", layer=14, k=144),
        Row(name="sarm-2b", slot="small", layer=21, k=144),
        SARM_4B,
    ),
    judges=TABLE1_JUDGES,
)

TABLE2 = Experiment(
    name="table2",
    kind="ablation",
    title="Component ablation of SARM-4B",
    columns=REWARDBENCH2_COLUMNS,
    published="table2",
    rows=(
        Row(
            name="random-init",
            slot="large",
            layer=16,
            encoder="linear",
            ablation="random-init",
            reward={**NO_SAE_OBJECTIVE, "latents": "pre_acts"},
            note="the authors' control: a trainable linear layer with bias, not standardised, no TopK; in effect a truncated scalar model",
        ),
        Row(
            name="random-init-matched",
            slot="large",
            layer=16,
            k=192,
            encoder="random_sae",
            ablation="random-init",
            control=True,
            label="Random frozen encoder, TopK (matched)",
            reward={**NO_SAE_OBJECTIVE, "latents": "topk"},
            note="differs from SARM-4B only in that the encoder was never trained "
            "(under protocol authors also in TopK and in that it stays frozen)",
        ),
        Row(
            name="token-level",
            slot="large",
            layer=16,
            k=192,
            ablation="token-level",
            same_text=True,
            sae={"tokens": "all"},
            note="as much text as SARM-4B, so many more training vectors",
        ),
        Row(
            name="token-level-matched",
            slot="large",
            layer=16,
            k=192,
            ablation="token-level",
            control=True,
            label="Token level, as many vectors",
            sae={"tokens": "all"},
            note="as many training vectors as SARM-4B, so much less text",
        ),
        SARM_4B,
        Row(
            name="scalar-trunc",
            slot="large",
            layer=16,
            encoder="none",
            control=True,
            label="Scalar head, truncated",
            reward={**NO_SAE_OBJECTIVE, "latents": "pre_acts"},
            note="tells the cost of the sparse code from the cost of the depth",
        ),
        Row(
            name="scalar-full",
            slot="large",
            layer=32,
            encoder="none",
            control=True,
            label="Scalar head, full depth",
            reward={**NO_SAE_OBJECTIVE, "latents": "pre_acts"},
            note="a conventional reward model",
        ),
    ),
)


def _sweep_rows() -> tuple[Row, ...]:
    layers = [Row(name=f"layer-{layer}", slot="small", layer=layer, k=144, axis="layer") for layer in (7, 10, 14, 21, 28)]
    widths = [Row(name=f"dim-{width}", slot="small", layer=14, width=width, k=144, axis="dim") for width in (8, 12, 16, 24, 32)]
    ks = [Row(name=f"k-{k}", slot="small", layer=14, k=k, axis="k") for k in (48, 96, 144, 196, 240)]
    return (*layers, *widths, *ks)


TABLE3 = Experiment(
    name="table3",
    kind="sweep",
    title="SAE layer, width and sparsity",
    columns=REWARDBENCH2_COLUMNS,
    published="table3",
    rows=_sweep_rows(),
)

TABLE4 = Experiment(
    name="table4",
    kind="table",
    title="Compute of the two training stages",
    columns=("GPU-hours",),
    published="table4",
    product="hours",
    rows=(SARM_4B,),
)

FIGURE3 = Experiment(
    name="figure3",
    kind="figure",
    title="One latent steered: rewards before and after",
    columns=("before", "after"),
    published="figure3",
    product="steering",
    overlap=True,
    rows=(SARM_4B,),
)

RANDOM_MATCHED = next(row for row in TABLE2.rows if row.name == "random-init-matched")

FEATURES = Experiment(
    name="features",
    kind="features",
    title="What the latents with the largest head weights stand for",
    columns=("explained", "score", "detection"),
    published="",
    product="features",
    rows=(SARM_4B, RANDOM_MATCHED),
)

SPARSE_RM, CONTROLS_OF_SPARSE_RM, OTHERS = "SparseRM", "Controls of SparseRM", "Other scores"


def _scalar(name: str) -> Row:
    return next(row for row in TABLE2.rows if row.name == name)


def _sparse(name: str, label: str, group: str, note: str, **sparse: Any) -> Row:
    """A head on the states and the SAE of SARM-4B."""
    return SARM_4B.model_copy(
        update={"name": name, "label": label, "group": group, "note": note, "method": "sparse_rm", "sparse": sparse, "control": True}
    )


RELATED = Experiment(
    name="related",
    kind="table",
    title="Neighbours of SARM on the same pairs and benchmarks",
    columns=REWARDBENCH2_COLUMNS,
    published="table1",
    compared_with=SARM_4B.name,
    beside="related",
    rows=(
        SARM_4B,
        _scalar("scalar-trunc"),
        _scalar("scalar-full"),
        _sparse("sparse-rm", "SparseRM", SPARSE_RM, "frozen backbone, the SAE of SARM-4B, top directions, margin loss", whole=True),
        _sparse("sparse-rm-1k", "SparseRM, 1,000 pairs", SPARSE_RM, "the first 1,000 pairs; its paper has as many a task", max_pairs=1000),
        _sparse("sparse-rm-linear", "SparseRM, linear head", SPARSE_RM, "some texts say linear", head="linear"),
        _sparse("sparse-rm-bt", "SparseRM, BT loss", SPARSE_RM, "Bradley-Terry instead of the margin", loss="bradley_terry"),
        _sparse("sparse-rm-bce", "SparseRM, BCE loss", SPARSE_RM, "each reply alone against its label", loss="bce"),
        _sparse(
            "sparse-rm-activations", "Raw SAE activations", CONTROLS_OF_SPARSE_RM, "the same latents' activations instead of projections",
            inputs="activations",
        ),
        _sparse("sparse-rm-random", "Random directions", CONTROLS_OF_SPARSE_RM, "as many random unit vectors", directions="random"),
        _sparse(
            "sparse-rm-random-columns", "Random decoder columns", CONTROLS_OF_SPARSE_RM, "as many decoder columns, unranked",
            directions="random_columns",
        ),
        _sparse("sparse-rm-dense", "Dense head", CONTROLS_OF_SPARSE_RM, "the same head on the whole state", inputs="dense"),
        Row(
            name="safer", slot="large", layer=16, k=192, control=True, method="safer", label="SAFER score", group=OTHERS,
            sparse={"whole": True}, note="nothing is trained: signed sum of the latents that differ most between the sides",
        ),
    ),
)  # fmt: skip

EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {one.name: one for one in (TABLE1, TABLE2, TABLE3, TABLE4, FIGURE3, FEATURES, RELATED)}
)


def ablation_names() -> tuple[str, ...]:
    """Names that `replicate ablation --name` knows."""
    return tuple(dict.fromkeys(row.ablation for one in EXPERIMENTS.values() for row in one.rows if row.ablation))


def ablation(name: str) -> Experiment:
    """Table 2 cut down to one ablation beside the full model."""
    rows = tuple(row for row in TABLE2.rows if row.ablation == name or row.name == SARM_4B.name)
    return _part(TABLE2, f"ablation-{name}", f"Ablation: {name}", rows, words=f"ablation --name {name}")


def sweep(axis: Axis, values: tuple[int, ...]) -> Experiment:
    """Table 3 cut down to one axis, and to those values (in the paper's units) where any are given."""
    rows = tuple(row for row in TABLE3.rows if row.axis == axis and (not values or int(row.name.rpartition("-")[2]) in values))
    some = f" --values {','.join(map(str, values))}" if values else ""
    return _part(TABLE3, f"sweep-{axis}", f"Sweep: {axis}", rows, words=f"sweep --axis {axis}{some}")


def _part(experiment: Experiment, name: str, title: str, rows: tuple[Row, ...], *, words: str) -> Experiment:
    changed = {"name": name, "title": title, "rows": rows, "words": words, "part_of": experiment.name}
    return experiment.model_copy(update=changed)


def sweep_values(axis: Axis) -> tuple[int, ...]:
    """The values that the paper prints on an axis."""
    return tuple(int(row.name.rpartition("-")[2]) for row in TABLE3.rows if row.axis == axis)

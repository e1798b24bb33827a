"""Every reader of the campaign: its sample, which of its files are damaged in which ways, and the command that reads them."""

from __future__ import annotations

import fnmatch
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import hostile_containers
import hostile_values
from hostile_bytes import ANY, TEXT, Change

# What a case does: the place of its files, its store, and what it may draw. Gives the arguments, or the work where no command has them.
Ask = Callable[[Path, Path, random.Random], Sequence[str] | Callable[[], int]]
VALUES_IN_TEN = 6


@dataclass(frozen=True)
class Reader:
    """`damages` by glob: what is done inside such a file; a file of text is also damaged as text, every file as bytes."""

    name: str
    cases: int
    sample: str
    ask: Ask
    damages: Mapping[str, Sequence[Change]] = field(default_factory=dict)
    text: bool = True
    settle: Callable[[Path, random.Random], Mapping[str, Sequence[Change]]] | None = None

    def settled(self, folder: Path, chance: random.Random) -> dict[Path, Sequence[Change]]:
        """Choose among the sample's variants; gives the files that may be damaged, and how inside."""
        damages = {**self.damages, **(self.settle(folder, chance) if self.settle else {})}
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path: inside for glob, inside in damages.items() for path in files if fnmatch.fnmatch(str(path.relative_to(folder)), glob)}

    def damage(self, files: Mapping[Path, Sequence[Change]], chance: random.Random) -> tuple[Path, str]:
        """Damage one of these files; gives it and what was done."""
        path = chance.choice(sorted(files))
        inside = files[path]
        changes = inside if inside and chance.randrange(10) < VALUES_IN_TEN else TEXT if self.text else ANY
        return path, chance.choice(changes)(path, chance)


def _plan(folder: Path, store: Path, chance: random.Random) -> Sequence[str]:
    return ["plan", "table1", "--profile", str(folder / "tiny.toml"), "--store", str(store)]


def _plan_on_cluster(folder: Path, store: Path, chance: random.Random) -> Sequence[str]:
    return [*_plan(folder, store, chance), "--cluster", str(folder / "cluster.toml")]


def _alone(make: Callable[[], object]) -> Callable[[], int]:
    """A job of its own, as the commands run one, for what only whole runs would read otherwise."""

    def work() -> int:
        import typer

        from replication.cli.app import _report_error

        try:
            make()
        except typer.Exit as end:
            return end.exit_code
        except Exception as error:
            return _report_error(error)
        return 0

    return work


def _prepare(shape: str, file: str) -> Ask:
    """Rows of a file brought into our shape, as a profile's `source` does."""

    def ask(folder: Path, store: Path, chance: random.Random) -> Callable[[], int]:
        def make() -> None:
            from replication.cli.files import run_alone
            from sarm.config.data import DataConfig
            from sarm.job import Job
            from sarm.store.artifacts import ArtifactStore

            artifacts, path = ArtifactStore(store), folder / file
            config = DataConfig(shape=shape, origin="file", revision=artifacts.fingerprint(path))  # type: ignore[arg-type]
            run_alone(Job(config=config, locations={"source": str(path)}, label=f"{shape} of {file}"), artifacts)

        return _alone(make)

    return ask


def _import_sae(folder: Path, store: Path, chance: random.Random) -> Callable[[], int]:
    """The SAE of the folder `sae`, which the campaign has put there."""
    place = folder / "sae"

    def make() -> None:
        from replication.cli.files import run_alone
        from sarm.config.weights import ImportedSAEConfig
        from sarm.job import Job
        from sarm.store.artifacts import ArtifactStore

        artifacts = ArtifactStore(store)
        kind = (folder / "kind.txt").read_text(encoding="utf-8")
        layout = {"own": "ours", "authors": "authors-file"}.get(kind, "auto")
        width = 16 if layout != "auto" else 8
        file = next((one.name for one in sorted(place.iterdir()) if one.name.endswith(".pt")), "") if layout == "authors-file" else ""
        fields = {"origin": "folder", "layout": layout, "revision": artifacts.fingerprint(place), "file": file}
        config = ImportedSAEConfig(
            **fields, layer=2 if layout != "auto" else 4, stated_layer=4 if layout == "auto" else 0, hidden_size=width
        )
        run_alone(Job(config=config, locations={"source": str(place)}, label=f"SAE {place.name}"), artifacts)

    return _alone(make)


def _reward(folder: Path, store: Path, chance: random.Random) -> Sequence[str]:
    return [
        "reward",
        "--model",
        str(folder / "model"),
        "--input",
        str(folder / "spoken.jsonl"),
        "--max-length",
        "64",
        "--store",
        str(store),
    ]


def _steered(folder: Path, store: Path, chance: random.Random) -> Sequence[str]:
    return [*_reward(folder, store, chance), "--steer", str(folder / "steering.json")]


def _compare(folder: Path, store: Path, chance: random.Random) -> Sequence[str]:
    return ["compare-weights", str(folder / "first"), str(folder / "second"), "--store", str(store)]


def _score(folder: Path, store: Path, chance: random.Random) -> Sequence[str]:
    file = folder / (folder / "kind.txt").read_text(encoding="utf-8")
    more = ["--json"] if chance.random() < 0.5 else []
    return ["score", str(file), "--benchmark", "rmbench" if file.name.startswith("rmbench") else "rewardbench2", *more]


def _results(folder: Path, store: Path, chance: random.Random) -> Sequence[str]:
    results, row = str(folder / "mini" / "table1.results.json"), (folder / "row.txt").read_text(encoding="utf-8")
    kind = (folder / "kind.txt").read_text(encoding="utf-8")
    form = chance.choice(("text", "md", "json", "junit"))
    return {
        "official.json": ["diff", "table1", "--results", str(folder / "official.json"), "--row", row, "--format", form],
        "mini/table1.results.json": [
            ["diff", "table1", "--results", results, "--format", form],
            ["diff", "table1", "--results", str(folder / "kept.results.json"), "--against", results, "--format", form],
        ][chance.randrange(2)],
        "mini/table1/": [
            "table1",
            "--from",
            "scores",
            "--scores",
            str(folder / "mini"),
            "--out",
            str(folder / "out"),
            "--store",
            str(store),
        ],
        "theirs.jsonl": ["diff", "table1", "--results", results, "--row", row, "--items", "--against", str(folder / "theirs.jsonl")],
    }[kind]


def _figure(folder: Path, store: Path, chance: random.Random) -> Sequence[str]:
    return ["figure3", "--from", "scores", "--scores", str(folder), "--out", str(folder / "out"), "--store", str(store)]


def judging(folder: Path, store: Path, *, more: Sequence[str]) -> list[str]:
    """A judge on the tiny profile; `store` has its data."""
    out = ["--store", str(store), "--out", str(folder / "out"), "--yes"]
    return ["table1", "--profile", str(folder / "tiny.toml"), "--judge", "toy=toy", "--rows", "toy", *more, *out]


def _recorded(folder: Path, store: Path, chance: random.Random) -> Sequence[str]:
    return judging(folder, store, more=["--answers", str(folder / "answers.json")])


def _import_archive(folder: Path, store: Path, chance: random.Random) -> Sequence[str]:
    return ["store", "import", str(folder / "archive.tar.gz"), "--store", str(store)]


def _no_file(folder: Path, store: Path, chance: random.Random) -> Sequence[str]:
    raise AssertionError("an endpoint is asked by the campaign, which knows its address")


def _one_model(folder: Path, chance: random.Random) -> Mapping[str, Sequence[Change]]:
    (folder / chance.choice(("authors", "own", "sharded"))).rename(folder / "model")
    return {}


def _steered_model(folder: Path, chance: random.Random) -> Mapping[str, Sequence[Change]]:
    (folder / "own").rename(folder / "model")
    return {}


def _one_pair(folder: Path, chance: random.Random) -> Mapping[str, Sequence[Change]]:
    kind = chance.choice(sorted(one.name for one in (folder / "first").iterdir()))
    for side in ("first", "second"):
        (folder / side / kind).rename(folder / "kept")
        shutil.rmtree(folder / side)
        (folder / "kept").rename(folder / side)
    return {}


def _one_sae(folder: Path, chance: random.Random) -> Mapping[str, Sequence[Change]]:
    # The format before 6.0 names another layer; its config is read by the same code.
    kind = chance.choice(sorted(one.name for one in folder.iterdir() if one.is_dir() and one.name != "lens-topk-before-6"))
    (folder / kind).rename(folder / "sae")
    (folder / "kind.txt").write_text(kind, encoding="utf-8")
    return {}


def _one_scored(folder: Path, chance: random.Random) -> Mapping[str, Sequence[Change]]:
    kind = chance.choice(sorted(one.name for one in folder.iterdir()))
    (folder / "kind.txt").write_text(kind, encoding="utf-8")
    return {kind: LINES if kind.endswith(".jsonl") else VALUE}


def _one_result(folder: Path, chance: random.Random) -> Mapping[str, Sequence[Change]]:
    shutil.copyfile(folder / "mini" / "table1.results.json", folder / "kept.results.json")
    kind = chance.choice(("official.json", "mini/table1.results.json", "mini/table1.results.json", "mini/table1/", "theirs.jsonl"))
    (folder / "kind.txt").write_text(kind, encoding="utf-8")
    if kind == "mini/table1/":
        return {"mini/table1/*.jsonl": LINES, "mini/table1.results.json": VALUE}
    return {kind: LINES if kind.endswith(".jsonl") else VALUE}


VALUE, LINES, TOML = (hostile_values.json_file,), (hostile_values.json_lines,), (hostile_values.toml_file,)
TENSORS = (hostile_containers.safetensors_header, hostile_containers.safetensors_values)
PARQUET = (hostile_containers.parquet_values,)
SAE_FILES = {
    "sae/*.json": VALUE,
    "sae/*.safetensors": TENSORS,
    "sae/*.pt": (hostile_containers.torch_values,),
    "sae/*.npz": (hostile_containers.numpy_values,),
}
TEMPLATES = (
    *(
        "",
        "{",
        "{{ 1 / 0 }}",
        "{% for %}",
        "{{ messages[99].content }}",
        "{{ raise_exception('\x1b[31mno') }}",
        "{{ ''.__class__.__mro__ }}",
    ),
    *(
        "{% include '/etc/passwd' %}",
        "{{ undefined_thing.x }}",
        "always the same",
        "{{ bos_token * 100000 }}",
        "{{ messages | tojson * 50 }}",
    ),
    *("{% for i in range(10**7) %}x{% endfor %}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ messages.clear() }}", "\x00"),
    *("{{ cycler.__init__.__globals__.os.system('touch executed') }}", "{{ 10 ** 10 ** 10 }}", "{% set x = 'a' * 10**9 %}{{ x }}"),
)


def _template(path: Path, chance: random.Random) -> str:
    text = chance.choice(TEMPLATES)
    path.write_text(text, encoding="utf-8")
    return repr(text)


MODEL_FILES = {"model/config.json": VALUE, "model/*.safetensors": TENSORS, "model/*.json": VALUE}
TOKENIZER_FILES = {"model/tokenizer.json": VALUE, "model/tokenizer_config.json": VALUE, "model/chat_template.jinja": (_template,)}
READERS: tuple[Reader, ...] = (
    Reader("profile", 100, "profile", _plan, {"tiny.toml": TOML}),
    Reader("cluster", 70, "cluster", _plan_on_cluster, {"cluster.toml": TOML}),
    Reader("pairs", 70, "data", _prepare("pairs", "pairs.jsonl"), {"pairs.jsonl": LINES}),
    Reader("rewardbench2", 50, "data", _prepare("rewardbench2", "rewardbench2.jsonl"), {"rewardbench2.jsonl": LINES}),
    Reader("rmbench", 50, "data", _prepare("rmbench", "rmbench.json"), {"rmbench.json": VALUE}),
    Reader("texts", 40, "data", _prepare("text", "text.jsonl"), {"text.jsonl": LINES}),
    Reader("parquet-pairs", 40, "data", _prepare("pairs", "pairs.parquet"), {"pairs.parquet": PARQUET}, text=False),
    Reader("parquet-texts", 30, "data", _prepare("text", "text.parquet"), {"text.parquet": PARQUET}, text=False),
    Reader("conversations", 60, "models", _reward, {"spoken.jsonl": LINES}, settle=_one_model),
    Reader("checkpoint", 90, "models", _reward, MODEL_FILES, text=False, settle=_one_model),
    Reader("tokenizer", 50, "models", _reward, TOKENIZER_FILES, settle=_one_model),
    Reader("edit", 40, "models", _steered, {"steering.json": VALUE}, settle=_steered_model),
    Reader("weights", 40, "published", _compare, {"second/*.json": VALUE, "second/*.safetensors": TENSORS}, text=False, settle=_one_pair),
    Reader("sae", 90, "saes", _import_sae, SAE_FILES, text=False, settle=_one_sae),
    Reader("score", 80, "scored", _score, settle=_one_scored),
    Reader("results", 80, "results", _results, settle=_one_result),
    Reader("steering", 30, "steering", _figure, {"figure3_authors_rewards.json": VALUE}),
    Reader("answers", 30, "answers", _recorded, {"answers.json": VALUE}),
    Reader("archive", 50, "archive", _import_archive, {"archive.tar.gz": (hostile_containers.archive_members,)}, text=False),
    Reader("endpoint", 50, "answers", _no_file),
)

"""The command that makes one page of all rendered tables, with what lies beside them and in the store. It starts no job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from replication.cli.judgement import own_results
from replication.cli.options.declared import DEFAULT_STORE, MISSING_RESULTS, RENDERED, StoreOption
from replication.usage_problems import UsageProblems
from sarm.store.artifacts import ArtifactStore
from sarm.store.whole_files import whole_file, write_whole

if TYPE_CHECKING:
    from replication.report.cells import Report
    from replication.report.claims.definitions import ClaimResult
    from replication.report.render.parts.shown_pictures import Shown
    from sarm.job import JobError


def report(
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("report.html"),
    rendered: Annotated[Path, typer.Option("--rendered", help="Folder of rendered tables.")] = RENDERED,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """One page of all rendered tables, pictures, claims, latents and costs. Starts nothing; exit code 5 when nothing was rendered.

    What is not what it should be is left out and told, on the page too; then the exit code is that of the problem.
    """
    from replication.report.claims.published import published_claims  # noqa: PLC0415 - rendering is not needed by --help
    from replication.report.render.explorer.embedded import explorer_of  # noqa: PLC0415 - as above
    from replication.report.render.page import page  # noqa: PLC0415 - as above
    from replication.report.render.parts.addresses import address  # noqa: PLC0415 - as above
    from replication.report.render.parts.shown_pictures import shown  # noqa: PLC0415 - as above
    from replication.report.render.pictures.drawn import draw_claims  # noqa: PLC0415 - as above
    from replication.report.verdicts.diff import load_results  # noqa: PLC0415 - as above

    files = sorted(path for path in rendered.glob("*/*.json") if not path.name.endswith(".results.json"))
    if not files:
        typer.echo(f"replicate: nothing was rendered in {rendered}; run: replicate table1", err=True)
        raise typer.Exit(MISSING_RESULTS)
    reports = [load_results(path) for path in files]
    own = _own_claims(reports, store)
    claims = {name: [one for _, one in said] for name, said in own.items()}
    with TemporaryDirectory() as scratch:
        drawn = draw_claims(published_claims(), claims, Path(scratch))
        forest = shown(drawn[0]) if drawn else None
        _leave(drawn, rendered)
    explorer, unread = explorer_of(ArtifactStore(store), reports)
    beside = {address(one): _beside(path, one) for path, one in zip(files, reports, strict=True)}
    text = page(reports, extra=[explorer], drawn=beside, forest=forest, own=own)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, text)
    typer.echo(f"{len(files)} reports in {out}", err=True)
    _tell(unread)


def _leave(drawn: Sequence[Path], rendered: Path) -> None:
    """The claims' picture beside the tables too, where that folder can be written; the page has it all the same."""
    try:
        for file in drawn:
            with whole_file(rendered / file.name) as partial:
                partial.write_bytes(file.read_bytes())
    except OSError as error:
        typer.echo(f"note: {drawn[0].name} is in the page alone, {rendered} cannot be written ({error.strerror or error})", err=True)


def _beside(path: Path, found: Report) -> list[Shown]:
    """The pictures that were drawn with a table: those of its name, and of Figure 3 every seed and the authors' own."""
    from replication.report.render.parts.shown_pictures import shown  # noqa: PLC0415 - as above
    from replication.report.render.pictures.drawn import NAMES  # noqa: PLC0415 - as above

    files = [path.with_name(f"{found.experiment}-{name}.svg") for name in NAMES]
    if found.experiment == "figure3":
        names = ("", *(f"-seed{seed}" for seed in found.seeds), "-authors")
        files = [*(path.with_name(f"{found.experiment}{name}.svg") for name in names), *files]
    return [one for file in files if (one := shown(file, title=f"{found.title}: {file.stem}")) is not None]


def _tell(unread: Sequence[JobError]) -> None:
    """What the page is without. Raises typer.Exit with the first one's code."""
    for problem in unread:
        typer.echo(f"replicate: left out of the page: {problem}", err=True)
    if unread:
        raise typer.Exit(unread[0].exit_code)


def _own_claims(reports: Sequence[Report], store: Path) -> Mapping[str, list[tuple[str, ClaimResult]]]:
    """What the store says of each claim for every profile and seeds of the reports, with the run that says it."""
    found: dict[str, list[tuple[str, ClaimResult]]] = {}
    runs = dict.fromkeys((one.profile, ",".join(map(str, one.seeds))) for one in reports if one.seeds and one.regime == "retrained")
    for profile, seeds in runs if store.is_dir() else ():
        typer.echo(f"claims from the store: profile {profile}, seeds {seeds}", err=True)
        try:
            own, _ = own_results(profile=profile, seeds=seeds, store=store)
        except UsageProblems:
            # Tables outlive the profile that made them: a page of them says what it can.
            continue
        for name, results in own.items():
            found.setdefault(name, []).extend((f"{profile}, seeds {seeds}, protocol {one.protocol}", one) for one in results)
    return found


COMMANDS: Mapping[str, Callable[..., None]] = {"report": report}

"""Pins the hub revisions of a profile and brings its weights and data into the store; for a machine with a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HTTPError, OfflineModeIsEnabled, RevisionNotFoundError

from replication.launch.interface import Watch
from replication.launch.local import LocalLauncher
from replication.lock_files import lock_fetched, write_pins
from replication.plan.steps import Plan, brought_in
from replication.recipes.jobs import BROUGHT_IN
from replication.settings.profiles import COMMIT, UNKNOWN_REVISION, HubSource, pin_name
from sarm.job import EnvironmentProblem, IntegrityProblem
from sarm.store.artifacts import ArtifactStore

# (repository, model|dataset, revision) to the commit that the revision is at.
Resolve = Callable[[str, str, str], str]
SECONDS = 30.0


def hub_commit(repository: str, what: str, revision: str) -> str:
    """The commit of a branch of a hub repository, of its main one for `unknown`.

    Raises EnvironmentProblem without a network or a permission, IntegrityProblem for a branch that is not there.
    """
    page = f"{constants.ENDPOINT}/{'datasets/' if what == 'dataset' else ''}{repository}"
    try:
        wanted = None if revision == UNKNOWN_REVISION else revision
        found = HfApi().repo_info(repository, repo_type=what, revision=wanted, timeout=SECONDS)
    except GatedRepoError as error:
        raise EnvironmentProblem(f"{what} {repository} is gated: accept its licence at {page}, set HF_TOKEN, and run this again") from error
    except RevisionNotFoundError as error:
        raise IntegrityProblem(f"{what} {repository}: the hub has no revision {revision!r}; correct it in the profile") from error
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise EnvironmentProblem(
            f"{what} {repository}: cannot be reached ({type(error).__name__}); "
            f"run `replicate fetch` with a network, and HF_TOKEN for gated models (see {page})"
        ) from error
    if not found.sha:
        raise EnvironmentProblem(f"{what} {repository}: the hub names no commit; run `replicate fetch` again")
    return str(found.sha)


def pin(sources: Sequence[HubSource], store: ArtifactStore, *, resolve: Resolve = hub_commit) -> Mapping[str, str]:
    """Write the commits of loose revisions to the store's lock file, whole or not at all; gives the new ones."""
    loose = [(source, what) for source, what in sources if not COMMIT.fullmatch(source.revision)]
    new = {pin_name(one.repository, one.revision): resolve(one.repository, what, one.revision) for one, what in loose}
    if new:
        write_pins(store, new)
    return new


def fetch_planned(planned: Plan, store: ArtifactStore, *, watch: Watch, command: str) -> int:
    """Run the jobs of a plan that bring something in and lock what came; gives the exit code. Raises IntegrityProblem.

    What a failure left undone is fetched by the same command; what came before it is locked already.
    """
    jobs = brought_in(planned.steps)
    code = LocalLauncher(command=command, keep_going=True).launch(jobs, store, watch) if jobs else 0
    lock_fetched(store, [step.job for step in planned.steps if step.job.kind in BROUGHT_IN and store.has(step.job)])
    return code


def downloads(planned: Sequence[Plan]) -> list[str]:
    """What would be brought in, one line each, with its size where it is known."""
    costs = [(step.job, step.cost) for one in planned for step in one.steps]
    todo = {job.key for one in planned for job in brought_in(one.steps)}
    return [
        f"{job.kind} {job.label} ({job.short_key})" + (f", {cost.download_gb:.2f} GB" if cost.download_gb else "")
        for job, cost in costs
        if job.key in todo
    ]

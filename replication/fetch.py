"""Pins the hub revisions of a profile and brings its weights and data into the store; for a machine with a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from replication.launch.launcher import Watch
from replication.launch.local import LocalLauncher
from replication.planning import Plan, brought_in
from replication.profiles import Profile
from replication.run_options import PINS_FILE, read_pins
from sarm.artifacts import ArtifactStore
from sarm.checksums import write_whole
from sarm.job import EnvironmentProblem

Resolve = Callable[[str, str], str]


def hub_commit(repository: str, what: str) -> str:
    """The commit that a hub repository's main branch is at. Raises EnvironmentProblem without a network or a permission."""
    try:
        found = HfApi().repo_info(repository, repo_type=what)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        raise EnvironmentProblem(
            f"{what} {repository}: cannot be reached ({type(error).__name__}); "
            "run `replicate fetch` with a network, and HF_TOKEN for gated models"
        ) from error
    if not found.sha:
        raise EnvironmentProblem(f"{what} {repository}: the hub names no commit")
    return found.sha


def pin(profile: Profile, store: ArtifactStore, *, resolve: Resolve = hub_commit) -> Mapping[str, str]:
    """Write the commits of a profile's unpinned repositories to the store's lock file, whole or not at all; gives the new ones."""
    new = {repository: resolve(repository, what) for repository, what in profile.unpinned()}
    if new:
        store.root.mkdir(parents=True, exist_ok=True)
        pins = dict(sorted({**read_pins(store), **new}.items()))
        write_whole(store.root / PINS_FILE, json.dumps(pins, indent=2) + "\n")
    return new


def fetch(planned: Plan, store: ArtifactStore, *, watch: Watch, command: str) -> int:
    """Run the jobs of a plan that bring something in; gives the exit code."""
    jobs = brought_in(planned.steps)
    return LocalLauncher(command=command).launch(jobs, store, watch) if jobs else 0


def downloads(planned: Sequence[Plan]) -> list[str]:
    """What would be brought in, one line each."""
    return [f"{job.kind} {job.label} ({job.short_key})" for one in planned for job in brought_in(one.steps)]

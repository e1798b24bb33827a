"""Files of a hub repository at a pinned commit, each checked against the checksum that the hub states for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import filter_repo_objects

from sarm.job import EnvironmentProblem, IntegrityProblem, JobError
from sarm.store.whole_files import NO_ROOM, write_whole

RECORD = "hub.json"
CACHE = ".cache"
BLOCK = 1 << 20
FORBIDDEN = (401, 403)


class HubFile(NamedTuple):
    """A file as the hub states it: its path, its bytes, and SHA-256 (large files) or git's SHA-1 (small ones), the other empty."""

    path: str
    size: int
    sha256: str
    git_sha1: str


def download(
    repository: str, revision: str, target: Path, *, what: Literal["model", "dataset"], patterns: Sequence[str] | None = None
) -> dict[str, Any]:
    """Bring the files into `target`, those that are whole already left alone; gives the record of what came, `RECORD` as a value.

    Raises EnvironmentProblem when the hub cannot be reached, or the repository is gated or absent; IntegrityProblem when the
    commit is not there, or a file is not what the hub says it is (such a file is removed, so that the next run fetches it again).
    """
    where = f"{what} {repository}@{revision[:12]}"
    try:
        listed = _listed(repository, revision, what=what, patterns=patterns)
        snapshot_download(
            repository, revision=revision, repo_type=what, local_dir=target, allow_patterns=None if patterns is None else list(patterns)
        )
    except (HTTPError, OSError, LocalEntryNotFoundError) as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        raise problem_of(error, where, repository, what) from error
    digests = {file.path: _checked(target / file.path, file, where) for file in listed}
    return {
        "repository": repository,
        "type": what,
        "revision": revision,
        "files": {file.path: {"sha256": digests[file.path], "bytes": file.size} for file in listed},
    }


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Keep what was downloaded beside what was made of it."""
    write_whole(folder / RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n")


def problem_of(error: Exception, where: str, repository: str, what: str) -> JobError:
    """What an error of the hub means, in one line with the next step."""
    page = f"{constants.ENDPOINT}/{'datasets/' if what == 'dataset' else ''}{repository}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError):
        return EnvironmentProblem(f"{where} is gated: accept its licence at {page}, set HF_TOKEN, then run `replicate fetch`")
    if isinstance(error, RevisionNotFoundError):
        fix = "correct the revision in the profile, or delete its line in the store's revisions.json, and run `replicate fetch`"
        return IntegrityProblem(f"{where}: the hub has no such commit; {fix}")
    if isinstance(error, HfHubHTTPError) and not isinstance(error, RepositoryNotFoundError) and status in FORBIDDEN:
        return EnvironmentProblem(f"{where}: HF_TOKEN has no access ({status}); see {page}, then run `replicate fetch`")
    if isinstance(error, RepositoryNotFoundError):
        return EnvironmentProblem(f"{where}: no such repository on the hub, or it is private or gated and HF_TOKEN is not set; see {page}")
    reason = "the network is switched off (HF_HUB_OFFLINE)" if isinstance(error, OfflineModeIsEnabled) else type(error).__name__
    return EnvironmentProblem(f"{where} cannot be downloaded ({reason}); run `replicate fetch` where there is a network")


def _listed(repository: str, revision: str, *, what: str, patterns: Sequence[str] | None) -> list[HubFile]:
    tree = HfApi().list_repo_tree(repository, recursive=True, revision=revision, repo_type=what)
    files = {one.path: one for one in tree if isinstance(one, RepoFile)}
    wanted = filter_repo_objects(files.values(), allow_patterns=None if patterns is None else list(patterns), key=lambda one: one.path)
    return [
        HubFile(one.path, one.lfs.size if one.lfs else one.size, one.lfs.sha256 if one.lfs else "", "" if one.lfs else one.blob_id)
        for one in sorted(wanted, key=lambda one: one.path)
    ]


def _checked(path: Path, file: HubFile, where: str) -> str:
    """The SHA-256 of a file that is what the hub states. Raises IntegrityProblem and removes it otherwise."""
    if not path.is_file():
        raise IntegrityProblem(f"{where}: {file.path} did not arrive; run `replicate fetch` again")
    sha256, git = hashlib.sha256(), hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as content:
        while block := content.read(BLOCK):
            sha256.update(block)
            git.update(block)
    found = sha256.hexdigest()
    expected, got = (file.sha256, found) if file.sha256 else (file.git_sha1, git.hexdigest())
    if expected != got:
        path.unlink()
        raise IntegrityProblem(
            f"{where}: {file.path} has checksum {got[:12]}, the hub says {expected[:12]}; it was removed: run `replicate fetch` again"
        )
    return found

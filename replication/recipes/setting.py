"""A setting: all that decides which jobs an experiment needs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from replication.settings.experiments import Experiment
from replication.settings.judges import NOBODY, Judging
from replication.settings.overrides import Overrides
from replication.settings.profiles import Profile
from replication.settings.protocols import RELEASED_DEVIATIONS, Choice, Deviation, Protocol
from replication.settings.value_sources import plain_values, sourced_values
from sarm.config.steering import HeadEdit
from sarm.job import Job
from sarm.store.checksums import fingerprint

Source = Literal["train", "released"]
DEFAULT_STORE = Path("artifacts")


def command_line(command: str, options: Sequence[tuple[str, str]], *, without: Sequence[str] = ()) -> str:
    """What to type to run a command with these options, `(name, value)` each; `without` names those that the command does not take."""
    return shlex.join(["replicate", *command.split(), *(part for name, value in options if name not in without for part in (name, value))])


@dataclass(frozen=True)
class Setting:
    """All that decides which jobs an experiment needs.

    `rows` are comma-separated patterns (empty: all); `overrides` come from `--set`; `attempt` > 0 is `--fresh`;
    `digest` gives the SHA-256 of a local file or folder. `endpoint` (settings of a chat endpoint, a JSON file) and `answers`
    (recorded ones) are files for explanations and judgements, `spending` is the folder in which the jobs of a run keep what they spent at
    the endpoint; `authors` holds the rewards behind the paper's Figure 3; empty for none.
    `options` are the options to type, `(name, value)` each, for the same setting again in another command; empty where nobody typed any.
    `source`: train our own models, or score released checkpoints. `judging` says which judges are asked, `stored` whether an artifact is
    there: answers once paid for are shown without being asked for. `steering` is the edit of a
    steering file, for Figure 3 in place of its rule's.
    """

    experiment: Experiment
    profile: Profile
    protocol: Protocol
    seeds: tuple[int, ...] = (0,)
    rows: str = ""
    overrides: Overrides = field(default_factory=dict)
    attempt: int = 0
    digest: Callable[[Path], str] = fingerprint
    endpoint: str = ""
    spending: str = ""
    answers: str = ""
    authors: str = ""
    source: Source = "train"
    options: tuple[tuple[str, str], ...] = ()
    judging: Judging = NOBODY
    stored: Callable[[Job], bool] = lambda job: False
    steering: HeadEdit | None = None

    def answering(self, job: Job, *, recorded: bool) -> dict[str, str]:
        """Where a job finds who answers, by name of its location: recorded answers, or an endpoint and where to keep what was spent."""
        if recorded:
            return {"answers": self.answers}
        # `--fresh` is a run of its own.
        spent = f"{self.spending}/{self.attempt}/{job.kind}-{job.short_key}.json" if self.spending else ""
        return {name: place for name, place in (("endpoint", self.endpoint), ("spent", spent)) if place}

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """Where we do not do what a text or the released code says: in training and scoring, of released models in scoring alone."""
        return RELEASED_DEVIATIONS if self.source == "released" else self.protocol.deviations

    @property
    def profile_option(self) -> str:
        """What to type after --profile to get this profile again."""
        return dict(self.options).get("--profile", self.profile.name)

    @property
    def run(self) -> str:
        """What to type to run it."""
        return self.command(self.experiment.typed)

    def command(self, command: str, *, without: Sequence[str] = ()) -> str:
        """What to type to run another command with this setting; `fetch` takes no `--seeds`."""
        return command_line(command, self.options or (("--profile", self.profile.name),), without=without)

    @property
    def fetch(self) -> str:
        """What to type to bring in what it needs from elsewhere."""
        return self.command(f"fetch {self.experiment.whole}", without=("--seeds",))

    def sourced(self, section: str, row: Mapping[str, Any] | None = None) -> dict[str, Choice]:
        """The values of a section (`sae`, `reward`, `scoring`, ...), each with where it comes from; `row` holds what a row fixes."""
        return sourced_values(section, protocol=self.protocol, profile=self.profile, overrides=self.overrides, row=row)

    def values(self, section: str, row: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The same values alone."""
        return plain_values(self.sourced(section, row))

"""A tiny run on a disk that is full, a store that cannot be written, or under a clock that was set back."""

from __future__ import annotations

import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from killed_run import Kill, Outcome, killed
from tiny_run import Place

SOURCE = Path(__file__).resolve().parent / "faults.c"


def shim(folder: Path) -> Path | None:
    """The library that makes system calls fail, compiled; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


@dataclass(frozen=True)
class Fault:
    """A kind of fault, with the most that may go before it begins (bytes, changes or looks at the clock) and the codes that are right."""

    name: str
    word: str
    most: int
    expected: tuple[int, ...]

    @property
    def cell(self) -> tuple[str, str]:
        """Its place in the table."""
        return "fault", self.name

    def __str__(self) -> str:
        return self.name

    def run(self, place: Place, library: Path | None, chance: random.Random, *, early: bool) -> Outcome:
        """One run under this fault, from its start with `early`. It counts where the run noticed it, or should notice nothing."""
        after = chance.randrange(1 if early else self.most)
        back = chance.choice((60, 3600, 86400, 400 * 86400))
        if self.word == "clock":
            # Something to go on from, written at a time that is then in the future.
            killed(place, Kill("group", "renaming a checkpoint"), chance)
        told = {"": self.word, "_UNDER": str(place.store), "_AFTER": str(after), "_SECONDS": str(back)}
        code = place.run({**{f"SARM_FAULT{name}": value for name, value in told.items()}, "LD_PRELOAD": str(library)})
        return Outcome(self.word == "clock" or code != 0, code, told=f"after {after}, {back} s")


FAULTS = (
    Fault("disk full (ENOSPC)", "full", 400_000, (7,)),
    Fault("store became read-only (EROFS)", "read-only", 120, (7,)),
    Fault("clock set back", "clock", 2000, (0,)),
)

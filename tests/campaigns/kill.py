"""The campaign of kills: a tiny table 1 is killed at named moments, or its disk and clock fail, and repeated until it is done.

Every repeat must end with files that are those of an undisturbed run, byte for byte (times, memory and commands apart).

    python tests/campaigns/kill.py --count 10 --seed 1      # ten kills of every target at every moment, ten of each fault
    python tests/campaigns/kill.py --only 'rank/*' '*/training' --seconds 60

A failure names its seed and its round; `--seed N --round R` with the same `--count` and `--only` repeats that round alone. A kill counts
once the undisturbed repeat after it is compared, so that what is printed holds for a campaign that was interrupted too.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from faults import FAULTS, Fault, shim
from killed_run import MOMENTS, TARGETS, Kill, killed
from tiny_run import Place, copy_code, differences, write_profile

# Source: docs/usage.md; what `replicate table1` may end with where it was disturbed.
DOCUMENTED = (0, 1, 2, 5, 6, 7, 75, 130)
# No worker is left when tables are rendered.
CELLS = tuple((target, moment) for target in TARGETS for moment in MOMENTS if moment != "rendering" or target in ("parent", "group"))
KILLS_OF_A_ROUND = 8


class Failure(NamedTuple):
    """What went wrong in a round."""

    round: int
    what: str


@dataclass
class Tally:
    """What was done and what it found."""

    done: Counter[tuple[str, str]] = field(default_factory=Counter)
    codes: Counter[tuple[str, int]] = field(default_factory=Counter)
    repeats: int = 0
    files: int = 0
    failures: list[Failure] = field(default_factory=list)


class Campaign:
    """The rounds of a seed. Every round has a store of its own, disturbed some times, and ends with an undisturbed repeat."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.tally = Tally()
        self.since: list[tuple[Kill | Fault, int]] = []
        copy_code(folder)
        self.profiles = {processes: write_profile(folder, processes=processes) for processes in (1, 2)}
        self.wanted: dict[int, dict[str, str]] = {}
        self.shim = shim(folder)

    def reference(self, processes: int) -> dict[str, str]:
        """What an undisturbed run leaves."""
        if processes not in self.wanted:
            place = Place(self.folder / f"reference-{processes}", self.profiles[processes])
            code = place.run()
            if code:
                raise SystemExit(f"the undisturbed run ended with {code}:\n{place.said()}")
            self.wanted[processes] = place.contents()
            self.tally.files = len(self.wanted[processes])
        return self.wanted[processes]

    def round(self, number: int, todo: Sequence[Kill | Fault]) -> None:
        """Disturb one store in each of these ways, and compare what a repeat leaves; anew where a run was done before its moment came."""
        chance = random.Random(f"{self.seed} {number}")
        processes = 2 if any(isinstance(one, Kill) and one.target == "rank" for one in todo) else 1
        self.reference(processes)
        place = Place(self.folder / f"round-{number}", self.profiles[processes], workers=chance.choice((1, 2)) if processes == 1 else 1)
        self._begin(place, processes, chance)
        for one in todo:
            if not self._disturb(place, number, one, chance, early=False):
                self._repeat(place, number)
                self._begin(place, processes, chance)
                if not self._disturb(place, number, one, chance, early=True):
                    self._fail(number, f"{one}: its moment never came")
        self._repeat(place, number)
        shutil.rmtree(place.folder, ignore_errors=True)

    def _begin(self, place: Place, processes: int, chance: random.Random) -> None:
        shutil.rmtree(place.folder, ignore_errors=True)
        # Half of the stores have the language, so that moments of later jobs come as often as those of the first.
        if chance.random() < 0.5:
            for kind in ("make_miniature", "pretrain_backbone"):
                shutil.copytree(self.folder / f"reference-{processes}" / "store" / kind, place.store / kind)
        place.folder.mkdir(exist_ok=True)

    def _repeat(self, place: Place, number: int) -> None:
        """Run undisturbed and compare; what was done since the last such run counts now, and not before."""
        code = place.run()
        self.tally.repeats += 1
        wrong = differences(place.contents(), self.reference(int(place.profile.stem[-1]))) if code == 0 else []
        if code or wrong:
            why = f"ended with {code}: {place.said()[-2000:]}" if code else f"left other files: {wrong[:5]}"
            self._fail(number, f"the repeat after {', '.join(str(one) for one, _ in self.since)} {why}")
        for one, ended in self.since:
            self.tally.done[one.cell] += 1
            self.tally.codes["kill " + one.target if isinstance(one, Kill) else one.name, ended] += 1
        self.since = []

    def _disturb(self, place: Place, number: int, one: Kill | Fault, chance: random.Random, *, early: bool) -> bool:
        """Whether it came to pass; `early`: at the first occurrence."""
        if isinstance(one, Kill):
            outcome, expected = killed(place, one, chance, early=early), DOCUMENTED
            if one.target in ("parent", "group"):
                expected = (-9,)
        else:
            outcome, expected = one.run(place, self.shim, chance, early=early), one.expected
        if outcome.reached:
            self.since.append((one, outcome.code))
        if outcome.code not in (expected if outcome.reached else (0,)):
            self._fail(number, f"{one} ({outcome.told}) ended with {outcome.code}: {place.said()[-1500:]}")
        if outcome.hangs:
            self._fail(number, f"{one}: still there a minute and a half later: {outcome.hangs}")
        # The last lines of a job's log are shown with a bar before them.
        if any(line.startswith("Traceback") for line in place.said().splitlines()):
            self._fail(number, f"{one}: a traceback on the terminal: {place.said()[-1500:]}")
        return outcome.reached

    def _fail(self, number: int, what: str) -> None:
        self.tally.failures.append(Failure(number, what))
        print(f"FAILED (--seed {self.seed} --round {number}): {what}", flush=True)


def asked(name: str, only: Sequence[str]) -> bool:
    """Whether a cell of the table is one of those asked for."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in only)


def rounds(seed: int, count: int, only: Sequence[str], faults: bool) -> Iterator[list[Kill | Fault]]:
    """The work of each round: some kills in the order of a run, or one fault. The same for the same seed."""
    chance = random.Random(seed)
    cells = [cell for cell in CELLS if asked("/".join(cell), only)]
    found: list[list[Kill | Fault]] = []
    for ranked in (False, True):
        kills = [Kill(*cell) for cell in cells if (cell[0] == "rank") is ranked for _ in range(count)]
        chance.shuffle(kills)
        # In the order of a run, so that few stores are done before their moment comes; rendering completes a store.
        parts = [kills[start : start + KILLS_OF_A_ROUND] for start in range(0, len(kills), KILLS_OF_A_ROUND)]
        found += [sorted(part, key=lambda kill: MOMENTS.index(kill.moment)) for part in parts]
    if faults:
        found += [[fault] for fault in FAULTS if asked(f"fault/{fault.name}", only) for _ in range(count)]
    chance.shuffle(found)
    yield from found


def table(tally: Tally) -> str:
    """The figures as Markdown."""
    lines = ["| SIGKILL of | " + " | ".join(MOMENTS) + " |", "|---" * (len(MOMENTS) + 1) + "|"]
    for target in TARGETS:
        counts = [str(tally.done[target, moment]) if (target, moment) in CELLS else "-" for moment in MOMENTS]
        lines.append(f"| {target} | " + " | ".join(counts) + " |")
    lines += ["", "| fault | runs | exit codes |", "|---|---|---|"]
    for fault in FAULTS:
        codes = ", ".join(f"{code}: {count}" for (name, code), count in sorted(tally.codes.items()) if name == fault.name)
        lines.append(f"| {fault.name} | {tally.done[fault.cell]} | {codes} |")
    for target in TARGETS:
        codes = ", ".join(f"{code}: {count}" for (name, code), count in sorted(tally.codes.items()) if name == f"kill {target}")
        lines += [f"exit codes where {target} was killed: {codes or '-'}"]
    lines += [f"{tally.repeats} undisturbed repeats, {tally.files} files compared each; failures: {len(tally.failures)}"]
    return "\n".join(lines)


def tell(tally: Tally, seed: int, out: Path | None) -> None:
    """Print the figures, and write them as JSON where asked."""
    print(table(tally), flush=True)
    if out is None:
        return
    done = {"/".join(cell): count for cell, count in sorted(tally.done.items())}
    codes = {f"{name}: {code}": count for (name, code), count in sorted(tally.codes.items())}
    told = {"seed": seed, "done": done, "codes": codes, "repeats": tally.repeats, "failures": tally.failures}
    out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def stopped(number: int, frame: object) -> None:
    """End at SIGTERM as at Ctrl-C."""
    raise KeyboardInterrupt


def run(campaign: Campaign, work: Sequence[Sequence[Kill | Fault]], only_round: int | None, seconds: float) -> bool:
    """Run the rounds; whether somebody interrupted them."""
    end = time.monotonic() + seconds
    try:
        for number in range(len(work)) if only_round is None else [only_round]:
            if time.monotonic() > end:
                print(f"time is over: {number} of {len(work)} rounds")
                break
            campaign.round(number, work[number])
            print(f"round {number}: {', '.join(map(str, work[number]))}", flush=True)
    except KeyboardInterrupt:
        print("interrupted; the last round counts as far as it was compared", flush=True)
        return True
    return False


def main() -> int:
    """Run what is asked; 1 where anything failed, 130 where it was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="repeats a campaign; printed")
    parser.add_argument("--count", type=int, default=10, help="kills of each target at each moment, and runs of each fault")
    parser.add_argument("--only", nargs="+", default=["*"], help="globs on TARGET/MOMENT and fault/NAME")
    parser.add_argument("--round", type=int, help="only this round")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further round after so long")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, stopped)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="campaign-", ignore_cleanup_errors=True) as folder:
        campaign = Campaign(Path(folder), options.seed)
        if campaign.shim is None:
            print("no C compiler here (cc): faults of system calls are left out")
        work = list(rounds(options.seed, options.count, options.only, campaign.shim is not None))
        interrupted = run(campaign, work, options.round, options.seconds)
    tell(campaign.tally, options.seed, options.out)
    return 1 if campaign.tally.failures else 130 if interrupted else 0


if __name__ == "__main__":
    sys.exit(main())

"""The campaign of hostile input: every reader is given a thousand damaged files, and endpoints that lie.

Each case must end with a documented exit code for what was wrong (never 1: that is a failure nobody foresaw), without a traceback, with
a line that names the file or the address, with every file as it was and a store without half an artifact, and within its time.

    python tests/campaigns/hostile.py --seed 1                     # 1,000 cases
    python tests/campaigns/hostile.py --seed 1 --only sae --case 7  # one of them again
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import importlib
import os
import pkgutil
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
for place in (HERE.parents[1], HERE.parent / "support", HERE):
    sys.path.insert(0, str(place))

from forked_command import Ended, command, in_fork  # noqa: E402 - the paths above lead to it
from hostile_containers import CANARY  # noqa: E402 - as above

ACCEPTED = (0, 2, 3, 4, 5, 6, 7)
# DIFFERS, INCONCLUSIVE, MISSING.
VERDICTS = (3, 4, 5)
LONGEST_SECONDS = 60.0
LONGEST_LINE = 2000
ALL = 1000
NO_NUMBER = re.compile(r"(?<![\w.'-])-?(nan|inf|infinity)(?![\w-])", re.IGNORECASE)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202e]")
# What transformers and others load where they need it.
LAZILY_LOADED = (
    *("transformers.models.llama.modeling_llama", "transformers.models.qwen3.modeling_qwen3", "transformers.models.gemma2.modeling_gemma2"),
    *("transformers.models.gemma.modeling_gemma", "transformers.models.auto.tokenization_auto", "transformers.tokenization_utils_fast"),
    *("scipy.stats", "statsmodels.api", "matplotlib.pyplot", "openai.resources.chat", "hostile_samples"),
)
ENVIRONMENT = {"NO_COLOR": "1", "COLUMNS": "100", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


class Case(NamedTuple):
    """A prepared case: where it lies, what was done, what may be named, and what to run."""

    folder: Path
    told: str
    names: tuple[str, ...]
    work: Callable[[], int]


@dataclass
class Tally:
    """What came of the cases."""

    codes: dict[str, Counter[int | None]] = field(default_factory=dict)
    failures: dict[str, list[int]] = field(default_factory=dict)
    slowest: dict[str, float] = field(default_factory=dict)


def files_of(folder: Path) -> dict[str, str]:
    """What is where: hashes of files, targets of links, and folders."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = f"link {os.readlink(path)}" if path.is_symlink() else "folder" if path.is_dir() else ""
        found[str(path.relative_to(folder))] = kind or hashlib.sha256(path.read_bytes()).hexdigest()
    return found


class Campaign:
    """The cases of a seed. A case is told by its reader and its number alone."""

    def __init__(self, folder: Path, seed: int, *, keep: bool = False) -> None:
        # Loaded before the first fork: what a thousand commands import is imported once.
        import replication
        import sarm

        for package in (sarm, replication):
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                if not module.name.endswith("__main__") and "kernels" not in module.name:
                    importlib.import_module(module.name)
        for name in LAZILY_LOADED:
            importlib.import_module(name)
        import torch
        from hostile_readers import READERS

        torch.set_num_threads(1)
        self.readers, self.folder, self.seed, self.keep = {one.name: one for one in READERS}, folder, seed, keep
        self.tally = Tally()

    def sample(self, name: str) -> Path:
        """The valid sample of a reader, made once."""
        import hostile_samples

        place = self.folder / "samples" / name
        if not place.exists():
            place.mkdir(parents=True)
            if name == "answers":
                self._make_answers(place)
            else:
                make = getattr(hostile_samples, name)
                self._must(lambda: int(make(place) is not None), f"sample {name}")
        return place

    def _make_answers(self, place: Path) -> None:
        import hostile_samples
        from chat_server import chat_server, completion

        with chat_server() as server:
            server.answer = lambda request: completion("Fair. [[A]]\n\n4")
            url = server.url

            def run(arguments: list[str]) -> int:
                self._must(command(arguments, environment=ENVIRONMENT), "a judge that answers")
                return 0

            hostile_samples.answers(place, run, url)

    def _must(self, work: Callable[[], int], what: str) -> None:
        ended = in_fork(work, self.folder, seconds=300)
        if ended.code:
            raise SystemExit(f"{what} ended with {ended.code}:\n{ended.err}")

    def case(self, name: str, number: int) -> None:
        """Run one case and judge it; number 0 is the sample as it is, which must pass."""
        from lying_server import lying_server

        chance = random.Random(f"{self.seed} {name} {number}")
        folder = self.folder / "case"
        shutil.rmtree(folder, ignore_errors=True)
        sample = self.sample(self.readers[name].sample)
        shutil.copytree(sample, folder / "in")
        if (folder / "in" / "store").exists():
            (folder / "in" / "store").rename(folder / "store")
        if name == "endpoint":
            if not number:
                return
            with lying_server(chance) as served:
                self._judge(name, number, self._endpoint(folder, served.url, served.told))
        else:
            self._judge(name, number, self._damaged(name, folder, number, chance))

    def _endpoint(self, folder: Path, url: str, told: str) -> Case:
        from hostile_readers import judging

        more = ["--api-base", url, "--api-key-env", "", "--request-timeout", "1", "--concurrency", "1"]
        work = command(judging(folder / "in", folder / "store", more=more), environment=ENVIRONMENT)
        return Case(folder, told, (url, url.removesuffix("/v1")), work)

    def _damaged(self, name: str, folder: Path, number: int, chance: random.Random) -> Case:
        reader = self.readers[name]
        told, names = folder / "told.txt", folder / "names.txt"

        def prepare() -> int:
            files = reader.settled(folder / "in", chance)
            if number:
                path, what = reader.damage(files, chance)
                told.write_text(f"{path.relative_to(folder / 'in')}: {what}", encoding="utf-8", errors="backslashreplace")
                inside = path.parent != folder / "in"
                # Of a folder that holds one model the folder may be named as well.
                names.write_text("\n".join([path.name, *([str(path.parent)] if inside else [])]), encoding="utf-8")
            return 0

        self._must(prepare, f"damaging case {number} of {name}")
        asked = reader.ask(folder / "in", folder / "store", chance)
        work = asked if callable(asked) else command(asked, environment=ENVIRONMENT)
        if callable(asked):
            work = _with_forked_jobs(asked)
        said = told.read_text(encoding="utf-8") if told.exists() else "nothing"
        return Case(folder, said, tuple(names.read_text(encoding="utf-8").split("\n")) if names.exists() else (), work)

    def _judge(self, name: str, number: int, case: Case) -> None:
        before, stored = files_of(case.folder / "in"), files_of(case.folder / "store")
        os.environ["SARM_STORE"] = str(case.folder / "store")
        ended = in_fork(case.work, case.folder, seconds=LONGEST_SECONDS)
        wrong = [*faults(ended, case), *self._lost(case, before, stored)]
        if not number:
            if ended.code not in (0, 3, 5) or wrong:
                raise SystemExit(f"the undamaged sample of {name} ended with {ended.code} {wrong}:\n{ended.out[-2000:]}{ended.err}")
            return
        self.tally.codes.setdefault(name, Counter())[ended.code] += 1
        self.tally.slowest[name] = max(self.tally.slowest.get(name, 0.0), ended.seconds)
        if wrong:
            self.tally.failures.setdefault(name, []).append(number)
            print(f"FAILED (--seed {self.seed} --only {name} --case {number}): {case.told}", flush=True)
            print(f"    exit code {ended.code}, {ended.seconds:.1f} s: {'; '.join(wrong)}", flush=True)
            print("".join(f"    | {line[:300]}\n" for line in ended.err.splitlines()[-8:]), flush=True)

    def _lost(self, case: Case, before: dict[str, str], stored: dict[str, str]) -> list[str]:
        """Files that changed, and what is wrong in the store."""
        from sarm.store.artifacts import ArtifactStore

        after = {name: what for name, what in files_of(case.folder / "in").items() if not name.startswith("out")}
        found = [f"{one} is not what it was" for one in sorted(before) if after.get(one) != before[one]]
        found += [f"{one} was written" for one in sorted(set(after) - set(before))]
        store = case.folder / "store"
        if store.exists():
            now = files_of(store)
            kept = {one: what for one, what in stored.items() if not one.startswith(".")}
            found += [f"{one} in the store is not what it was" for one, what in sorted(kept.items()) if now.get(one) != what]
            found += ArtifactStore(store).problems(deep=True)
        if any(path.name == CANARY for path in case.folder.rglob("*")) or Path(CANARY).exists():
            found.append("a program of the file was executed")
        return found


def _with_forked_jobs(asked: Callable[[], int]) -> Callable[[], int]:
    def work() -> int:
        import subprocess
        from types import SimpleNamespace

        from forked_command import ForkedJob

        from replication.launch import local

        os.environ.update(ENVIRONMENT)
        local.subprocess = SimpleNamespace(Popen=ForkedJob, PIPE=subprocess.PIPE)  # type: ignore[assignment]
        return asked()

    return work


def faults(ended: Ended, case: Case) -> list[str]:
    """What is wrong with how a command ended."""
    both = ended.out + ended.err
    found = []
    if ended.code is None:
        found.append(f"not done after {LONGEST_SECONDS:.0f} s")
    elif ended.code not in ACCEPTED:
        found.append(f"exit code {ended.code}")
    if "Traceback" in both or "traceback in" in both:
        found.append("a traceback")
    # A verdict on numbers that were read names cells, not files.
    if ended.code and ended.code not in VERDICTS and case.names and not any(name in ended.err for name in case.names):
        found.append(f"{case.names[0]} is not named")
    if any(len(line) > LONGEST_LINE for line in ended.err.splitlines()):
        found.append("a line without an end")
    if CONTROL.search(ended.err.replace("\r", "")):
        found.append("control characters on the terminal")
    if ended.code == 0 and NO_NUMBER.search(ended.out):
        found.append("a number that is none")
    return found


def shares(readers: Sequence[Any], count: int) -> dict[str, int]:
    """Cases for each reader, in the proportions of a thousand; at least one."""
    total = sum(one.cases for one in readers)
    return {one.name: max(1, round(one.cases * count / total)) for one in readers}


def table(tally: Tally) -> str:
    """The figures as Markdown."""
    lines = ["| reader | cases | exit codes | slowest | failures |", "|---|---|---|---|---|"]
    for name, codes in tally.codes.items():
        told = ", ".join(f"{'killed' if code is None else code}: {count}" for code, count in sorted(codes.items(), key=str))
        failed = ", ".join(map(str, tally.failures.get(name, []))) or "0"
        lines.append(f"| {name} | {sum(codes.values())} | {told} | {tally.slowest[name]:.1f} s | {failed} |")
    total = sum(sum(codes.values()) for codes in tally.codes.values())
    lines += ["", f"{total} cases, failures: {sum(map(len, tally.failures.values()))}"]
    return "\n".join(lines)


def main() -> int:
    """Run what is asked; 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="repeats a campaign; printed")
    parser.add_argument("--count", type=int, default=ALL, help="cases of all readers together")
    parser.add_argument("--only", default="*", help="glob on readers")
    parser.add_argument("--case", type=int, help="only the case of this number")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave the last case there")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as temporary:
        campaign = Campaign(options.keep or Path(temporary), options.seed)
        for name, cases in shares(list(campaign.readers.values()), options.count).items():
            if not fnmatch.fnmatch(name, options.only):
                continue
            began = time.monotonic()
            campaign.case(name, 0)
            for number in [options.case] if options.case else range(1, cases + 1):
                campaign.case(name, number)
            print(f"{name}: {sum(campaign.tally.codes[name].values())} cases in {time.monotonic() - began:.0f} s", flush=True)
    print(table(campaign.tally))
    return 1 if campaign.tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())

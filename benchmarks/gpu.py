"""Everything that wants an accelerator, as one command: rates, kernels against float64, SAE steps, harvest and reward steps, and peers.

python benchmarks/gpu.py --out gpu.json        one GPU of 80 GB
python benchmarks/gpu.py --only "SAE step"     the parts whose names hold that; --list tells the names
python benchmarks/gpu.py --toy                 toy sizes, on a CPU: shows that the script works, its figures mean nothing

A row is printed and kept when it is measured. A part that fails is told and the others run; the exit code is then 1. Peers (sparsify,
SAELens, TRL) are measured where they are installed. Nothing is installed and nothing downloaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import gpu_llama
import gpu_sae
import torch
from gpu_parts import Bench, Part, Report, about, measure


def parts(bench: Bench, *, sweep: bool) -> list[Part]:
    """All of them, the quick ones first."""
    return [*gpu_sae.parts(bench, sweep=sweep), *gpu_llama.parts(bench)]


def chosen(found: Sequence[Part], wanted: Sequence[str]) -> list[Part]:
    """The parts whose names hold one of the texts, whatever their case; all without any. Raises SystemExit where a text fits none."""
    for text in wanted:
        if not any(text.lower() in part.name.lower() for part in found):
            raise SystemExit(f"no part's name holds {text!r}; --list tells them")
    return [part for part in found if not wanted or any(text.lower() in part.name.lower() for text in wanted)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="toy sizes on the CPU; the figures mean nothing")
    parser.add_argument("--out", type=Path, help="JSON file of all rows, written again after each")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="parts whose names hold this; repeatable")
    parser.add_argument("--sweep", action="store_true", help="also the kernels' other launch shapes")
    parser.add_argument("--list", action="store_true", help="print the names of the parts and end")
    options = parser.parse_args()
    if not (options.toy or options.list or torch.cuda.is_available()):
        parser.error("torch sees no GPU; --toy runs the script at toy sizes on the CPU")
    bench = Bench(torch.device("cpu" if options.toy or not torch.cuda.is_available() else "cuda"), toy=options.toy)
    found = chosen(parts(bench, sweep=options.sweep), options.only)
    if options.list:
        print("\n".join(part.name for part in found))
        return
    facts = about(bench.device, toy=options.toy)
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    print("CPU, toy sizes: these figures mean nothing" if options.toy else facts["device"], versions, sep="; ", flush=True)
    if not measure(found, bench, Report(facts, options.out), partial(print, flush=True)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""The GPU's measurement: a row is told and kept when it is there, a failing part stops no other; at toy size all of it runs on a CPU."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import ROOT


def script(name: str) -> Any:
    return importlib.import_module(name)


@pytest.fixture
def bench() -> Any:
    return script("gpu_parts").Bench(torch.device("cpu"), toy=True)


def test_a_row_is_told_and_kept_before_the_next_is_measured(tmp_path: Path, bench: Any) -> None:
    parts = script("gpu_parts")
    out, said, seen = tmp_path / "gpu.json", [], []

    def rows() -> Iterator[dict[str, float | str]]:
        for number in range(3):
            seen.append((len(said), json.loads(out.read_text())["rows"]))
            yield {"what": f"row {number}", "ms": float(number)}

    assert parts.measure([parts.Part("three", rows)], bench, parts.Report({"device": "none"}, out), said.append)
    assert said == ["row 0: ms 0", "row 1: ms 1", "row 2: ms 2"]
    assert [(count, len(kept)) for count, kept in seen] == [(0, 0), (1, 1), (2, 2)]
    whole = json.loads(out.read_text())
    assert whole["rows"][2] == {"part": "three", "what": "row 2", "ms": 2.0} and whole["device"] == "none"
    assert not whole["failed"] and list(tmp_path.iterdir()) == [out]


def test_a_failing_part_is_told_with_its_place_and_the_others_run(tmp_path: Path, bench: Any) -> None:
    parts = script("gpu_parts")
    out, said = tmp_path / "gpu.json", []

    def breaks() -> Iterator[dict[str, float | str]]:
        yield {"what": "before", "ms": 1.0}
        raise torch.OutOfMemoryError("15.0 GB more were asked for\nand a second line")

    def runs() -> Iterator[dict[str, float | str]]:
        yield {"what": "after", "ms": 2.0}

    found = [parts.Part("large", breaks), parts.Part("peer", runs, ("no_such_package",)), parts.Part("small", runs)]
    assert not parts.measure(found, bench, parts.Report({}, out), said.append)
    assert said[0] == "before: ms 1" and said[3] == "after: ms 2"
    assert said[1].startswith("large: FAILED, OutOfMemoryError: 15.0 GB more were asked for (test_gpu.py:")
    assert said[2] == "peer: left out, no_such_package not installed"
    whole = json.loads(out.read_text())
    assert [row["part"] for row in whole["rows"]] == ["large", "small"]
    assert whole["failed"][0]["part"] == "large" and whole["left_out"] == [{"part": "peer", "reason": "no_such_package not installed"}]


def test_what_a_failing_part_held_is_given_back(bench: Any) -> None:
    parts = script("gpu_parts")
    held: list[Any] = []

    def breaks() -> Iterator[dict[str, float | str]]:
        import weakref

        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        raise RuntimeError("")
        yield {}

    assert not parts.measure([parts.Part("large", breaks)], bench, parts.Report({}), lambda line: None)
    assert held[0]() is None


def test_an_interrupt_ends_the_measurement_and_what_was_measured_stays(tmp_path: Path, bench: Any) -> None:
    parts = script("gpu_parts")

    def stops() -> Iterator[dict[str, float | str]]:
        yield {"what": "row", "ms": 1.0}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parts.measure([parts.Part("one", stops)], bench, parts.Report({}, tmp_path / "gpu.json"), lambda line: None)
    assert len(json.loads((tmp_path / "gpu.json").read_text())["rows"]) == 1


def test_parts_are_chosen_by_their_names(bench: Any) -> None:
    gpu = script("gpu")
    everything = gpu.parts(bench, sweep=True)
    names = [part.name for part in everything]
    assert len(set(names)) == len(names)
    assert [part.name for part in gpu.chosen(everything, ["trl"])] == ["reward step, TRL, toy"]
    assert len(gpu.chosen(everything, [])) == len(names)
    with pytest.raises(SystemExit, match="no part's name holds 'nothing of the kind'"):
        gpu.chosen(everything, ["nothing of the kind"])
    for peer in ("sparsify", "SAELens", "TRL", "transformers"):
        assert any(peer in name for name in names)


def test_a_product_that_is_wrong_fails_its_part(monkeypatch: pytest.MonkeyPatch, bench: Any) -> None:
    sae, parts = script("gpu_sae"), script("gpu_parts")
    right = sae.sparse_products.decode

    def wrong(values: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return right(values, *rest) * (1 if values.dtype == torch.float64 else 1.001)

    monkeypatch.setattr(sae.sparse_products, "decode", wrong)
    report, said = parts.Report({}), []
    assert not parts.measure([parts.Part("check", lambda: sae.checked_against_double(bench))], bench, report, said.append)
    assert "a sparse product differs from float64 by 1.0e-03" in report.failed[0]["reason"]


def test_harvest_and_reward_step_are_measured_at_toy_size(bench: Any) -> None:
    llama = script("gpu_llama")
    found = {part.name: part for part in llama.parts(bench)}
    for name in ("harvest, toy", "reward step, toy"):
        (row,) = found[name].measure()
        figures = {name: value for name, value in row.items() if not isinstance(value, str)}
        assert {"samples_per_second", "tokens_per_second", "share_of_product_rate", "times_faster_than_padded"} <= figures.keys()
        assert all(math.isfinite(value) and value > 0 for value in figures.values())
    (peer,) = found["harvest, transformers, toy"].measure()
    assert peer["ours faster by"] == pytest.approx(bench.speeds["harvest", "toy"] / peer["samples_per_second"])


def test_the_flop_count_is_that_of_the_products_written_out() -> None:
    llama = script("gpu_llama")
    shape = llama.TOY[0]._replace(hidden=8, intermediate=20, heads=2, key_heads=1, head_dim=4, layer=2)
    # Weights: q and o 8 x 8, k and v 8 x 4, three of 8 x 20. Scores: 3 tokens and 2 that see 3 more, 6 + 3 + 6 = 15 products of 8, twice.
    full, keys = 64 + 64 + 32 + 32 + 3 * 160, 64
    expected = 2 * (5 * full + 15 * 8 * 2) + 2 * (5 * keys + 2 * (full - keys))
    assert llama.forward_flop(shape, [(3, 0), (2, 3)], 2) == expected


def run(*options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, cwd=ROOT, env=environment)


@pytest.mark.slow
def test_the_whole_script_runs_at_toy_size(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = run("--toy", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    whole = json.loads(out.read_text())
    assert whole["toy"] is True and whole["device"] == "CPU" and not whole["failed"]
    told = {row["what"] for row in whole["rows"]}
    assert {"measured rates", "SAE step, ours", "SAE step, dense", "harvest", "reward step", "harvest, transformers"} <= told
    assert {"reward step, ZeRO 2", "sae step, ZeRO 1", "piece: decode", "piece: weight gradient"} <= told
    # Every peer is there, or its absence is told.
    for peer in ("sparsify", "SAELens", "TRL"):
        assert any(peer in one for one in [*told, *(part["part"] for part in whole["left_out"])])


@pytest.mark.slow
def test_without_a_gpu_and_without_toy_nothing_is_measured() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run()
    assert done.returncode == 2 and "torch sees no GPU" in done.stderr

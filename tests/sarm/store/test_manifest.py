"""What an artifact says of the machine: enough to tell why another one rounds otherwise, and nothing where nothing is told."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sarm.store.manifest import Hardware, hardware, processor_name


def test_a_processor_is_named_with_the_instructions_that_torch_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = tmp_path / "cpuinfo"
    facts.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nprocessor\t: 1\nmodel name\t: Some CPU @ 2.00GHz\n")
    torch = SimpleNamespace(backends=SimpleNamespace(cpu=SimpleNamespace(get_cpu_capability=lambda: "AVX2")))
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert processor_name(facts) == "Some CPU @ 2.00GHz, AVX2"
    monkeypatch.delitem(sys.modules, "torch")
    assert processor_name(facts) == "Some CPU @ 2.00GHz"


def test_where_nothing_tells_the_processor_it_is_what_python_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert processor_name(tmp_path / "absent") == "arm"
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert processor_name(tmp_path / "absent") == ""


def test_hardware_of_before_processors_were_noted_is_read() -> None:
    assert Hardware.model_validate({"machine": "x86_64", "cpus": 2, "platform": "Linux", "gpus": ()}).processor == ""


def test_hardware_tells_the_threads_that_torch_computes_with(monkeypatch: pytest.MonkeyPatch) -> None:
    backends = SimpleNamespace(cpu=SimpleNamespace(get_cpu_capability=lambda: "AVX2"))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(get_num_threads=lambda: 3, backends=backends))
    assert hardware(()).threads == 3
    monkeypatch.delitem(sys.modules, "torch")
    assert hardware(()).threads == 0

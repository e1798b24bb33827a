"""Metrics without times, which go back with a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from tiny import job_context

from sarm.engine.metrics_file import MetricsFile


def test_metrics_of_steps_after_the_checkpoint_are_taken_back(tmp_path: Path) -> None:
    context = job_context(tmp_path)
    metrics = MetricsFile(context, resume_step=0)
    for step in (1, 2, 3):
        metrics.write(step, {"loss": step / 2})
    path = context.output / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "lo')
    MetricsFile(context, resume_step=2)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 1.0}]
    MetricsFile(context, resume_step=0)
    assert path.read_text() == ""

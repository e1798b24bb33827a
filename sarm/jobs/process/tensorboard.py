"""An artifact's `metrics.jsonl` shown in TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from sarm.store.json_lines import read_lines


def mirror_metrics(artifact: Path, folder: Path, stderr: TextIO) -> None:
    """Write the scalars of `metrics.jsonl`, if there is one, as a run `<kind>-<short key>` below `folder`.

    The work is done by then, so a missing TensorBoard costs one line on `stderr` and nothing else.
    """
    metrics = artifact / "metrics.jsonl"
    if not metrics.exists():
        return
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - heavy, and optional
    except ImportError:
        stderr.write("SARM_TENSORBOARD is set but tensorboard is not installed; run: pip install 'replicate-sarm[tensorboard]'\n")
        return
    with SummaryWriter(str(folder / f"{artifact.parent.name}-{artifact.name}")) as writer:
        for _, row in read_lines(metrics):
            step = row.get("step")
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    writer.add_scalar(name, value, global_step=step)

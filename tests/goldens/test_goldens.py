"""Numbers computed by the official implementations, in `SARM_GOLDENS` (default `../shared/goldens`); ours equal them."""

from __future__ import annotations

import goldens_benchmarks
import goldens_contexts
import goldens_sarm
from goldens_benchmarks import *  # noqa: F403
from goldens_contexts import *  # noqa: F403
from goldens_sarm import *  # noqa: F403
from goldens_sarm import FOLDER, needs_goldens


@needs_goldens
def test_no_golden_file_is_left_unread() -> None:
    covered = goldens_benchmarks.COVERED_FILES | {f"sarm/{name}" for name in goldens_sarm.COVERED_FILES | goldens_contexts.COVERED_FILES}
    present = {path.relative_to(FOLDER.parent).as_posix() for path in FOLDER.parent.rglob("*") if path.is_file()}
    unread = {name for name in present - covered if not name.endswith("README.md")}
    assert not unread, f"golden files that nothing compares: {sorted(unread)}"

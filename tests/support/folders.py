"""Where the tests find things: the project, what they build for themselves, and the shared data and goldens where these are at hand."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
FIXTURES = ROOT / "tests" / "fixtures"
GOLDEN = ROOT / "tests" / "golden"
DATA = Path(os.environ.get("SARM_DATA", ROOT.parent / "shared" / "data"))
GOLDENS = Path(os.environ.get("SARM_GOLDENS", ROOT.parent / "shared" / "goldens"))

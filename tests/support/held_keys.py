"""Keys held against files in `tests/golden/keys`.

A key that moves makes every store compute again what hangs on it: at the paper's scale hundreds of GPU-hours. So a key moves only in
the commit that changes what the job computes, and that commit raises the `version` of its kind. A setting that joins a config is
`sarm.job.added`, with what the code did before as its default, and moves none. Where a version was raised or a field was added, write
the files anew with SARM_UPDATE_KEYS=1, look at what changed, and name in the commit the kinds that moved.
"""

from __future__ import annotations

import json
import os

from folders import GOLDEN

HOW = "keys or what they count moved: raise the kind's version, or make the new field `added`; see tests/support/held_keys.py"


def hold(found: object, name: str) -> None:
    """A value is what its file holds, which is written anew only on demand."""
    path = GOLDEN / "keys" / f"{name}.json"
    if os.environ.get("SARM_UPDATE_KEYS"):
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8", newline="\n")
    assert json.loads(path.read_text(encoding="utf-8")) == found, HOW

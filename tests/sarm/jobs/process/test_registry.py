"""The kinds of work: what their keys count is what it was when people filled their stores."""

from __future__ import annotations

from typing import Any

from held_keys import hold
from pydantic_core import to_jsonable_python

from sarm.job import JobConfig, is_added
from sarm.jobs.process.registry import JOBS


def defaults(config: type[JobConfig], *, added: bool) -> dict[str, Any]:
    fields = {name: field for name, field in sorted(config.model_fields.items()) if is_added(field) == added and not field.is_required()}
    return {name: to_jsonable_python(field.get_default(call_default_factory=True)) for name, field in fields.items()}


def test_every_kind_s_key_counts_the_fields_that_it_counted() -> None:
    # Table 1, whose keys are held one by one, has not every kind: a field that is not `added` moves all keys of its kind, and so does
    # another default. Another default of an `added` field is worse: the key stays and means something else.
    kinds = {
        kind: {
            "version": config.version,
            "required": sorted(name for name, field in config.model_fields.items() if field.is_required()),
            "defaults": defaults(config, added=False),
            "added": defaults(config, added=True),
        }
        for kind, (config, _) in sorted(JOBS.items())
    }
    hold(kinds, "kinds")

"""RM-Bench against the official function."""

from __future__ import annotations

import pytest
from golden_files import each
from golden_scores import Case, cases, name_of
from golden_styles import check_rmbench


@pytest.mark.parametrize("case", each("rmbench/cases.json", cases, id_of=name_of))
def test_rmbench_equals_the_official_code(case: Case) -> None:
    check_rmbench(case["results"], case["expected"])

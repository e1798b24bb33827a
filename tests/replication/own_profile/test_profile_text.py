"""TOML that says what it was made from, whatever the names are."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from replication.own_profile.profile_text import _comments, key, toml

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.one_of(TEXT, st.booleans(), st.integers(-(2**62), 2**62)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)


@given(name=TEXT, value=VALUES)
def test_keys_and_values_are_read_back_as_they_were(name: str, value: object) -> None:
    assert tomllib.loads(f"{key(name)} = {toml(value)}\n") == {name: value}


@given(lines=st.lists(st.text(), max_size=3))
def test_no_name_ends_a_comment(lines: list[str]) -> None:
    text = "\n".join(_comments(lines))
    assert tomllib.loads(text.encode("utf-8", errors="replace").decode()) == {}
    assert len(text.split("\n")) == max(1, len(lines))

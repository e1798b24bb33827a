"""The report page: what it may load, which sections it has, and that it executes nothing that it shows."""

from __future__ import annotations

import pytest

from replication.report.render.page import page
from replication.report.render.sections import Section

COLOURS = ("--ink", "--paper", "--muted", "--line", "--accent", "--good", "--warn", "--bad")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def test_the_page_loads_nothing_and_has_its_colours_for_light_dark_and_print() -> None:
    text = page([])
    assert f'<meta http-equiv="Content-Security-Policy" content="{POLICY}' in text
    assert all(text.count(f"{name}:") == 3 for name in COLOURS), "one value each for light, dark and print"


def test_a_section_of_another_room_stands_after_the_claims_as_it_is() -> None:
    text = page([], extra=[Section(anchor="latents", title="Latents <b>", html="<p>an <em>own</em> page</p>")])
    assert text.index('id="claims"') < text.index('<section id="latents"') < text.index('id="audit"')
    assert "<p>an <em>own</em> page</p>" in text and "Latents &lt;b&gt;" in text and "Latents <b>" not in text


def test_two_sections_of_one_address_are_refused() -> None:
    with pytest.raises(ValueError, match="address audit"):
        page([], extra=[Section(anchor="audit", title="mine", html="")])

"""What is said to this machine goes through no proxy, whoever says it."""

from __future__ import annotations

import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarm.judges.loopback import host_of, is_loopback, without_proxies_to_loopback

PROXY = "http://proxy.invalid:3128"


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_where_a_proxy_is_named_this_machine_is_left_out(monkeypatch: pytest.MonkeyPatch, variable: str, host: str) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in without_proxies_to_loopback({variable: PROXY}).items():
        monkeypatch.setenv(name, value)
    assert urllib.request.proxy_bypass(host)


def test_nothing_is_set_where_there_is_no_proxy_or_none_is_used() -> None:
    assert without_proxies_to_loopback({}) == {} == without_proxies_to_loopback({"HTTP_PROXY": PROXY, "no_proxy": "*"})


def test_what_the_user_left_out_stays_and_the_small_letters_count() -> None:
    found = without_proxies_to_loopback({"http_proxy": PROXY, "no_proxy": "a.example, b.example", "NO_PROXY": "c.example"})
    assert found == dict.fromkeys(("NO_PROXY", "no_proxy"), "a.example,b.example,localhost,127.0.0.1,::1")
    assert without_proxies_to_loopback({"http_proxy": PROXY, **found}) == found, "again gives the same"


def test_a_hub_under_another_address_of_this_machine_is_left_out_too() -> None:
    assert "127.0.0.2" in without_proxies_to_loopback({"http_proxy": PROXY, "HF_ENDPOINT": "http://127.0.0.2:8080/x"})["no_proxy"]
    assert "hub.example" not in without_proxies_to_loopback({"http_proxy": PROXY, "HF_ENDPOINT": "http://hub.example"})["no_proxy"]


@given(text=st.text(max_size=30))
def test_no_text_is_taken_for_this_machine_by_mistake_and_none_ends_in_an_error(text: str) -> None:
    host = host_of(text)
    assert not is_loopback(host) or any(part in host for part in ("localhost", "127.", ":"))

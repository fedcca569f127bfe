"""url_test.json: a URL without and with the default port of its scheme."""

from __future__ import annotations

from typing import Any

from runstream.repository_urls import url_spellings

from .cases import cases


@cases("url_test.json")
def test_default_ports(case: dict[str, Any]) -> None:
    assert list(url_spellings(case["url"])) == case["expect"]

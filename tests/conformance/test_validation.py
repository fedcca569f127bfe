"""validation_test.json: which names users may give."""

from __future__ import annotations

from typing import Any

from runstream.names import valid_name

from .cases import cases


@cases("validation_test.json")
def test_names(case: dict[str, Any]) -> None:
    assert valid_name(case["name"]) is case["expect"]

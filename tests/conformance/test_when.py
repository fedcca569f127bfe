"""when_test.json: for which refs something is meant."""

from __future__ import annotations

from typing import Any

from runstream.runconfig.when import Conditions, Pattern, When, match_when

from .cases import cases


def when_of(when: dict[str, Any] | None) -> When | None:
    if when is None:
        return None
    return When(*(conditions_of(when.get(name)) for name in ("branch", "tag", "ref")))


def conditions_of(section: dict[str, Any] | None) -> Conditions | None:
    if section is None:
        return None
    return Conditions(patterns_of(section.get("include")), patterns_of(section.get("exclude")))


def patterns_of(conditions: list[dict[str, str]] | None) -> tuple[Pattern, ...]:
    """A condition without a type matches nothing; our type always has one, so it is left out."""
    return tuple(
        Pattern(condition.get("match", ""), "regexp" if condition["type"] == "regexp" else "simple")
        for condition in conditions or ()
        if condition.get("type")
    )


@cases("when_test.json")
def test_match_when(case: dict[str, Any]) -> None:
    matched = match_when(when_of(case["when"]), case["ref_type"], case["branch"], case["tag"], case["ref"])
    assert matched is case["expect"]

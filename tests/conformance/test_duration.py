"""duration_test.json: how durations are written and read.

The case's JSON object around the duration is Go's; here it is the field task_timeout_interval.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from runstream.runconfig.amounts import format_duration, parse_duration
from runstream.runconfig.parse import parse_config

from .cases import cases

RUNS = [{"name": "r", "tasks": []}]


@cases("duration_test.json")
def test_duration(case: dict[str, Any]) -> None:
    if "duration" in case:
        assert parse_duration(case["duration"]) == case["nanoseconds"]
        assert json.dumps({"Duration": format_duration(case["nanoseconds"])}).replace(" ", "") == case["expect"]["json"]
        return
    if "duration" not in case["expect"]:
        with pytest.raises(ValueError, match="duration"):
            parse_duration(json.loads(case["json"])["duration"])
        return
    given = next(iter(json.loads(case["json"]).values()))
    parsed = parse_config(json.dumps({"runs": RUNS, "task_timeout_interval": given}), "json")
    assert parsed.task_timeout_interval == case["expect"]["nanoseconds"]
    assert format_duration(case["expect"]["nanoseconds"]) == case["expect"]["duration"]

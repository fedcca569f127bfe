"""What a program made is read within the same bounds as a file; its problems have a path and no line."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstream.runconfig.parse import parse_config
from runstream.runconfig.problems import ConfigError

DEEP = 100_000
TASK = {"name": "t", "runtime": {"type": "host"}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "generated", "config.star")
    assert all(problem.line == 0 for problem in caught.value.problems)
    return caught.value


def test_it_means_what_the_same_file_means() -> None:
    value = {
        "runs": [{"name": 1.10, "tasks": [TASK | {"name": 10, "approval": True, "user": None}]}],
        "task_timeout_interval": 3600000000000,
    }
    text = json.dumps(value)
    assert parse_config(text, "generated") == parse_config(text, "json")


def test_problems_have_a_path_and_no_line() -> None:
    value = {"runs": [{"name": "r", "tasks": [TASK | {"steps": [{"run": 10}], "depend": []}]}]}
    error = refused(json.dumps(value))
    assert [problem.path for problem in error.problems] == ["runs[0].tasks[0].depend", "runs[0].tasks[0].steps[0].run"]
    assert "config.star is not valid: runs[0].tasks[0].depend: unknown field" in error.message
    assert "line" not in error.message


def test_a_second_task_of_a_name_is_refused_without_a_line() -> None:
    assert "line" not in refused(json.dumps({"runs": [{"name": "r", "tasks": [TASK, TASK]}]})).message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * DEEP, "nested deeper"),
        ('{"a":' * DEEP + "1" + "}" * DEEP, "nested deeper"),
        ("[" + "1," * 100_000 + "1]", "more than 100000 values"),
        ("{", "not JSON"),
        ('{"runs": NaN}', "no number"),
        ('{"runs": "\\u0000"}', "NUL"),
        ('{"\\ud800": 1}', "surrogate"),
        ('"' + "a" * (1 << 20) + '"', "bigger than"),
    ],
)
def test_what_cannot_be_a_configuration_is_refused(text: str, said: str) -> None:
    assert said in refused(text).message


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_value_is_read_or_refused(value: object) -> None:
    with contextlib.suppress(ConfigError):
        parse_config(json.dumps(value), "generated")

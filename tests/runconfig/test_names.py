"""Names that cannot be shown: refused with the place and the character, wherever a configuration gives one."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.names import name_problem
from runstream.runconfig.parse import parse_config
from runstream.runconfig.problems import ConfigError

SHOWN = st.text(
    st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="=\u115f\u1160\u2800\u3164\uffa0"),
    min_size=1,
    max_size=10,
).filter(str.strip)
UNSHOWN = st.one_of(
    st.characters(categories=["Cc", "Zl", "Zp"]).filter(lambda c: c != "\0"),  # NUL is in no text of a file
    st.sampled_from("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"),
)
BLANK = st.text(st.sampled_from(" \u00a0\u2003\u200b\u200d\ufeff\u3164\u2800\u3000"), min_size=1, max_size=10)


def file_with(place: str, name: str) -> dict[str, Any]:
    """A configuration that has the name at this place."""
    step: dict[str, Any] = {"type": "run", "name": "s", "command": "true"}
    task: dict[str, Any] = {"name": "t", "runtime": {"type": "host"}, "steps": [step]}
    run: dict[str, Any] = {"name": "r", "tasks": [task]}
    match place:
        case "run":
            run["name"] = name
        case "task":
            task["name"] = name
        case "step":
            step["name"] = name
        case "environment":
            task["environment"] = {name: "v"}
        case "environment of a step":
            step["environment"] = {name: "v"}
        case "label":
            task["runtime"]["labels"] = {name: "v"}
        case "value of a label":
            task["runtime"]["labels"] = {"l": name}
        case "registry":
            task["docker_registries_auth"] = {name: {"username": "u", "password": "p"}}
        case "image":
            task["runtime"] = {"type": "pod", "containers": [{"image": name}]}
    return {"runs": [run]}


PLACES = (
    *("run", "task", "step", "environment", "environment of a step", "label", "value of a label", "registry", "image"),
)


@pytest.mark.parametrize("place", PLACES)
@given(before=st.one_of(st.just(""), SHOWN), character=UNSHOWN, after=st.one_of(st.just(""), SHOWN))
def test_a_name_with_a_control_character_is_refused_and_shown_escaped(
    place: str, before: str, character: str, after: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(json.dumps(file_with(place, before + character + after)), "json")
    problem = refused.value.problems[0]
    assert f"U+{ord(character):04X}" in problem.message
    assert problem.path.startswith("runs[0]")
    assert character not in str(refused.value).replace("\n", "") or character == "\n"


@pytest.mark.parametrize("place", PLACES)
@given(name=BLANK)
def test_a_name_of_blanks_is_refused(place: str, name: str) -> None:
    with pytest.raises(ConfigError, match="only blanks"):
        parse_config(json.dumps(file_with(place, name)), "json")


@pytest.mark.parametrize("place", PLACES)
@given(name=SHOWN)
def test_every_other_name_is_taken(place: str, name: str) -> None:
    parse_config(json.dumps(file_with(place, name)), "json")


@given(st.text())
def test_what_is_no_problem_can_be_shown(name: str) -> None:
    shown = not name_problem(name)
    assert not shown or not any(unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") for c in name)
    assert not shown or not name or any(unicodedata.category(c) not in ("Cc", "Cf", "Zs") for c in name)


@given(command=st.text(min_size=1).filter(lambda c: "\0" not in c and "\n" not in c))
def test_the_name_of_an_unnamed_step_can_be_shown(command: str) -> None:
    file = file_with("run", "r")
    file["runs"][0]["tasks"][0]["steps"] = [{"run": command}]
    parsed = parse_config(json.dumps(file), "json")
    assert name_problem(parsed.runs[0].tasks[0].steps[0].name) in ("", "has only blanks")

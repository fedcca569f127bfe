"""Variables and secrets: the files they come in, and what they stand for (rules create-9 and create-10)."""

from __future__ import annotations

import pytest

from runstream.runconfig.problems import ConfigError
from runstream.runconfig.refs import RefContext
from runstream.runconfig.variables import read_inputs, resolve

MAIN = RefContext(ref_type="branch", branch="main", ref="refs/heads/main")
VARIABLES = """
PLAIN: 10
token:
  values:
    - {secret_name: deploy, secret_var: staging, when: {branch: develop}}
    - {secret_name: deploy, secret_var: production, when: {branch: main}}
    - {secret_name: other, secret_var: x}
gone: {values: [{secret_name: missing, secret_var: x}]}
"""
SECRETS = """
deploy: {staging: s1, production: p1}
SHORT: sesame
"""


def resolved(variables: str = "", secrets: str = "", context: RefContext = MAIN, **single: str) -> dict[str, str]:
    inputs = read_inputs(single, [("v.yml", variables)], [("s.yml", secrets)])
    found = resolve(inputs.variables, inputs.secrets, context)
    assert not found.texts.keys() & found.secrets.keys()
    return {**found.texts, **{name: f"secret {text}" for name, text in found.secrets.items()}}


def test_the_first_value_that_matches_decides() -> None:
    known = resolved(VARIABLES, SECRETS)
    assert known == {"PLAIN": "10", "token": "secret p1", "SHORT": "secret sesame"}
    develop = RefContext(ref_type="branch", branch="develop", ref="refs/heads/develop")
    assert resolved(VARIABLES, SECRETS, develop)["token"] == "secret s1"
    # The value that decides has a secret without this field: nothing else is tried.
    assert "token" not in resolved(VARIABLES, "deploy: {staging: s1}")


def test_single_variables_and_later_files_go_first() -> None:
    files = [("a.yml", "a: one\nb: one"), ("b.yml", "b: two\nc: two")]
    inputs = read_inputs({"c": "single"}, files, [])
    assert resolve(inputs.variables, inputs.secrets, MAIN).texts == {"a": "one", "b": "two", "c": "single"}


def test_a_variable_of_a_group_never_gets_a_secret_of_a_project() -> None:
    variables = "[{name: token, parent_path: org/a, values: [{secret_name: deploy, secret_var: x}]}]"
    below = "[{name: deploy, parent_path: org/a/web, data: {x: project}}]"
    above = "[{name: deploy, parent_path: org/a, data: {x: group}}, {name: deploy, parent_path: org, data: {x: top}}]"
    assert resolved(variables, below) == {}
    assert resolved(variables, above) == {"token": "secret group"}
    nearer = "[{name: token, parent_path: org/a, text: far}, {name: token, parent_path: org/a/web, text: near}]"
    assert resolved(nearer) == {"token": "near"}


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ("[1]", "expected a map with a name"),
        ("a_b: {values: [{secret_name: x, secret_var: y}]}", "is not a name"),
        ("a: {values: []}", "neither text nor values"),
        ("a: {values: [{secret_name: x}]}", "no secret_var"),
        ("a: {valeus: []}", "unknown field"),
        ("a: [1]", "expected a text"),
    ],
)
def test_problems_have_their_place(variables: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as raised:
        resolved(variables)
    assert "v.yml" in str(raised.value)


def test_no_message_shows_a_secret() -> None:
    with pytest.raises(ConfigError) as raised:
        resolved(secrets="a: {b: {c: swordfish}}\nb: [swordfish]\n'swordfish': {x: swordfish}: y")
    assert "swordfish" not in str(raised.value).replace("'swordfish'", "")


def test_a_secret_that_is_too_short_to_be_masked_is_named() -> None:
    secrets = "PIN: abc\nEMPTY: ''\nLONG: abcd\ndeploy: {pin: '12 ', token: swordfish}\n"
    warnings = [str(one) for one in read_inputs({}, [], [("s.yml", secrets)]).warnings]
    assert [text.partition(":")[0] for text in warnings] == ["secret PIN", "secret deploy, field pin"]
    assert all("at least 4 bytes" in text for text in warnings)

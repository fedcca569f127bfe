"""The schema for editors says of a file what the decoder says, as far as a schema can."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft7Validator  # type: ignore[import-untyped]
from ruamel.yaml import YAML

from runstream.runconfig.fields import Kind
from runstream.runconfig.json_schema import KINDS, json_schema, schema_text
from runstream.runconfig.parse import parse_config
from runstream.runconfig.problems import ConfigError
from tests.conformance.cases import cases
from tests.runconfig.test_documents import EXAMPLES, whole
from tests.runconfig.test_limits import WRONG, file
from tests.runconfig.test_rules import CASES

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "docs" / "formats" / "run-config.schema.json"
VALIDATOR = Draft7Validator(json_schema())
SEEN_BY_THE_DECODER_ALONE = (
    "given twice",
    "duplicate",
    "too long",
    "doesn't exist",
    "circular dependency",
    "have both a dependency",
    "not a regular expression",
    "longer than",
    "292 years",
    "is not a duration",
    "found the boolean true",
    "given null",
    "which the container has already",
    "less than a container engine gives",
    "is not absolute",
)
"""Mistakes that take more than one place of the file to see, or more than the form of a text."""


def read(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def valid(text: str) -> bool:
    return bool(VALIDATOR.is_valid(read(text)))


def test_it_is_a_schema_and_every_kind_of_field_is_in_it() -> None:
    Draft7Validator.check_schema(json_schema())
    assert set(KINDS) == set(get_args(Kind))


def test_the_shipped_file_is_that_of_the_code() -> None:
    assert SHIPPED.read_text() == schema_text(), "make docs"


@pytest.mark.parametrize(("kind", "example"), EXAMPLES)
def test_every_example_of_the_reference_is_as_valid_as_it_says(kind: str, example: str) -> None:
    assert valid(whole(kind, example)) is not kind.startswith("refused")


def test_this_projects_own_pipeline_is_valid() -> None:
    assert valid((ROOT / ".runstream" / "config.yml").read_text())


@cases("config_test.json")
def test_every_configuration_of_the_cases_is_valid(case: dict[str, Any]) -> None:
    assert case["expect"]["error"] is not None or valid(case["config"])


@pytest.mark.parametrize(
    ("text", "path", "message"), [*CASES, *((file(**places), said, said) for places, said in WRONG)]
)
def test_what_the_decoder_refuses_the_schema_refuses(text: str, path: str, message: str) -> None:
    try:
        document = read(text)
    except Exception:  # noqa: BLE001  the reader of the test is another one; what it refuses, it need not judge
        pytest.skip("no YAML")
    if not any(known in message for known in SEEN_BY_THE_DECODER_ALONE):
        assert not VALIDATOR.is_valid(document), path


STEP = "runs: [{name: r, tasks: [{name: t, runtime: {type: host}, steps: [@]}]}]"
TASK = "runs: [{name: r, tasks: [{name: t, runtime: {type: host}, @}]}]"


@pytest.mark.parametrize(
    "text",
    [
        TASK.replace("@", "colour: red"),
        STEP.replace("@", "{type: clone, command: x}"),
        STEP.replace("@", "{run: {command: make, retries: 3}}"),
        TASK.replace("@", "environment: {A: {variable: x}}"),
        TASK.replace("@", "when: {branch: {include: 10}}"),
    ],
)
def test_what_the_decoder_warns_of_the_schema_refuses(text: str) -> None:
    assert parse_config(text).warnings
    assert not valid(text)


@pytest.mark.parametrize(
    "text",
    [
        "x-a: &a {type: host}\nruns: [{name: 1.10, tasks: [{name: true, runtime: *a}]}]",
        "runs: [{name: r, tasks: , when: , task_timeout_interval: 1h2.5m}]\ntask_timeout_interval: 1000000000",
        TASK.replace("@", "approval: yes, ignore_failure: Off, environment: , steps: , depends: ~"),
        TASK.replace("@", "when: {}"),
        TASK.replace("@", "when: {branch: a, tag: [a, '/b/'], ref: {include: a, exclude: [b]}}"),
        STEP.replace("@", "{clone: }, {clone: {depth: 1}}, {type: clone}, {restore_workspace: }, {run: make}"),
        STEP.replace("@", '{run: {command: "a\\nb", name: n}}, {type: run, command: "a\\nb", name: n}'),
        STEP.replace("@", "{run: {command: a, environment: {A: {}, B: {from_variable: b}, C: ''}}}"),
        TASK.replace("@", "retry: 2, no_output_timeout: 0, task_timeout_interval: -1s"),
        TASK.replace("@", "retry: {max: 0, backoff: 1.5h, on: lost}, steps: [{clone: {step_timeout_interval: 10}}]"),
        "retry: {max: 10, on: [failure, timeout]}\nrun_timeout_interval: 1h\nruns: [{name: r, retry: }]",
        "runs: [{name: r, tasks: [{name: a, runtime: {type: host, containers: []}}, "
        "{name: b, runtime: {arch: 386, containers: [{volumes: [{path: /a, tmpfs: {}}, "
        "{path: /b, tmpfs: {size: 1.5Gi}}]}]}, depends: [a]}, "
        "{name: c, runtime: {type: host}, depends: [{b: [on_failure, always]}]}, "
        "{name: d, runtime: {type: host}, depends: [{task: a}]}]}]",
    ],
)
def test_every_way_to_write_something_is_valid(text: str) -> None:
    assert not any("unknown field" in warning.message for warning in parse_config(text).warnings)
    assert list(VALIDATOR.iter_errors(read(text))) == []


def test_the_decoder_refuses_what_only_it_can_see() -> None:
    text = "runs: [{name: r}, {name: r}]"
    assert valid(text)
    with pytest.raises(ConfigError):
        parse_config(text)

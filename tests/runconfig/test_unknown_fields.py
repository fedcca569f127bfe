"""A field that is not known is a mistake where it is nearly a known one, and else is ignored and pointed at."""

from __future__ import annotations

import pytest

from runstream.runconfig.parse import ParsedConfig, parse_config
from runstream.runconfig.problems import MAX_PROBLEMS, MAX_UNKNOWN, ConfigError
from runstream.runconfig.when import Conditions

HOST = "runtime: {type: host}"


def read(fields: str) -> ParsedConfig:
    return parse_config(f"runs:\n- name: r\n  tasks:\n  - name: t\n    {HOST}\n    {fields}\n")


def warned(parsed: ParsedConfig) -> list[tuple[int, str, str]]:
    return [(warning.line, warning.path, warning.message) for warning in parsed.warnings]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ("colour: red", "colour"),
        ("when: {milestone: m, branch: main}", "when.milestone"),
        ("environment: {A: {variable: x}}", "environment.A.variable"),
        ("steps: [{type: clone, command: x}]", "steps[0].command"),
        ("steps: [{run: {command: make, retries: 3}}]", "steps[0].run.retries"),
        ("docker_registries_auth: {h: {email: x}}", "docker_registries_auth.h.email"),
        ("depends: [{task: u, mandatory: true}]\n  - {name: u, runtime: {type: host}}", "depends[0].mandatory"),
    ],
)
def test_what_is_unlike_everything_known_is_ignored_with_a_warning(fields: str, path: str) -> None:
    parsed = read(fields)
    name = path.rpartition(".")[2]
    assert warned(parsed) == [(6, f"runs[0].tasks[0].{path}", f'unknown field "{name}" is ignored')]
    assert parsed.warnings[0].hint


@pytest.mark.parametrize("field", ["step", "Step", "aproval", "ignore-failure", "ignoreFailure", "enviroment"])
def test_a_slip_is_a_mistake(field: str) -> None:
    with pytest.raises(ConfigError, match="did you mean"):
        read(f"{field}: []")


def test_an_old_field_without_effect_is_not_worth_a_word() -> None:
    parsed = parse_config(
        "runs: [{name: r, tasks: [{name: t, runtime: {containers: [{image: i, auth: {username: u}}]}}]}]"
    )
    assert parsed.warnings == ()


def test_a_pattern_that_is_no_text_matches_nothing_with_a_warning() -> None:
    parsed = read("when: {branch: {include: 10, exclude: true}}")
    when = parsed.runs[0].tasks[0].when
    assert when is not None
    assert when.branch == Conditions()
    assert [path for _, path, _ in warned(parsed)] == [
        "runs[0].tasks[0].when.branch.include",
        "runs[0].tasks[0].when.branch.exclude",
    ]


def test_many_tasks_may_have_the_same_unknown_field() -> None:
    tasks = "".join(f"  - {{name: t{n}, {HOST}, owner: me}}\n" for n in range(1_000))
    assert len(parse_config(f"runs:\n- name: r\n  tasks:\n{tasks}").warnings) == MAX_PROBLEMS


def test_what_has_hundreds_of_unknown_fields_is_refused() -> None:
    few = "".join(f"z{n}: 1\n" for n in range(MAX_UNKNOWN))
    assert parse_config(f"runs: [{{name: r}}]\n{few}").runs
    with pytest.raises(ConfigError, match="more than 300 different fields are unknown"):
        parse_config(f"runs: [{{name: r}}]\n{few}zz: 1\n")


def graph(*tasks: str) -> ParsedConfig:
    return parse_config("runs:\n- name: r\n  tasks:\n" + "".join(f"  - {{{HOST}, {task}}}\n" for task in tasks))


@pytest.mark.parametrize(
    ("test", "tell", "warns"),
    [
        ("depends: [build]", "{test: [on_failure]}", True),
        ("depends: [build]", "{test: [on_success, on_failure]}", True),
        ("depends: [build]", "{test: [on_failure, on_skipped]}", False),
        ("depends: [build]", "{test: [always]}", False),
        ("depends: [build]", "{test: [on_success]}", False),
        ("depends: [{build: [on_success, on_failure]}]", "{test: [on_failure]}", False),
        ("depends: []", "{test: [on_failure]}", False),
    ],
)
def test_a_failure_that_does_not_reach_a_task_that_waits_for_it_is_worth_a_warning(
    test: str, tell: str, warns: bool
) -> None:
    parsed = graph("name: build", f"name: test, {test}", f"name: tell, depends: [{tell}]")
    expected = (6, "runs[0].tasks[2].depends[0]", 'a failure of task "build" does not reach task "tell"')
    assert [(line, path, message.partition(":")[0]) for line, path, message in warned(parsed)] == [expected] * warns
    ignored = graph("name: build, ignore_failure: true", f"name: test, {test}", f"name: tell, depends: [{tell}]")
    assert warned(ignored) == []

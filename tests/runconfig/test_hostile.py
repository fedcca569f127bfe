"""A file that is made to cost much costs little: what each of its parts may cost has a bound."""

from __future__ import annotations

import orjson
import pytest

from runstream.errors import BadRequestError
from runstream.runconfig.parse import MAX_RUNS, parse_config
from runstream.runconfig.problems import ConfigError, suggestion
from runstream.runconfig.refs import RefContext
from runstream.runconfig.resolve import run_configs
from runstream.runconfig.when import MAX_EXPRESSIONS

TASKS = "runs:\n- name: r\n  tasks:\n"
HOST = "runtime: {type: host}"


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return caught.value


def branches(*expressions: str) -> str:
    return "runs:\n- name: r\n  when:\n    branch:\n" + "".join(f"    - /{one}/\n" for one in expressions)


def test_misspelled_dependencies_among_thousands_of_names() -> None:
    long = "x" * 90
    error = refused(TASKS + "".join(f"  - {{name: {long}{n}, {HOST}, depends: [{long}{n}y]}}\n" for n in range(2000)))
    assert len(orjson.dumps(error.details)) < 200_000
    assert "did you mean" in str(error)


def test_a_near_name_is_found_among_thousands() -> None:
    names = [f"task {n}" for n in range(2000)]
    assert suggestion("task 1999x", names) == "did you mean 'task 1999'?"
    assert suggestion("build-linx", [*names, "build-linux"]) == "did you mean 'build-linux'?"
    assert len(suggestion("unlike", names)) < 300


def test_expressions_are_compiled_once_and_only_so_many() -> None:
    assert parse_config(branches(*["a{999}"] * 5000)).runs
    error = refused(branches(*[f"a{n}" for n in range(MAX_EXPRESSIONS + 1)]))
    assert [problem.path for problem in error.problems] == [f"runs[0].when.branch[{MAX_EXPRESSIONS}]"]


@pytest.mark.parametrize("expression", [r"\pL{300}", r"(\pL{100}){8}", "a{1001}", "(a{99}){99}", "a" * 5000])
def test_an_expression_that_needs_much_memory_is_refused(expression: str) -> None:
    assert "not a regular expression" in str(refused(branches(expression)))


def test_a_file_has_only_so_many_runs() -> None:
    error = refused("runs:\n" + "".join(f"- name: {n}\n" for n in range(MAX_RUNS + 1)))
    assert [problem.path for problem in error.problems] == [f"runs[{MAX_RUNS}]"]


@pytest.mark.parametrize("given", [{"v": "x" * 100_000}, {}])
def test_values_that_come_to_megabytes_are_refused(given: dict[str, str]) -> None:
    task = "  - {name: @, runtime: {type: host}, environment: {A: {from_variable: v}}}\n"
    parsed = parse_config(TASKS + "".join(task.replace("@", str(n)) for n in range(100)))
    if not given:
        assert run_configs(parsed, RefContext(), given)
        return
    with pytest.raises(BadRequestError, match="larger than"):
        run_configs(parsed, RefContext(), given)


def test_an_environment_that_many_runs_repeat_is_refused() -> None:
    parsed = parse_config("runs:\n" + "".join(f"- name: {n}\n" for n in range(100)))
    with pytest.raises(BadRequestError, match="larger than"):
        run_configs(parsed, RefContext(), {}, environment={"A": "x" * 100_000})


def test_an_invalid_expression_is_reported_wherever_it_stands() -> None:
    assert len(refused(branches("(", "a", "(")).problems) == 2

"""Programs are evaluated with their context, and hostile ones are ended."""

from __future__ import annotations

import json

import pytest

from runstream.evaluation.program import EvaluationError, EvaluationLimits, ProgramFormat, evaluate

CONTEXT = {"ref_type": "branch", "ref": "refs/heads/main", "branch": "main", "tag": "", "commit_sha": "c0ffee"}
TIGHT = EvaluationLimits(seconds=20, output_bytes=100_000)


def value(source: str, program: ProgramFormat, limits: EvaluationLimits = TIGHT) -> object:
    return json.loads(evaluate(source, program, f"config.{program}", CONTEXT, limits))


@pytest.mark.parametrize(
    ("program", "source"),
    [
        ("jsonnet", 'function(ctx) { branch: ctx.branch, list: [n * 2 for n in [1, 2]], text: "é<&>" }'),
        (
            "starlark",
            'def main(ctx):\n  return {"branch": ctx["branch"], "list": [n * 2 for n in (1, 2)], "text": "é<&>"}',
        ),
    ],
)
def test_a_program_is_given_the_context(program: ProgramFormat, source: str) -> None:
    assert value(source, program) == {"branch": "main", "list": [2, 4], "text": "é<&>"}


def test_what_starlark_converts() -> None:
    source = "def main(ctx):\n  print('gone')\n  return {'none': None, 'yes': True, 'big': 1 << 100, 'pair': (0.5, [])}"
    assert value(source, "starlark") == {"none": None, "yes": True, "big": 1 << 100, "pair": [0.5, []]}


@pytest.mark.parametrize(
    ("program", "source", "said"),
    [
        ("jsonnet", "{ a: ", "config.jsonnet:1"),
        ("jsonnet", "error 'boom'", "boom"),
        ("jsonnet", "import '/etc/passwd'", "cannot be imported"),
        ("jsonnet", "importstr '../../../etc/passwd'", "cannot be imported"),
        ("jsonnet", "local f(x) = f(x + 1) + 1; f(1)", "stack"),
        ("starlark", "def main(ctx)", "config.starlark:1"),
        ("starlark", "x = 1", "main"),
        ("starlark", "def main(ctx):\n  return [1]", "must return a dict"),
        ("starlark", "def main(ctx):\n  return {10: 1}", "is not a string"),
        ("starlark", "def main(ctx):\n  return {'a': [{10: 1}]}", "is not a string"),
        ("starlark", "def main(ctx):\n  return {'a': main}", "function"),
        ("starlark", "load('x', 'y')\ndef main(ctx):\n  return {}", "load"),
        ("starlark", "def f(x):\n  return f(x)\ndef main(ctx):\n  return f(1)", "overflow"),
        ("starlark", "def main(ctx):\n  fail('boom')", "boom"),
    ],
)
def test_a_failed_program_reports_its_error(program: ProgramFormat, source: str, said: str) -> None:
    with pytest.raises(EvaluationError, match=f"failed to execute {program}") as failed:
        value(source, program)
    assert said in failed.value.message


@pytest.mark.parametrize(
    ("program", "source"),
    [
        ("jsonnet", "std.foldl(function(a, b) a + b, std.range(1, 1000000000), 0)"),
        (
            "starlark",
            "def main(ctx):\n  for a in range(1000000):\n    for b in range(1000000):\n      pass\n  return {}",
        ),
    ],
)
def test_an_endless_program_is_ended(program: ProgramFormat, source: str) -> None:
    with pytest.raises(EvaluationError) as ended:
        value(source, program, EvaluationLimits(seconds=0.5, memory_bytes=1 << 30))
    assert ended.value.code in {"configTimeLimit", "configMemoryLimit"}


@pytest.mark.parametrize(
    ("program", "source"),
    [
        ("jsonnet", 'std.makeArray(100000000, function(i) "abc" + i)'),
        ("starlark", "def main(ctx):\n  return {'a': ['x' * 1000000 + str(n) for n in range(1000)]}"),
    ],
)
def test_a_program_that_wants_all_memory_is_ended(program: ProgramFormat, source: str) -> None:
    with pytest.raises(EvaluationError, match="memory"):
        value(source, program)


@pytest.mark.parametrize(
    ("program", "source"),
    [
        ("jsonnet", '{ a: std.repeat("x", 200000) }'),
        ("starlark", "def main(ctx):\n  return {'a': 'x' * 200000}"),
    ],
)
def test_a_program_that_makes_too_much_is_refused(program: ProgramFormat, source: str) -> None:
    with pytest.raises(EvaluationError, match="more than 100000 bytes"):
        value(source, program)

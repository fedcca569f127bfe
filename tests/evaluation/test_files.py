"""A file of any format becomes the same configuration; problems name the file, and a path in what a program made."""

from __future__ import annotations

import json

import pytest

from runstream.evaluation.files import NAMES, ConfigName, candidates, parse_file
from runstream.evaluation.program import EvaluationError
from runstream.runconfig.parse import parse_config
from runstream.runconfig.problems import ConfigError
from runstream.runconfig.refs import RefContext

MAIN = RefContext(ref_type="branch", branch="main", ref="refs/heads/main", commit_sha="c0ffee")
FILES: dict[ConfigName, str] = {
    "config.star": """
def main(ctx):
    return {"runs": [{"name": ctx["branch"], "tasks": [task(n) for n in range(2)]}]}

def task(n):
    return {"name": n, "runtime": {"type": "host"}, "steps": ["run: never"][:0]}
""",
    "config.jsonnet": """
function(ctx) {
  runs: [{ name: ctx.branch, tasks: [{ name: n, runtime: { type: 'host' }, steps: [] } for n in [0, 1]] }],
}
""",
    "config.json": json.dumps(
        {"runs": [{"name": "main", "tasks": [{"name": n, "runtime": {"type": "host"}} for n in ("0", "1")]}]}
    ),
    "config.yml": "runs: [{name: main, tasks: [{name: 0, runtime: {type: host}}, {name: 1, runtime: {type: host}}]}]",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_format_says_the_same(name: ConfigName) -> None:
    assert parse_file(name, FILES[name], MAIN) == parse_config(FILES["config.yml"])


def test_where_they_are_looked_for() -> None:
    assert list(candidates()) == [
        ".runstream/config.star",
        ".runstream/config.jsonnet",
        ".runstream/config.json",
        ".runstream/config.yml",
        ".agola/config.star",
        ".agola/config.jsonnet",
        ".agola/config.json",
        ".agola/config.yml",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.jsonnet", "function(ctx) { run: ctx, runs: [{ name: 'r', task: [] }] }"),
        ("config.star", "def main(ctx):\n  return {'run': ctx, 'runs': [{'name': 'r', 'task': []}]}"),
    ],
)
def test_problems_have_a_path(name: ConfigName, content: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_file(name, content, RefContext())
    assert [problem.path for problem in refused.value.problems] == ["run", "runs[0].task"]
    assert refused.value.message.startswith(f"{name} is not valid: run: unknown field")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.jsonnet", "function(ctx) error std.toString(std.objectFields(ctx))"),
        ("config.star", "def main(ctx):\n  fail(sorted(ctx.keys()))\n"),
    ],
)
def test_every_key_of_the_context_is_there(name: ConfigName, content: str) -> None:
    with pytest.raises(EvaluationError) as told:
        parse_file(name, content, RefContext())
    assert '["branch", "commit_sha", "pull_request_id", "ref", "ref_type", "tag"]' in told.value.message


def test_the_limit_on_size_is_measured_on_what_was_made() -> None:
    small = "def main(ctx):\n  return {'runs': [], 'x-a': 'a' * (1 << 20)}"
    with pytest.raises(EvaluationError, match="more than 1048576 bytes"):
        parse_file("config.star", small, MAIN)
    big = f"# {'a' * (1 << 20)}\n{FILES['config.star']}"
    assert parse_file("config.star", big, MAIN).runs

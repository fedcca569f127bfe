"""`runstream config check` shows what would run, or every error, without a service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import fields

from runstream.events.run_config import Container, RunConfig, RunConfigTask, Runtime, Step
from tests.cli.conftest import Command

JSONNET = """
function(ctx) {
  runs: [
    {
      name: 'all',
      tasks: [
        { name: 'build', runtime: { type: 'host' }, environment: { B: ctx.branch, T: { from_variable: 'token' } } },
        { name: 'test', runtime: { type: 'host' }, depends: [{ build: ['on_success', 'on_failure'] }] },
        { name: 'deploy', runtime: { type: 'host' }, depends: ['test'], approval: true, when: { branch: 'main' } },
      ],
    },
    { name: 'release', when: { tag: '/^v/' } },
  ],
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".runstream").mkdir()
    (tmp_path / ".runstream" / "config.jsonnet").write_text(JSONNET)
    return tmp_path


def test_what_would_run_is_shown_for_people(command: Command, folder: Path) -> None:
    done = command("config", "check", "--branch", "feature/x")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        ".runstream/config.jsonnet is valid; for branch feature/x it would run:",
        "run all",
        "  build: level 0; host",
        "    B=feature/x, T={from_variable: token}",
        "  test: level 1; host; after build (on_success or on_failure)",
        "  deploy: level 2; host; after test; skipped: its `when` does not match; waits for approval",
        "run release: not, its `when` does not match",
        "variables that were not given: token",
        *(
            f'warning: runs[0].tasks[{index}].steps: task "{name}" has no steps: it does nothing (add `steps`)'
            for index, name in enumerate(("build", "test", "deploy"))
        ),
    ]


def test_what_would_run_is_shown_for_programs(command: Command, folder: Path) -> None:
    done = command("config", "check", "--tag", "v1", "--commit", "c0ffee", "--var", "token=t0ken", "-o", "json")
    told = json.loads(done.out)
    assert told["context"] | {"ref": "refs/tags/v1", "ref_type": "tag", "commit_sha": "c0ffee"} == told["context"]
    everything, release = told["runs"]
    assert (release["matches"], release["tasks"]) == (True, {})
    assert everything["static_environment"]["RUNSTREAM_GIT_TAG"] == "v1"
    assert everything["tasks"]["build"]["environment"] == {"B": "", "T": "t0ken"}
    assert everything["tasks"]["deploy"]["skip"] is True
    assert everything["tasks"]["test"]["depends"] == {
        "build": {"task_id": "build", "conditions": ["on_success", "on_failure"]}
    }
    assert told["unknown_variables"] == []


def test_how_runs_get_along_is_shown(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(
        "runs:\n- {name: r, concurrency: {policy: queue, max_waiting: 2}, priority: 5,"
        " tasks: [{name: t, runtime: {type: host, labels: {gpu: a100}}, steps: [{run: x}]}]}\n"
        "- {name: s, concurrency: skip}\n"
    )
    lines = command("config", "check", "a.yml").out.splitlines()
    assert lines[1:] == [
        "run r (at most 2 waiting; priority 5)",
        "  t: level 0; host gpu=a100",
        "run s (concurrency skip)",
    ]
    (first, second) = json.loads(command("config", "check", "a.yml", "-o", "json").out)["runs"]
    assert (first["concurrency"], first["priority"]) == ({"policy": "queue", "max_waiting": 2}, 5)
    assert first["tasks"]["t"]["runtime"]["labels"] == {"gpu": "a100"}
    assert second["concurrency"] == {"policy": "skip", "max_waiting": 0}


def test_retries_and_limits_are_shown(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(
        "no_output_timeout: 5m\nruns:\n- {name: r, run_timeout_interval: 1h, tasks: [{name: t, runtime: {type: host},"
        " task_timeout_interval: 90s, retry: {max: 2, backoff: 10s, on: [lost]}, steps: [{run: make}]}]}\n"
    )
    lines = command("config", "check", "a.yml").out.splitlines()
    assert lines[1:] == [
        "run r (at most 1h0m0s)",
        "  t: level 0; host; at most 1m30s; tried up to 2 times more after lost, the first after 10s",
    ]
    (run,) = json.loads(command("config", "check", "a.yml", "-o", "json").out)["runs"]
    assert run["run_timeout_interval"] == 3_600_000_000_000
    assert run["tasks"]["t"]["retry"] == {"max": 2, "backoff": 10_000_000_000, "on": ["lost"]}
    assert run["tasks"]["t"]["steps"][0]["no_output_timeout"] == 300_000_000_000


def test_secrets_are_shown_by_their_names(command: Command, folder: Path) -> None:
    (folder / "variables.yml").write_text("token: from the file\n")
    (folder / "secrets.json").write_text('{"token": "hunter2"}')
    plain = command("config", "check", "--branch", "main", "--var-file", "variables.yml")
    assert "T=from the file" in plain.out
    for output in ("table", "json"):
        done = command("config", "check", "--branch", "main", "--secret-file", "secrets.json", "-o", output)
        assert "hunter2" not in done.out + done.err
        assert "{from_variable: token}" in done.out
        assert "not given" not in done.out


def test_every_error_is_reported_at_once(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("runs:\n- name: r\n  task: []\n- {}\n")
    done = command("config", "check", "a.yml")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[:3] == [
        "error: a.yml is not valid:",
        "  line 3, runs[0].task: unknown field \"task\" (did you mean 'tasks'?)",
        "  line 4, runs[1]: run at index 1 has empty name (add a name field)",
    ]
    told = command("config", "check", "a.yml", "--output", "json")
    assert told.code == 1
    assert [(one["path"], one["line"]) for one in json.loads(told.out)["errors"]] == [
        ("runs[0].task", 3),
        ("runs[1]", 4),
    ]


def test_what_is_ignored_is_worth_a_warning(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("runs:\n- name: r\n  colour: red\n")
    warning = 'line 3, runs[0].colour: unknown field "colour" is ignored'
    done = command("config", "check", "a.yml")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1].startswith(f"warning: {warning}")
    (told,) = json.loads(command("config", "check", "a.yml", "-o", "json").out)["warnings"]
    assert (told["path"], told["line"]) == ("runs[0].colour", 3)
    strict = command("config", "check", "a.yml", "--strict")
    assert (strict.code, strict.out) == (1, "")
    assert warning.removesuffix(" is ignored") in strict.err
    assert "ignored" not in strict.err


def test_a_failed_program_is_reported(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.star").write_text("def main(ctx):\n  fail('boom')\n")
    assert "boom" in command("config", "check", "a.star").err
    (error,) = json.loads(command("config", "check", "a.star", "-o", "json").out)["errors"]
    assert ("boom" in error["message"], error["line"]) == (True, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("absent.yml",), "there is no configuration file absent.yml"),
        (("--branch", "a", "--tag", "b"), "only one of branch, tag and ref"),
        (("--var", "novalue"), "is not NAME=VALUE"),
        (("--var-file", "absent"), "absent cannot be read"),
        (("--var-file", "list.yml"), "expected a map"),
        (("config.toml",), "its suffix names no format"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    command: Command, folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    (folder / "list.yml").write_text("- a\n")
    (folder / "config.toml").write_text("")
    done = command("config", "check", *arguments)
    assert done.code == 1
    assert said in done.err


def test_the_first_file_is_taken_and_runstream_comes_before_agola(command: Command, tmp_path: Path) -> None:
    for name in ("agola/config.star", "runstream/config.yml", "runstream/config.json", "runstream/config.jsonnet"):
        file = tmp_path / f".{name}"
        file.parent.mkdir(exist_ok=True)
        file.write_text("{}")
    for taken in (".runstream/config.jsonnet", ".runstream/config.json", ".runstream/config.yml", ".agola/config.star"):
        assert taken in command("config", "check").err
        (tmp_path / taken).unlink()
    assert "there is no configuration file" in command("config", "check").err


def test_nothing_of_a_run_config_is_left_out(command: Command, folder: Path) -> None:
    (folder / "all.yml").write_text(
        "runs: [{name: r, tasks: [{name: t, runtime: {containers: [{volumes: [{path: /a, tmpfs: {}}]}]}, "
        "steps: [{run: a}], docker_registries_auth: {h: {username: u}}}]}]"
    )
    (run,) = json.loads(command("config", "check", "all.yml", "-o", "json").out)["runs"]
    left_out = {"cache_group"}  # what the file does not say
    assert set(run) - {"matches"} == {field.name for field in fields(RunConfig)} - left_out
    task = run["tasks"]["t"]
    assert set(task) - {"id"} == {field.name for field in fields(RunConfigTask)}
    assert set(task["runtime"]) == {field.name for field in fields(Runtime)}
    (container,) = task["runtime"]["containers"]
    assert set(container) == {field.name for field in fields(Container)}
    assert set(task["steps"][0]) == {field.name for field in fields(Step)}


def test_it_imports_neither_http_nor_an_event_loop(tmp_path: Path) -> None:
    (tmp_path / "a.jsonnet").write_text("{runs: [{name: 'r'}]}")
    program = (
        "import sys; sys.argv = ['runstream', 'config', 'check', 'a.jsonnet']\n"
        "from runstream.service.main import app\n"
        "app.meta(result_action='return_value')\n"
        "costly = {'asyncio', 'fastapi', 'httpx2', 'nats', 'rich', 'ruamel', 're2', 'sqlalchemy'}\n"
        "print(sorted(costly & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"

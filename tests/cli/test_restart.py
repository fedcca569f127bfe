"""`run restart` and `--idempotency-key` on the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from tests.cli.conftest import Command
from tests.cli.service import Service

Config = Callable[..., str]


@pytest.fixture
def failed(runstream: Command, config: Config) -> str:
    """A run whose build succeeded, and whose other task failed."""
    done = runstream("run", "create", "--config", config("build", "bad"), "--follow")
    assert done.code == 1
    name = next(line.split()[-1] for line in done.out.splitlines() if line.startswith("  look"))
    return str(json.loads(runstream("run", "get", name, "-o", "json").out)["id"])


def _statuses(runstream: Command, run: str) -> dict[str, tuple[str, bool]]:
    told = json.loads(runstream("run", "get", run, "-o", "json").out)
    return {task["name"]: (task["status"], task["kept"]) for task in told["tasks"].values()}


def _new(out: str) -> str:
    """The name of the run that was created."""
    return out.splitlines()[0].split()[-1]


def test_what_failed_runs_again_and_the_log_of_the_rest_is_readable(runstream: Command, failed: str) -> None:
    done = runstream("run", "restart", failed, "--from-failed", "--follow")
    assert done.code == 1
    assert re.search(r"(?m)^build: success \(kept\)", done.out)
    assert "build | first line" not in done.out
    assert "bad | first line" in done.out
    new = next(line.split()[-1] for line in done.out.splitlines() if line.startswith("  look"))
    assert new != failed
    assert _statuses(runstream, new) == {"build": ("success", True), "bad": ("failed", False)}
    assert runstream("log", "get", new, "build").out == "first line\nsecond line\n"
    shown = runstream("run", "get", new).out
    assert re.search(r"^restarts +/user/admin/\d+ \(what did not succeed\)$", shown, re.MULTILINE)
    assert "success (kept)" in shown


@pytest.mark.parametrize(
    ("arguments", "kept", "words"),
    [
        ((), set(), "all of it"),
        (("--task", "build"), {"bad"}, "build"),
        (("--task", "build", "--task", "bad", "--and-descendants"), set(), "build, bad and what depends on it"),
    ],
)
def test_what_runs_again(
    runstream: Command, failed: str, arguments: tuple[str, ...], kept: set[str], words: str
) -> None:
    done = runstream("run", "restart", failed, *arguments)
    assert (done.code, done.err) == (0, "")
    assert re.match(r"run main #\d+ is \w+  /user/admin/\d+\n", done.out)
    new = _new(done.out)
    assert {name for name, (_, is_kept) in _statuses(runstream, new).items() if is_kept} == kept
    assert f"({words})" in runstream("run", "get", new).out


def test_the_new_run_as_json_with_another_environment(runstream: Command, failed: str) -> None:
    done = runstream("run", "restart", failed, "--env", "STAGE=two", "-o", "json")
    assert json.loads(done.out)["restart"]["run_id"] == failed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--from-failed", "--task", "build"), "error: give either --from-failed or --task"),
        (("--and-descendants",), "error: --and-descendants needs --task"),
        (("--task", "nope"), "error: NAME has no task 'nope'"),
    ],
)
def test_mistyped_options(runstream: Command, failed: str, arguments: tuple[str, ...], says: str) -> None:
    done = runstream("run", "restart", failed, *arguments)
    told = re.sub(r"/user/admin/\d+", "NAME", done.err.splitlines()[0])
    assert (done.code, told) == (1, says)


def test_fresh_takes_the_same_file_with_other_inputs(runstream: Command, failed: str, config: Config) -> None:
    path = config("build", "bad")
    done = runstream(
        "run", "restart", failed, "--from-failed", "--fresh", "--config", path, "--var", "A=1", "-o", "json"
    )
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["restart"]["fresh"] is True
    other = runstream("run", "restart", failed, "--fresh", "--config", config("build"))
    assert (other.code, other.err.splitlines()[0]) == (1, "error: the file has other tasks than the run: bad")
    unused = runstream("run", "restart", failed, "--var", "A=1")
    assert (unused.code, "need --fresh" in unused.err) == (1, True)


def test_a_run_that_goes_on_is_refused_with_what_is_possible(runstream: Command, config: Config) -> None:
    run = json.loads(runstream("run", "create", "--config", config("slow"), "-o", "json").out)[0]["id"]
    done = runstream("run", "restart", run)
    assert done.code == 1
    assert done.err.splitlines() == [
        "error: the run is running and cannot be restarted",
        "hint: a running run can be stopped; it can be restarted once it has ended",
    ]


def test_the_same_key_gives_the_same_run(runstream: Command, config: Config, served: Service) -> None:
    path = config("build")
    first = runstream("run", "create", "--config", path, "--idempotency-key", "one", "--follow")
    again = runstream("run", "create", "--config", path, "--idempotency-key", "one")
    assert (first.code, again.code) == (0, 0)
    run = _new(again.out)
    assert run in first.out
    assert re.match(r"run main #\d+ is finished  /user/admin/\d+\n", again.out)
    assert runstream("run", "create", "--config", path, "--idempotency-key", "one", "--follow").code == 0
    run_id = json.loads(runstream("run", "get", run, "-o", "json").out)["id"]
    other = runstream("run", "create", "--config", path, "--idempotency-key", "one", "--env", "A=1")
    assert (other.code, other.err.splitlines()[0]) == (
        1,
        f"error: the idempotency key 'one' was used for another request, which created run {run_id}",
    )
    restarts = {_new(runstream("run", "restart", run, "--idempotency-key", "two").out) for _ in range(2)}
    assert len(restarts) == 1

"""`run history`, `run diff` and `run restart --dry-run`."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.cli.conftest import Command

Config = Callable[..., str]


def _create(runstream: Command, path: str) -> str:
    done = runstream("run", "create", "--config", path, "--output", "json")
    run = str(json.loads(done.out)[0]["id"])
    assert runstream("run", "follow", run).code in (0, 1)
    return run


def test_the_commits_of_a_run_are_listed_with_what_caused_them(runstream: Command, config: Config) -> None:
    run = _create(runstream, config("build"))
    told = json.loads(runstream("run", "history", run, "-o", "json").out)
    assert [commit["number"] for commit in told] == [*range(1, len(told) + 1)]
    assert told[0]["cause_kind"] == "request"
    lines = runstream("run", "history", run).out.splitlines()
    assert lines[0].split() == ["NUMBER", "TIME", "AFTER", "TASK", "EVENTS", "BY", "CAUSE", "POSITION"]
    assert len(lines) == len(told) + 1
    assert "RunCreated" in lines[1]
    assert "user:admin" in lines[1]
    assert any("build" in line and "ExecutorTaskStarted" in line for line in lines)
    followed = runstream("run", "history", run, "--follow").out.splitlines()
    assert len(followed) == len(told)
    assert "build: ExecutorTaskAssigned" in "".join(followed)
    assert [json.loads(line) for line in runstream("run", "history", run, "-f", "-o", "json").out.splitlines()] == told


def test_a_failed_run_is_compared_with_the_last_one_that_succeeded(runstream: Command, config: Config) -> None:
    green, red = _create(runstream, config("build")), _create(runstream, config("build", "bad"))
    done = runstream("run", "diff", red)
    assert done.code == 0, done.err
    assert "(success) -> " in done.out.splitlines()[0]
    assert "(failed)" in done.out.splitlines()[0]
    assert ["configuration", "bad", "the", "task", "-", "there"] in [line.split() for line in done.out.splitlines()]
    told = json.loads(runstream("run", "diff", red, green, "-o", "json").out)
    assert told == json.loads(runstream("run", "diff", red, "-o", "json").out)
    assert told["vs"]["id"] == green
    position = json.loads(runstream("run", "history", red, "-o", "json").out)[0]["position"]
    earlier = json.loads(runstream("run", "diff", red, "--vs-at", position, "-o", "json").out)
    assert (earlier["vs"]["id"], earlier["vs"]["at"], earlier["vs"]["phase"]) == (red, position, "queued")
    assert "nothing differs but times" in runstream("run", "diff", red, red).out


def test_a_dry_run_of_a_restart_says_what_would_run_again(runstream: Command, config: Config) -> None:
    red = _create(runstream, config("build", "bad"))
    assert runstream("run", "restart", red, "--from-failed", "--dry-run").out.splitlines() == [
        "runs again: bad",
        "keeps its outcome: build",
    ]
    told = json.loads(runstream("run", "restart", red, "--dry-run", "-o", "json").out)
    assert (set(told["again"]), told["kept"]) == ({"build", "bad"}, [])
    green = _create(runstream, config("build"))
    refused = runstream("run", "restart", green, "--from-failed", "--dry-run")
    assert (refused.code, refused.out.startswith("the run succeeded: it has no failed tasks")) == (1, True)

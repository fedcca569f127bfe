"""`run delete`: of several runs, after a confirmation, and what is said about the others."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.service import Service
from tests.cli.terminal import PROGRAM, on_terminal
from tests.gateway.world import TOKEN

Config = Callable[..., str]


@pytest.fixture
def runs(runstream: Command, config: Config) -> list[str]:
    """Two runs that have ended."""
    for _ in range(2):
        assert runstream("run", "create", "--config", config("build"), "--follow").code == 0
    listed = json.loads(runstream("run", "list", "--limit", "2", "-o", "json").out)
    return [str(run["id"]) for run in listed["runs"]]


def test_several_runs_are_deleted_at_once(runstream: Command, runs: list[str]) -> None:
    done = runstream("run", "delete", *runs, runs[0], "--yes")
    assert done.code == 0, done
    lines = done.out.splitlines()
    for run, line in zip(runs, lines, strict=True):
        assert line.startswith("run /user/admin/")
        assert line.endswith(f" ({run}) is deleted")
    for run, line in zip(runs, lines, strict=True):
        number = line.split()[1]
        for name in (run, number):
            gone = runstream("run", "get", name)
            assert gone.code == 1
            assert f"run {run} was deleted by a user at " in gone.err
            assert f" run get {run} --at " in gone.err
        moment = gone.err.rpartition(" --at ")[2].split()[0].rstrip("`")
        past = runstream("run", "get", number, "--at", moment, "-o", "json")
        assert json.loads(past.out)["id"] == run
        assert "RunDeleted" in runstream("run", "history", number, "-o", "json").out
    never = runstream("run", "get", "/user/admin/99999")
    assert "/user/admin has no run 99999" in never.err
    for run in runs:
        assert runstream("log", "get", run, "build").code == 1


def test_nothing_is_deleted_without_a_confirmation(runstream: Command, runs: list[str]) -> None:
    refused = runstream("run", "delete", *runs)
    assert refused.code != 0
    assert "this would delete " in refused.err
    assert "pass --yes to confirm" in refused.err
    assert all(runstream("run", "get", run).code == 0 for run in runs)


def test_a_run_that_has_not_ended_is_not_deleted(runstream: Command, config: Config) -> None:
    created = runstream("run", "create", "--config", config("slow"))
    run = created.out.splitlines()[0].split()[-1]
    refused = runstream("run", "delete", "latest", "--yes")
    assert refused.code == 1
    assert "and cannot be deleted" in refused.err
    assert "can be stopped or paused" in refused.err or "can be cancelled or paused" in refused.err
    assert runstream("run", "get", "latest").code == 0, run


@pytest.mark.parametrize(("answer", "deleted"), [("y", True), ("n", False), ("", False)])
async def test_a_terminal_is_asked(
    served: Service, runstream: Command, runs: list[str], answer: str, deleted: bool
) -> None:
    inherited = os.environ | {"PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}"}
    environment = {**inherited, "TERM": "xterm", "RUNSTREAM_URL": served.url, "RUNSTREAM_TOKEN": TOKEN}
    async with on_terminal(environment, "run", "delete", runs[0], columns=200) as terminal:
        await terminal.shows("This cannot be undone. [y/N] ")
        terminal.type(f"{answer}\n")
        assert (await terminal.ended() == 0) is deleted
    got = await asyncio.to_thread(runstream, "run", "get", runs[0])
    assert (got.code == 1) is deleted

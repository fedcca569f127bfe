"""Logs and followed runs on a real terminal, and the same through a pipe."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from runstream.subjects import StepLogKey
from tests.cli.conftest import Command
from tests.cli.service import Service
from tests.cli.terminal import PROGRAM, on_terminal
from tests.gateway.world import TOKEN

Config = Callable[..., str]
CREATE = ("run", "create", "--follow", "--group", "/project/web/branch/main", "--config")
HOSTILE = b"\x1b]0;title\x07one\n\x1b[31mred\x1b[2J\n\x1b]52;c;cm0=\x1b\\two\x07\n\x1b[?1049hthree\n"


@pytest.fixture
def environment(served: Service) -> dict[str, str]:
    inherited = os.environ | {"PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}"}
    inherited = {name: value for name, value in inherited.items() if name != "NO_COLOR"}
    return {**inherited, "TERM": "xterm", "RUNSTREAM_URL": served.url, "RUNSTREAM_TOKEN": TOKEN}


@pytest.fixture
def hostile(served: Service, runstream: Command, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose task wrote sequences that steer a terminal, cut anywhere."""
    monkeypatch.setattr(served.world.step_logs, "chunks", [HOSTILE[:3], HOSTILE[3:16], HOSTILE[16:]])
    assert runstream("run", "create", "--config", config("test"), "--group", "/project/web/branch/main").code == 0


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("changes", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
async def test_a_log_on_a_terminal_has_text_and_colours_alone(
    environment: dict[str, str], changes: dict[str, str]
) -> None:
    async with on_terminal(environment | changes, "log", "get", "latest", "test") as terminal:
        assert await terminal.ended() == 0
        coloured = "one\n\x1b[31mred\x1b[0m\ntwo\nthree\n"
        assert terminal.written.replace("\r\n", "\n") == (coloured if not changes else "one\nred\ntwo\nthree\n")


@pytest.mark.usefixtures("hostile")
async def test_a_log_in_a_pipe_has_its_bytes_unchanged(environment: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "log", "get", "latest", "test", env=environment, stdout=subprocess.PIPE
    )
    assert (await process.communicate())[0] == HOSTILE


@pytest.fixture
def let_go(served: Service, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Ends the logs of tasks named `flood…`, which write without an end, and `ask…`, which wait at a prompt."""
    end = threading.Event()

    async def opened(key: StepLogKey, **options: object) -> AsyncIterator[bytes]:
        return _until(end, key.task)

    monkeypatch.setattr(served.world.step_logs, "open", opened)
    return end


async def _until(end: threading.Event, task: str) -> AsyncIterator[bytes]:
    yield b"\rdownload 10%\rdownload 40%" if task.startswith("bar") else b"Continue? "
    while not end.is_set():
        await asyncio.sleep(0)
        if task.startswith("flood"):
            yield b"x\n" * 2_000
    yield b"\rdownload 100%\n" if task.startswith("bar") else b"yes"


@pytest.mark.parametrize(("task", "unfinished"), [("ask", "ask | Continue? "), ("bar", "bar | download 40%")])
async def test_a_line_that_has_not_ended_is_shown(
    environment: dict[str, str], config: Config, let_go: threading.Event, task: str, unfinished: str
) -> None:
    async with on_terminal(environment, *CREATE, config(task)) as terminal:
        await terminal.shows(unfinished.rstrip())
        let_go.set()
        assert await terminal.ended() == 0
        assert f"{task} | Continue? yes\n" in terminal.text or "bar | download 100%\n" in terminal.text
        assert "download 10%" not in terminal.text


async def test_the_state_that_is_drawn_is_of_now_however_much_is_written(
    environment: dict[str, str], config: Config, let_go: threading.Event
) -> None:
    async with on_terminal(environment, *CREATE, config("flood", "quick")) as terminal:
        await terminal.shows("✓ flood  success")  # and its log goes on and on
        await terminal.shows(" lines left out: ")
        let_go.set()
        assert await terminal.ended() == 0
        assert re.search(r"flood \| … [\d,]+ lines left out: runstream log get /project/web/\d+ flood\n", terminal.text)
        assert "flood | yes\n" in terminal.text
        assert terminal.text.count(": success after") == 1  # the end is told once


async def test_the_command_that_approves_can_be_pasted_from_any_width(
    environment: dict[str, str], config: Config, runstream: Command
) -> None:
    tasks = config("production", extra="        approval: true\n")
    async with on_terminal(environment, *CREATE, tasks, columns=100) as terminal:
        await terminal.shows("approve with:\nrunstream run approve /project/web/")
        resized = len(terminal.text)
        terminal.resize(columns=40, lines=12)
        await terminal.shows(" \\\n  production", after=resized)
        pasted = re.search(r"runstream run approve [^\n]*\\\n  production", terminal.text[resized:])
        assert pasted
        words = shlex.split(pasted[0].replace("\\\n", ""))
        assert words[:3] == ["runstream", "run", "approve"]
        assert (await asyncio.to_thread(runstream, *words[1:])).code == 0
        assert await terminal.ended() == 0


@pytest.mark.parametrize("changes", [{"TERM": "dumb"}, {"PYTHONIOENCODING": "ascii"}, {"NO_COLOR": "1"}])
async def test_a_run_can_be_followed_on_any_terminal(
    environment: dict[str, str], config: Config, changes: dict[str, str]
) -> None:
    async with on_terminal(environment | changes, *CREATE, config("build", "bad")) as terminal:
        assert await terminal.ended() == 1
        assert "build | second line\n" in terminal.text
        assert "bad failed: step 1 of 1: do, exit status 3\n" in terminal.text
        sequences = set(re.findall("\x1b\\[[0-9;]*([a-zA-Z])", terminal.written))
        if "TERM" in changes:
            assert not sequences
        elif "PYTHONIOENCODING" in changes:
            assert terminal.text.isascii()
        else:
            assert not re.search("\x1b\\[[0-9;]*3[0-9]m", terminal.written)

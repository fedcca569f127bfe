"""Logs and followed runs on a real terminal, and the same through a pipe."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable

import pytest

from tests.cli.conftest import Command
from tests.cli.service import Service
from tests.cli.terminal import PROGRAM, on_terminal
from tests.gateway.world import TOKEN

HOSTILE = b"\x1b]0;title\x07one\n\x1b[31mred\x1b[2J\n\x1b]52;c;cm0=\x1b\\two\x07\n\x1b[?1049hthree\n"


@pytest.fixture
def environment(served: Service) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    return {**inherited, "TERM": "xterm", "RUNSTREAM_URL": served.url, "RUNSTREAM_TOKEN": TOKEN}


@pytest.fixture
def hostile(served: Service, runstream: Command, config: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
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

"""`runstream status` and `runstream env`: what is running, and how a shell or a program reaches it."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from runstream.client import Client, ClientError
from tests.cli.conftest import Command, command, served
from tests.cli.service import Service
from tests.gateway.world import TOKEN

__all__ = ["command", "served"]


@pytest.fixture
def announced(tmp_path: Path, served: Service) -> Path:
    """A data directory whose service is the one of these tests."""
    folder = tmp_path / "data dir"
    folder.mkdir()
    (folder / "service.json").write_text(json.dumps({"url": served.url, "token": TOKEN, "pid": os.getpid()}))
    return folder


def test_no_service(command: Command, tmp_path: Path) -> None:
    done = command("--data-dir", str(tmp_path / "nothing"), "status")
    assert (done.code, done.err) == (1, "")
    assert "not running" in done.out
    assert f"start it  runstream --data-dir {tmp_path / 'nothing'} serve" in done.out


def test_a_service_that_was_killed(command: Command, tmp_path: Path) -> None:
    (tmp_path / "service.json").write_text(json.dumps({"url": "http://127.0.0.1:9", "token": TOKEN, "pid": 4711}))
    done = command("--data-dir", str(tmp_path), "status")
    assert (done.code, done.err) == (1, "")
    assert "process 4711 ended without stopping" in done.out
    assert f"start it  runstream --data-dir {tmp_path} serve (it goes on where it was)" in done.out


def test_a_shell_evaluates_what_env_prints(command: Command, announced: Path, served: Service) -> None:
    lines = command("--data-dir", str(announced), "env").out.splitlines()
    assert [shlex.split(line) for line in lines] == [
        ["export", f"RUNSTREAM_URL={served.url}"],
        ["export", f"RUNSTREAM_TOKEN={TOKEN}"],
        ["export", f"RUNSTREAM_DATA_DIR={announced}"],
    ]
    fish = command("--data-dir", str(announced), "env", "--shell", "fish").out.splitlines()
    assert fish[2] == f"set -gx RUNSTREAM_DATA_DIR '{announced}'"


async def test_a_program_finds_the_local_service(
    command: Command, announced: Path, served: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with Client.local(announced) as client:
        assert (await client.readiness()).ready
        assert await client.executors.list() == ()
    monkeypatch.setenv("RUNSTREAM_DATA_DIR", str(announced))
    assert Client.local().url == served.url
    monkeypatch.setenv("RUNSTREAM_URL", "https://ci.example.com")
    assert Client.local().url == "https://ci.example.com"
    assert Client.local(announced).url == served.url, "what is named wins over the environment"
    with pytest.raises(ClientError, match="no service is running in"):
        Client.local(tmp_path / "nothing")

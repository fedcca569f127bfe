"""Ctrl-C while maintenance is waited for."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from runstream.client import Client, Maintenance
from runstream.client.maintenance import Instance, Part
from tests.cli.conftest import Command

WAITS = Instance(
    id="i1",
    components=("executor",),
    host="here",
    pid=1,
    version="0.2.0",
    state="draining",
    last_state="",
    since=None,
    parked=False,
    epoch=1,
    parts={"executor": Part("draining", 2)},
    positions={},
)
STATUS = Maintenance(
    requested=True,
    current=True,
    service="runs",
    parked=False,
    by="ann",
    reason="",
    since=datetime(2026, 1, 1, tzinfo=UTC),
    deadline=None,
    instances=(WAITS,),
    history=(),
    tag="1",
)


@pytest.fixture
def heeded() -> Iterator[None]:
    """Ctrl-C interrupts, also where the suite was started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_ctrl_c_says_that_maintenance_stays_enabled(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    async def enable(*_: object, **__: object) -> Maintenance:
        return STATUS

    async def wait(*_: object, **__: object) -> Maintenance:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
        raise AssertionError

    client = Client("http://127.0.0.1:1", token="t")
    monkeypatch.setattr(type(client.maintenance), "enable", enable)
    monkeypatch.setattr(type(client.maintenance), "status", wait)
    done = command("--url", "http://127.0.0.1:1", "maintenance", "enable", "--wait")
    says = "maintenance stays enabled: `runstream --url http://127.0.0.1:1 maintenance disable` ends it\n"
    assert (done.code, done.err) == (130, says)
    assert done.out == "executor (process 1 on here): draining (2 tasks to end)\n"

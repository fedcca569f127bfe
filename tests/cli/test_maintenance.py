"""Ctrl-C while maintenance is waited for."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from runstream.client import Client, Instance, Maintenance, Page, Part, Run
from tests.cli.conftest import Command
from tests.cli.test_graph import RUN, TASK

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

    async def page(*_: object, **__: object) -> Page:
        return Page(runs=(RUN,), next_start=None, cursor="")

    async def get(*_: object, **__: object) -> Run:
        names = [f"t{number}" for number in range(7)]
        tasks = {name: replace(TASK, id=name, name=name, status="running") for name in names}
        return replace(RUN, tasks=tasks | {"done": replace(TASK, status="success")})

    client = Client("http://127.0.0.1:1", token="t")
    monkeypatch.setattr(type(client.runs), "page", page)
    monkeypatch.setattr(type(client.runs), "get", get)
    monkeypatch.setattr(type(client.maintenance), "enable", enable)
    monkeypatch.setattr(type(client.maintenance), "status", wait)
    done = command("--url", "http://127.0.0.1:1", "maintenance", "enable", "--wait")
    says = "maintenance stays enabled: `runstream --url http://127.0.0.1:1 maintenance disable` ends it\n"
    named = ", ".join(f"t{number} of /project/p/1" for number in range(5))
    says += f"tasks that were running when it began: {named} and 2 more\n"
    says += "`runstream --url http://127.0.0.1:1 maintenance enable --deadline 10m` stops those that take longer\n"
    assert (done.code, done.err) == (130, says)
    assert done.out == "executor (process 1 on here): draining (2 tasks to end)\n"

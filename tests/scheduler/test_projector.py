"""Changes between two transactions are written in one; a waiting reader does not wait for the interval."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from runstream.projections.fold import Changes
from runstream.projections.store import ProjectionStore
from runstream.scheduler import projector
from runstream.scheduler.projector import Projector


class Store:
    """Takes note of what is applied."""

    def __init__(self) -> None:
        self.applied: list[tuple[int, int]] = []

    async def apply(self, changes: Changes, *, unparked: tuple[int, ...] = ()) -> None:
        self.applied.append((changes.before, changes.after))


def changes(before: int, after: int) -> Changes:
    return Changes(0, 1, before, after)


@pytest.fixture(autouse=True)
def _slow_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "PACE_SECONDS", 3600.0)


async def test_changes_that_gather_are_one_transaction() -> None:
    store = Store()
    first = asyncio.Event()
    applying = Projector(cast("ProjectionStore", store), lambda _: first.set())
    running = asyncio.create_task(applying.run())
    await applying.put(changes(0, 1))
    await first.wait()
    await applying.put(changes(1, 2))
    await applying.put(changes(2, 3))
    assert applying.behind == 2
    await applying.drained()
    assert store.applied == [(0, 1), (1, 3)]
    running.cancel()
    await asyncio.wait({running})


async def test_a_waiting_reader_hastens_the_projection() -> None:
    store = Store()
    applying = Projector(cast("ProjectionStore", store), lambda _: None)
    running = asyncio.create_task(applying.run())
    for after in (1, 2, 3):
        await applying.put(changes(after - 1, after))
        await applying.drained()
    assert store.applied == [(0, 1), (1, 2), (2, 3)]
    running.cancel()
    await asyncio.wait({running})

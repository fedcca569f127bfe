"""Coroutines that take turns at every access to log and storage, in an order that a test chooses; any may be killed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from runstream.commits import NewCommit, Position, StoredCommit
from runstream.log.port import AppendConflictError
from runstream.objects.port import BytesSource, Object, ObjectReader, not_exist
from runstream.subjects import Address
from tests.log.memory import MemoryLog

BEGUN = datetime.fromisoformat("2026-01-01T00:00:00Z")


class Clock:
    """The time, which a test moves."""

    def __init__(self) -> None:
        self.time = BEGUN

    def now(self) -> datetime:
        return self.time

    def later(self, by: timedelta) -> None:
        self.time += by


class _Turn:
    def __await__(self) -> Generator[None, None, None]:
        yield


async def turn() -> None:
    """Let the test choose who goes on."""
    await _Turn()


class SteppedLog(MemoryLog):
    """A log in memory, where each access is a turn."""

    async def append_all(self, commits: Sequence[NewCommit]) -> list[Position | AppendConflictError]:
        await turn()
        return await super().append_all(commits)

    async def last(self, address: Address) -> StoredCommit | None:
        await turn()
        return await super().last(address)

    async def history(self, address: Address) -> list[StoredCommit]:
        await turn()
        return await super().history(address)


class SteppedObjects:
    """An object storage in memory, where each access is a turn."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.paths: dict[str, datetime] = {}

    async def stat(self, path: str) -> Object:
        await turn()
        if path not in self.paths:
            raise not_exist(path)
        return Object(path, 0, self.paths[path])

    async def read(self, path: str) -> ObjectReader:
        raise NotImplementedError

    async def write(self, path: str, source: object, *, size: int = -1, persist: bool = False) -> None:
        assert isinstance(source, BytesSource)
        await turn()
        self.paths[path] = self._clock.now()

    async def write_all(self, contents: Mapping[str, object]) -> None:
        for path in contents:
            await turn()
            self.paths[path] = self._clock.now()

    async def create(self, path: str, source: object, *, size: int = -1) -> bool:
        raise NotImplementedError

    async def delete(self, path: str) -> None:
        await turn()
        if self.paths.pop(path, None) is None:
            raise not_exist(path)

    async def list(self, prefix: str = "", *, start_after: str = "", recursive: bool = True) -> AsyncIterator[Object]:
        assert recursive
        await turn()
        for path in [path for path in sorted(self.paths) if path.startswith(prefix) and path > start_after]:
            if path in self.paths:
                yield Object(path, 0, self.paths[path])


def play(
    actors: list[Coroutine[Any, Any, None]],
    choose: Callable[[int], int],
    switch: Callable[[], bool],
    killed: Callable[[], bool],
) -> None:
    """Run coroutines step by step: `choose(n)` says which of n goes on, until `switch()`; `killed()` whether it dies.

    Races that matter need one to wait while others do a lot, so a test should switch often in some plays and rarely in
    others.
    """
    actors = list(actors)
    index = -1
    try:
        while actors:
            if index < 0 or switch():
                index = choose(len(actors))
            if killed():
                actors.pop(index).close()
                index = -1
                continue
            try:
                actors[index].send(None)
            except StopIteration:
                del actors[index]
                index = -1
    finally:
        for actor in actors:
            actor.close()


def finish(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end."""
    with suppress(StopIteration):
        while True:
            work.send(None)

"""When runs finish, by the log: a run has finished once the commit that says so is durable."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable

from runstream.codec import decode
from runstream.commits import LogPosition
from runstream.events.run import RunFinished, RunResultSet
from runstream.log.port import Log
from runstream.run_states import RunResult

FINISH_SECONDS = 90.0
_FINISHED = b'"type":"RunFinished"'


class Watch:
    """The runs that have finished since the watch began."""

    def __init__(self) -> None:
        self.finished: dict[str, float] = {}
        """Time at which each run's end was seen, by `time.perf_counter`."""
        self._more = asyncio.Event()

    async def until(self, run_ids: Iterable[str]) -> None:
        """Wait, for a bounded time, until these runs have finished."""
        left = set(run_ids)
        async with asyncio.timeout(FINISH_SECONDS):
            while left := left - self.finished.keys():
                self._more.clear()
                await self._more.wait()

    def note(self, run_id: str) -> None:
        """Record that a run has finished."""
        self.finished[run_id] = time.perf_counter()
        self._more.set()


@contextlib.asynccontextmanager
async def watching(log: Log) -> AsyncIterator[Watch]:
    """Watch all partitions from their present end on."""
    watch = Watch()
    ends = await end_of(log)
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(_follow(log, p, after, watch)) for p, after in enumerate(ends.sequences)]
        try:
            yield watch
        finally:
            for reader in readers:
                reader.cancel()


async def end_of(log: Log) -> LogPosition:
    """The present end of the whole log."""
    return LogPosition(log.epoch, tuple([await log.end(partition) for partition in range(log.partitions)]))


async def _follow(log: Log, partition: int, after: int, watch: Watch) -> None:
    runs_alone = f"{log.subjects.prefix(partition)}.run.*"
    async with log.read(partition, after, filters=(runs_alone,)) as reader:
        while True:
            for message in await reader.next_batch():
                if _FINISHED not in message.data:
                    continue
                commit = decode(message).commit
                if any(isinstance(event, RunFinished) for event in commit.events):
                    results = [event.result for event in commit.events if isinstance(event, RunResultSet)]
                    if results and results != [RunResult.SUCCESS]:
                        raise RuntimeError(
                            f"run {commit.address.id} ended as {results[0]}: nothing is measured by that"
                        )
                    watch.note(commit.address.id)

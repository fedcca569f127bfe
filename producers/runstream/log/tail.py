"""The log as a client follows it: all partitions merged in order of arrival, from a place it names.

Within a partition nothing is missing and nothing comes twice; between partitions there is no order. Readers
wait while the client does not read: what is buffered here is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from runstream import codec
from runstream.commits import LogPosition, StoredCommit
from runstream.counting import counted
from runstream.errors import BadRequestError, RunstreamError
from runstream.events.run_config import RunConfigTask
from runstream.ids import executor_task_id
from runstream.log.port import Log, RawMessage
from runstream.log.runs import find_run, locate_run
from runstream.subjects import Address

BUFFERED_MESSAGES = 512
"""Of all partitions together, between the log and one client."""
_AT_ONCE = 128
_FILTERS = 100
"""A run with more tasks than this is picked out of all tasks of its partition here, not by the server."""


@dataclass(frozen=True, slots=True)
class TailScope:
    """Which part of the log is followed."""

    filters: Mapping[int, Sequence[str]]
    """By partition; no subjects means all of it."""
    ids: frozenset[str] = frozenset()
    """Of the aggregates that are followed, where the filters let more through; empty for all."""


@dataclass(frozen=True, slots=True)
class TailedMessage:
    """A message of the log, and the place behind it."""

    position: LogPosition
    raw: RawMessage
    commit: StoredCommit | None
    error: RunstreamError | None
    """Why it cannot be read; then there is no commit."""


Take = Callable[[], Awaitable[list[TailedMessage]]]


async def scope_of_run(log: Log, run_id: str) -> TailScope:
    """Everything, or one run with its executor tasks. Raises NotExistError for a run that is not there."""
    if not run_id:
        return TailScope(dict.fromkeys(range(log.partitions), ()))
    found = await find_run(log, await locate_run(log, run_id))
    ids = [
        executor_task_id(run_id, task.id, number + 1)
        for name, task in found.run.tasks.items()
        for number in range(_attempts(found.config.tasks[name]))
        if not task.kept
    ]
    return scope_of_tasks(log, found.address.partition, ids, run=found.address)


def scope_of_tasks(log: Log, partition: int, ids: Sequence[str], *, run: Address | None = None) -> TailScope:
    """These executor tasks of a partition, and a run with them."""
    runs = [run] if run is not None else []
    subjects = [log.subjects.of(address) for address in runs]
    if len(ids) > _FILTERS:
        every = f"{log.subjects.prefix(partition)}.task.*.*"
        return TailScope({partition: (*subjects, every)}, frozenset((*(address.id for address in runs), *ids)))
    guards = (log.subjects.guard(Address(partition, "task", task)) for task in ids)
    return TailScope({partition: (*subjects, *guards)})


def _attempts(task: RunConfigTask) -> int:
    return 1 + (task.retry.max if task.retry is not None else 0)


async def resolve_position(log: Log, text: str) -> LogPosition:
    """The place that `start`, `end` or a position's text names. Raises BadRequestError for one that is not there."""
    if text == "start":
        return LogPosition(log.epoch, (0,) * log.partitions)
    if text == "end":
        return LogPosition(log.epoch, tuple(await asyncio.gather(*map(log.end, range(log.partitions)))))
    place = LogPosition.parse(text)
    if place.epoch != log.epoch or len(place.sequences) != log.partitions:
        raise BadRequestError(
            f"position {text} is of another log: this one has "
            f"{counted(log.partitions, 'partition')} and is in epoch {log.epoch}",
            code="invalidPosition",
            hint="begin at start or end",
        )
    reached = enumerate(place.sequences)
    ends = await asyncio.gather(*(log.end(partition, at_least=sequence) for partition, sequence in reached))
    if any(sequence > end for sequence, end in zip(place.sequences, ends, strict=True)):
        raise BadRequestError(
            f"position {text} is ahead of the log, which ends at {LogPosition(log.epoch, tuple(ends))}",
            code="invalidPosition",
            hint="begin at end",
        )
    return place


@asynccontextmanager
async def tail(log: Log, scope: TailScope, place: LogPosition) -> AsyncIterator[Take]:
    """Follow the log behind a place; `take()` waits for the next messages, at least one. Raises what reading raises."""
    queue: asyncio.Queue[RawMessage] = asyncio.Queue(BUFFERED_MESSAGES)

    async def read(partition: int, filters: Sequence[str]) -> None:
        async with log.read(partition, place.sequences[partition], filters=filters) as reader:
            while True:
                for message in await reader.next_batch(_AT_ONCE):
                    if not scope.ids or message.subject.rpartition(".")[2] in scope.ids:
                        await queue.put(message)

    async def take() -> list[TailedMessage]:
        nonlocal place
        messages = [await queue.get()]
        while len(messages) < _AT_ONCE and not queue.empty():
            messages.append(queue.get_nowait())
        seen = []
        for message in messages:
            place = place.including(message.position)
            seen.append(_seen(place, message))
        return seen

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(read(partition, subjects)) for partition, subjects in scope.filters.items()]
        try:
            yield take
        finally:
            for reader in readers:
                reader.cancel()


def _seen(place: LogPosition, message: RawMessage) -> TailedMessage:
    try:
        return TailedMessage(place, message, codec.decode(message), None)
    except RunstreamError as error:
        return TailedMessage(place, message, None, error)

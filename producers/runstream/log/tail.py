"""Follow the log from a position: all partitions, merged in order of arrival.

Within a partition no message is missing and none comes twice; between partitions there is no order. Readers wait while
the client does not read, so the buffer is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from runstream import codec
from runstream.commits import LogPosition, StoredCommit, parse_point
from runstream.counting import counted
from runstream.errors import BadRequestError, RunstreamError
from runstream.events.run_config import RunConfigTask
from runstream.ids import executor_task_id
from runstream.lifecycle import BackgroundTasks
from runstream.log.port import Log, RawMessage
from runstream.log.runs import FoundRun, find_created, locate_run
from runstream.subjects import Address

BUFFERED_MESSAGES = 512
"""Maximum number of messages buffered for one client, of all partitions together."""
_AT_ONCE = 128
_FILTERS = 100
"""Maximum number of subjects that the server filters; beyond it, the tasks of a run are filtered here."""


@dataclass(frozen=True, slots=True)
class TailScope:
    """The part of the log to follow."""

    filters: Mapping[int, Sequence[str]]
    """Subjects by partition; none for the whole partition."""
    ids: frozenset[str] = frozenset()
    """Ids of the aggregates to follow, where the filters pass more; empty for all."""


@dataclass(frozen=True, slots=True)
class TailedMessage:
    """A message of the log, and the position behind it."""

    position: LogPosition
    raw: RawMessage
    commit: StoredCommit | None
    error: RunstreamError | None
    """The reason why the message cannot be decoded; then there is no commit."""


Take = Callable[[], Awaitable[list[TailedMessage]]]


async def scope_of_run(log: Log, run_id: str) -> TailScope:
    """Return the scope of one run with its executor tasks; of everything without `run_id`. Raises NotExistError."""
    if not run_id:
        return TailScope(dict.fromkeys(range(log.partitions), ()))
    found = await find_created(log, await locate_run(log, run_id))
    return scope_of_tasks(log, found.address.partition, [*executions_of(found)], run=found.address)


def executions_of(found: FoundRun) -> dict[str, str]:
    """Return the names of the tasks of a run by the ids of the executor tasks that their attempts have or may get."""
    return {
        executor_task_id(found.run.id, task.id, number + 1): name
        for name, task in found.run.tasks.items()
        for number in range(_attempts(found.config.tasks[name]))
        if not task.kept
    }


def scope_of_tasks(log: Log, partition: int, ids: Sequence[str], *, run: Address | None = None) -> TailScope:
    """Return the scope of these executor tasks of a partition, and of their run if given."""
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
    """Return the position that a text names: `start`, `end`, a position of the log, or a time with its zone.

    That of a time has everything before it that was stored earlier. Raises BadRequestError.
    """
    if text == "start":
        return LogPosition(log.epoch, (0,) * log.partitions)
    if text == "end":
        return LogPosition(log.epoch, tuple(await asyncio.gather(*map(log.end, range(log.partitions)))))
    if ":" in text and "-" in text:
        moment = parse_point(text)
        if isinstance(moment, datetime):
            before = await asyncio.gather(*(_before(log, partition, moment) for partition in range(log.partitions)))
            return LogPosition(log.epoch, tuple(before))
    position = LogPosition.parse(text)
    if position.epoch != log.epoch or len(position.sequences) != log.partitions:
        raise BadRequestError(
            f"position {text} is of another log: this one has "
            f"{counted(log.partitions, 'partition')} and is in epoch {log.epoch}",
            code="invalidPosition",
            hint="begin at start or end",
        )
    included = enumerate(position.sequences)
    ends = await asyncio.gather(*(log.end(partition, at_least=sequence) for partition, sequence in included))
    if any(sequence > end for sequence, end in zip(position.sequences, ends, strict=True)):
        raise BadRequestError(
            f"position {text} is ahead of the log, which ends at {LogPosition(log.epoch, tuple(ends))}",
            code="invalidPosition",
            hint="begin at end",
        )
    return position


async def _before(log: Log, partition: int, moment: datetime) -> int:
    """Return the sequence of the last message that was stored before a moment; 0 if there is none."""
    low, high = 0, await log.end(partition)
    while low < high:
        middle = (low + high) // 2
        async with log.read(partition, middle) as reader:
            (message,) = await reader.next_batch(1)
        if message.stored_at < moment:
            low = message.position.sequence
        else:
            high = middle
    return low


@asynccontextmanager
async def tail(log: Log, scope: TailScope, position: LogPosition) -> AsyncIterator[Take]:
    """Follow the log behind a position; `take()` waits for the next messages, at least one. Raises as `read` does."""
    queue: asyncio.Queue[RawMessage] = asyncio.Queue(BUFFERED_MESSAGES)

    async def read(partition: int, filters: Sequence[str]) -> None:
        async with log.read(partition, position.sequences[partition], filters=filters) as reader:
            while True:
                for message in await reader.next_batch(_AT_ONCE):
                    if not scope.ids or message.subject.rpartition(".")[2] in scope.ids:
                        await queue.put(message)

    async def take() -> list[TailedMessage]:
        nonlocal position
        messages = [await queue.get()]
        while len(messages) < _AT_ONCE and not queue.empty():
            messages.append(queue.get_nowait())
        seen = []
        for message in messages:
            position = position.including(message.position)
            seen.append(_tailed(position, message))
        return seen

    async with BackgroundTasks() as background:
        for partition, subjects in scope.filters.items():
            background.keep(read(partition, subjects), f"tail of partition {partition}")
        yield take


def _tailed(position: LogPosition, message: RawMessage) -> TailedMessage:
    try:
        return TailedMessage(position, message, codec.decode(message), None)
    except RunstreamError as error:
        return TailedMessage(position, message, None, error)

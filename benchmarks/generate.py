"""A generator of logs of any size, as a scheduler and an executor would have written them, ten events a run.

`python -m benchmarks.generate RUNS --nats-url URL` appends it to a new log; `GeneratedLog` is read without any server.
Seven of eight runs have a task and eleven events, the eighth is a setup error and has three. The same numbers always
make the same log: ids and times are derived.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice

import uvloop

from runstream.codec import encode
from runstream.commits import Head, NewCommit, Position
from runstream.events.event import DomainEvent
from runstream.events.executor import ExecutorRegistered
from runstream.events.executor_task import (
    ExecutorTaskAssigned,
    ExecutorTaskFinished,
    ExecutorTaskLogLost,
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStarted,
)
from runstream.events.run import RunArchived, RunCreated, RunFinished, RunNumbered, RunResultSet, RunStarted
from runstream.events.run_config import RunConfig, RunConfigStored, RunConfigTask, Runtime
from runstream.ids import commit_id, derived_id, executor_task_id, run_task_id
from runstream.jetstream.connection import nats_connection
from runstream.jetstream.publisher import Publisher
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.log.loading import Load, StreamLoader
from runstream.log.port import RawMessage
from runstream.run_states import RunResult
from runstream.runconfig.resolve import config_hash
from runstream.subjects import Address, Subjects, group_root, partition_of

GROUPS = 64
AT_ONCE = 1000
"""Runs of a partition that go side by side, as under load."""
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
EXECUTOR = "generated"
_TASK = RunConfigTask("task", 0, (), Runtime("host", "", ()), {}, "", "/bin/sh -e", "", (), False, False, False, {}, 0)
CONFIG = RunConfig("generated", {"task": _TASK}, {}, {}, "")
_CONFIG_ID = config_hash(CONFIG)
_REGISTERED = ExecutorRegistered(("amd64",), {}, False, True, False, 0, False, "", "0")


@dataclass(slots=True)
class _Aggregate:
    """An aggregate of which more will be written."""

    address: Address
    head: Head = field(default_factory=Head)


@dataclass(slots=True)
class GeneratedPartition:
    """One partition; `batches` writes it once."""

    partition: int
    partitions: int
    runs: int
    """Of the whole log."""
    sequence: int = 0
    _numbers: int = 0
    _counters: dict[str, int] = field(default_factory=dict)

    def batches(self) -> Iterator[list[NewCommit]]:
        """All commits in order, in batches that hold one of each aggregate, if nothing is in the partition yet."""
        config = self._commit(
            _Aggregate(Address(self.partition, "runconfig", _CONFIG_ID)), BEGAN, RunConfigStored(CONFIG)
        )
        begin = [config]
        if partition_of(EXECUTOR, self.partitions) == self.partition:
            begin.append(self._commit(_Aggregate(Address(self.partition, "executor", EXECUTOR)), BEGAN, _REGISTERED))
        yield begin
        mine = iter(
            n for n in range(self.runs) if partition_of(group_root(_group(n)), self.partitions) == self.partition
        )
        while numbers := [*islice(mine, AT_ONCE)]:
            yield from self._block(numbers)

    def _block(self, numbers: Sequence[int]) -> Iterator[list[NewCommit]]:
        runs = {n: _Aggregate(Address(self.partition, "run", _run_id(n))) for n in numbers}
        good = [n for n in numbers if n % 8 != 7]
        tasks = {n: _Aggregate(_task_address(self.partition, n)) for n in good}
        yield [self._commit(runs[n], _at(n, 0), _created(n)) for n in numbers]
        yield [self._commit(runs[n], _at(n, 1), *self._begun(n)) for n in numbers]
        if good:
            yield [self._commit(tasks[n], _at(n, 2), self._assigned(n)) for n in good]
            yield [self._commit(tasks[n], _at(n, 3), ExecutorTaskStarted(_at(n, 3))) for n in good]
            yield [self._commit(tasks[n], _at(n, 4), *_done(_at(n, 4))) for n in good]
            ended = (RunResultSet(RunResult.SUCCESS), RunFinished(), RunArchived())
            yield [self._commit(runs[n], _at(n, 5), *ended) for n in good]

    def _commit(self, aggregate: _Aggregate, at: datetime, *events: DomainEvent) -> NewCommit:
        cause = commit_id("generated", aggregate.address.aggregate, aggregate.head.version)
        commit = aggregate.head.next_commit(aggregate.address, events, time=at, actor="generator", cause=cause)
        self.sequence += 1
        aggregate.head = Head(commit.version, self.sequence)
        return commit

    def _begun(self, number: int) -> tuple[DomainEvent, ...]:
        self._numbers += 1
        root = group_root(_group(number))
        self._counters[root] = self._counters.get(root, 0) + 1
        numbered = RunNumbered(self._counters[root], self._numbers)
        return (numbered, RunArchived()) if number % 8 == 7 else (numbered, RunStarted())

    def _assigned(self, number: int) -> ExecutorTaskAssigned:
        run = _run_id(number)
        group = _group(number)
        counter = self._counters[group_root(group)]
        made = run_task_id(run, "task")
        return ExecutorTaskAssigned(EXECUTOR, run, made, "task", _CONFIG_ID, group, counter, 0, 0, 1, {})


def _run_id(number: int) -> str:
    return derived_id("generated", str(number))


def _group(number: int) -> str:
    return f"/project/p{number % GROUPS}/branch/b{number}"


def _at(number: int, step: int) -> datetime:
    return BEGAN + timedelta(milliseconds=10 * number + step)


def _task_address(partition: int, number: int) -> Address:
    run = _run_id(number)
    return Address(partition, "task", executor_task_id(run, run_task_id(run, "task")), EXECUTOR)


def _created(number: int) -> RunCreated:
    errors = ("the configuration is not valid",) if number % 8 == 7 else ()
    return RunCreated("generated", _group(number), _CONFIG_ID, {"number": str(number)}, errors, "")


def _done(at: datetime) -> tuple[DomainEvent, ...]:
    success = ExecutorTaskPhase.SUCCESS
    return ExecutorTaskSetupFinished(at, success), ExecutorTaskLogLost(None), ExecutorTaskFinished(at, success, "")


class GeneratedReader:
    """Reads a generated partition from its beginning."""

    def __init__(self, partition: GeneratedPartition, subjects: Subjects) -> None:
        self._messages = (
            _message(commit, sequence, subjects)
            for sequence, commit in enumerate((commit for batch in partition.batches() for commit in batch), 1)
        )

    async def next_batch(self, limit: int = 500, *, wait: bool = True) -> list[RawMessage]:
        """The next messages."""
        return [*islice(self._messages, limit)]

    def pending(self) -> int:
        """Count nothing."""
        return 0


def _message(commit: NewCommit, sequence: int, subjects: Subjects) -> RawMessage:
    body, headers = encode(commit)
    position = Position(subjects.epoch, commit.address.partition, sequence)
    return RawMessage(subjects.of(commit.address), position, body, headers, commit.time)


@dataclass(slots=True)
class GeneratedLog:
    """A log that is made while it is read (as much of `runstream.log.port.Log` as an export needs)."""

    runs: int
    partitions: int = 4
    subjects: Subjects = field(default_factory=lambda: Subjects("generated", "runs", 1))

    @property
    def epoch(self) -> int:
        """The only one."""
        return self.subjects.epoch

    async def end(self, partition: int, *, at_least: int = 0) -> int:
        """The last sequence of the partition."""
        numbers = [n for n in range(self.runs) if partition_of(group_root(_group(n)), self.partitions) == partition]
        registered = partition_of(EXECUTOR, self.partitions) == partition
        return 1 + registered + sum(2 if n % 8 == 7 else 6 for n in numbers)

    @asynccontextmanager
    async def read(self, partition: int, after: int, *, filters: Sequence[str] = ()) -> AsyncIterator[GeneratedReader]:
        """Read a partition from its first message."""
        reader = GeneratedReader(GeneratedPartition(partition, self.partitions, self.runs), self.subjects)
        for _ in range(after // AT_ONCE):
            await reader.next_batch(AT_ONCE)
        await reader.next_batch(after % AT_ONCE)
        yield reader


async def append(nats_url: str, log: JetStreamLog, runs: int) -> None:
    """Append that many runs to an empty log. Raises InternalError when it is not empty."""
    async with nats_connection(nats_url, "generator") as client:
        publisher = Publisher(client)
        await publisher.start()
        try:
            async with asyncio.TaskGroup() as group:
                for partition in range(log.partitions):
                    loader = StreamLoader(publisher, log.subjects.stream(partition))
                    source = GeneratedPartition(partition, log.partitions, runs)
                    group.create_task(_append(loader, source, log.subjects))
        finally:
            await publisher.close()


async def _append(loader: StreamLoader, source: GeneratedPartition, subjects: Subjects) -> None:
    for batch in source.batches():
        await loader.load([Load(subjects.of(commit.address), *encode(commit)) for commit in batch])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate", description=__doc__)
    parser.add_argument("runs", type=int)
    parser.add_argument("--nats-url", required=True)
    parser.add_argument("--namespace", default="generated")
    parser.add_argument("--partitions", type=int, default=4)
    options = parser.parse_args()
    uvloop.run(_main(options))
    return 0


async def _main(options: argparse.Namespace) -> None:
    async with (
        nats_connection(options.nats_url, "generator") as client,
        await open_log(client, options.namespace, create=True, partitions=options.partitions) as log,
    ):
        await append(options.nats_url, log, options.runs)


if __name__ == "__main__":
    sys.exit(main())

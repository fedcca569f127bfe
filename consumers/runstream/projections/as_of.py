"""A run in the past: folded from its own commits up to a position or a time.

Reads all commits of the run and of its executor tasks, which are on the same partition, in the order of the log. At a
time, a run (or a partition) is the fold of all commits before the first later one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from typing import TypeAlias

from msgspec.structs import replace

from runstream.commits import LogPosition, Position, StoredCommit
from runstream.database.runs import ReadRun, RunRecord
from runstream.domain.executor_task import ExecutorTask
from runstream.domain.run import RunState
from runstream.errors import BadRequestError, NotExistError
from runstream.events.run import RunCreated, RunNumbered
from runstream.feed import classify, commits_of, fold_or_park, read_up_to
from runstream.folding import UnfitCommitError, executor_task_of
from runstream.glance import made_after
from runstream.log.port import Log, RawMessage
from runstream.log.runs import find_created, locate_run
from runstream.log.tail import TailScope, executions_of, resolve_position, scope_of_tasks
from runstream.projections.fold import PartitionFold
from runstream.projections.replay import RunReplay, is_decision
from runstream.skips import Skips

Point: TypeAlias = LogPosition | Position | datetime
_BATCH = 1000


class RunsAsOf:
    """Runs in the past, read from the log (see `runstream.gateway.reads.PastRuns`)."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def history(self, run_id: str) -> RunReplay:
        """Return the history of a run, also of a deleted one. Raises NotExistError."""
        found = await find_created(self._log, await locate_run(self._log, run_id))
        partition, executions = found.address.partition, executions_of(found)
        messages = await self._messages(
            partition, scope_of_tasks(self._log, partition, [*executions], run=found.address)
        )
        decisions = [message for message in messages if is_decision(message)]
        kept = await self._kept(partition, found.run, Skips.of(commits_of(classify(decisions, set(), Skips()))))
        return RunReplay(self._log, found, messages, executions, kept)

    async def run(self, run_id: str, point: Point) -> ReadRun:
        """Return the run as it was. Raises NotExistError before its creation, BadRequestError for a foreign point."""
        found = await find_created(self._log, await locate_run(self._log, run_id))
        partition = found.address.partition
        bound = await self._bound(partition, point)
        scope = scope_of_tasks(self._log, partition, [*executions_of(found)], run=found.address)
        messages = await self._messages(partition, scope)
        decisions = [message for message in messages if is_decision(message)]
        skips = Skips.of(_until(commits_of(classify(decisions, set(), Skips())), bound))
        commits = commits_of(classify([one for one in messages if not is_decision(one)], set(), skips))
        past = _until(commits, bound)
        created = next(iter(past[0].commit.events), None) if past else None
        if not isinstance(created, RunCreated):
            raise NotExistError(
                f"run {run_id} did not exist at {_point_text(point)}", code="runDidNotExist", details={"run": run_id}
            )
        fold = PartitionFold(partition, self._log.epoch)
        fold.configs[created.run_config] = found.config
        for _ in fold_or_park(fold, past, self._log.subjects):
            pass  # an aggregate stays as it was from its first unfit commit on, as in the projection
        if run_id not in fold.runs:
            raise UnfitCommitError(f"the creation of run {run_id} cannot be applied", run=run_id)
        tracked = fold.runs[run_id]
        present = {key: tracked.state for key, tracked in fold.executor_tasks.items()}
        present |= await self._kept(partition, tracked.state, skips)
        return ReadRun(RunRecord(_numbered(tracked.state, commits), tracked.head, partition, present), found.config)

    async def _kept(self, partition: int, run: RunState, skips: Skips) -> dict[str, ExecutorTask]:
        """Return the executor tasks of tasks kept from earlier runs, which ended before this run began."""
        ids = [task.executor_task_id for task in run.tasks.values() if task.kept and task.executor_task_id]
        if not ids:
            return {}
        messages = await self._messages(partition, scope_of_tasks(self._log, partition, ids))
        histories: dict[str, list[StoredCommit]] = {}
        for stored in commits_of(classify([one for one in messages if not is_decision(one)], set(), skips)):
            histories.setdefault(stored.commit.address.id, []).append(stored)
        found = {key: executor_task_of(history) for key, history in histories.items()}
        return {key: task for key, task in found.items() if task is not None}

    async def _messages(self, partition: int, scope: TailScope) -> list[RawMessage]:
        """Return the messages of the run, and all decisions to skip commits of the partition."""
        filters = (*scope.filters[partition], self._log.subjects.skips(partition))
        messages: list[RawMessage] = []
        async with self._log.read(partition, 0, filters=filters) as reader:
            while batch := await reader.next_batch(wait=False):
                messages += [
                    message
                    for message in batch
                    if is_decision(message) or not scope.ids or message.subject.rpartition(".")[2] in scope.ids
                ]
        return messages

    async def _bound(self, partition: int, point: Point) -> int | datetime:
        """Return the last included sequence, or the time. Raises BadRequestError."""
        if isinstance(point, datetime):
            return point
        if isinstance(point, LogPosition):
            return (await resolve_position(self._log, str(point))).sequences[partition]
        if (point.epoch, point.partition) != (self._log.epoch, partition):
            raise BadRequestError(
                f"{_point_text(point)} is not a position of this run, which is on partition {partition} "
                f"of epoch {self._log.epoch}",
                code="invalidPoint",
                hint="`runstream events tail --run ID` shows the positions of its commits",
            )
        return point.sequence


async def position_at(log: Log, moment: datetime) -> LogPosition:
    """Return the log's position at a time: each partition ends before its first later commit.

    An unreadable commit has no time and does not count as later. Reads every partition up to its end.
    """
    ends = await asyncio.gather(*(_end_at(log, partition, moment) for partition in range(log.partitions)))
    return LogPosition(log.epoch, tuple(ends))


async def _end_at(log: Log, partition: int, moment: datetime) -> int:
    after, end = 0, await log.end(partition)
    async with aclosing(read_up_to(log, partition, end, limit=_BATCH)) as batches:
        async for messages in batches:
            for message in messages:
                if made_after(message, moment):
                    return after
                after = message.position.sequence
    return after


def _until(commits: Sequence[StoredCommit], bound: int | datetime) -> Sequence[StoredCommit]:
    if isinstance(bound, int):
        return [stored for stored in commits if stored.position.sequence <= bound]
    late = next((index for index, stored in enumerate(commits) if stored.commit.time > bound), len(commits))
    return commits[:late]


def _numbered(run: RunState, commits: Sequence[StoredCommit]) -> RunState:
    """Return the run with its number: it has it from its creation on, but the log records it a moment later."""
    if run.numbered:
        return run
    events = (event for stored in commits for event in stored.commit.events)
    numbered = next((event for event in events if isinstance(event, RunNumbered)), RunNumbered(0, 0))
    return replace(run, counter=numbered.counter, sequence=numbered.sequence)


def _point_text(point: Point) -> str:
    return point.isoformat() if isinstance(point, datetime) else str(point)

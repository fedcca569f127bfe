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
from runstream.domain.run import RunState
from runstream.errors import BadRequestError, NotExistError
from runstream.events.run import RunCreated, RunNumbered
from runstream.feed import classify, commits_of, fold_or_park, read_up_to
from runstream.folding import UnfitCommitError
from runstream.glance import made_after
from runstream.log.port import Log
from runstream.log.runs import locate_run
from runstream.log.tail import resolve_position
from runstream.projections.fold import PartitionFold
from runstream.projections.replay import RunReplay
from runstream.projections.run_messages import RunReader, decisions_in, skips_in, without_decisions
from runstream.skips import Skips

Point: TypeAlias = LogPosition | Position | datetime
_BATCH = 1000


class RunsAsOf:
    """Runs in the past, read from the log (see `runstream.gateway.reads.PastRuns`)."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._reader = RunReader(log)

    async def history(self, run_id: str) -> RunReplay:
        """Return the history of a run, also of a deleted one. Raises NotExistError."""
        read = await self._reader.run(await locate_run(self._log, run_id))
        kept = await self._reader.kept(read.found.address.partition, read.found.run, skips_in(read.messages))
        return RunReplay(self._log, read, kept)

    async def run(self, run_id: str, point: Point) -> ReadRun:
        """Return the run as it was. Raises NotExistError before its creation, BadRequestError for a foreign point."""
        address = await locate_run(self._log, run_id)
        partition = address.partition
        bound = await self._bound(partition, point)
        read = await self._reader.run(address)
        skips = Skips.of(_until(decisions_in(read.messages), bound))
        commits = commits_of(classify(without_decisions(read.messages), set(), skips))
        past = _until(commits, bound)
        created = next(iter(past[0].commit.events), None) if past else None
        if not isinstance(created, RunCreated):
            raise NotExistError(
                f"run {run_id} did not exist at {_point_text(point)}", code="runDidNotExist", details={"run": run_id}
            )
        config = read.found.config
        fold = PartitionFold(partition, self._log.epoch)
        fold.configs[created.run_config] = config
        for _ in fold_or_park(fold, past, self._log.subjects):
            pass  # an aggregate stays as it was from its first unfit commit on, as in the projection
        if run_id not in fold.runs:
            raise UnfitCommitError(f"the creation of run {run_id} cannot be applied", run=run_id)
        tracked = fold.runs[run_id]
        present = {key: tracked.state for key, tracked in fold.executor_tasks.items()}
        present |= await self._reader.kept(partition, tracked.state, skips)
        return ReadRun(RunRecord(_numbered(tracked.state, commits), tracked.head, partition, present), config)

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

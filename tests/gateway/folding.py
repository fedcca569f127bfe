"""Reads that fold the log on every request, as the scheduler folds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runstream import codec
from runstream.api import FlakyList
from runstream.commits import Position
from runstream.database.run_lists import RunPage, RunQuery, summary_of
from runstream.database.runs import ExecutorRecord, ReadRun, RunRecord
from runstream.domain.run import RunState
from runstream.errors import NotExistError
from runstream.log.runs import locate_run, require_not_deleted
from runstream.projections.fold import PartitionFold
from runstream.subjects import Address, group_root
from tests.log.memory import MemoryLog


@dataclass
class FoldedLog:
    """What the projection would tell of a log in memory."""

    log: MemoryLog

    async def partitions(self) -> list[PartitionFold]:
        """Return the fold of each partition, without deleted runs."""
        return [await self._fold(partition) for partition in range(self.log.partitions)]

    async def _fold(self, partition: int, *, also_deleted: bool = False) -> PartitionFold:
        fold = PartitionFold(partition, self.log.epoch)
        end = await self.log.end(partition)
        async with self.log.read(partition, 0) as reader:
            while fold.after < end:
                for message in await reader.next_batch():
                    fold.apply(codec.decode(message))
        for run_id in () if also_deleted else fold.take_changes().deleted:
            del fold.runs[run_id]
        return fold

    async def run(self, run_id: str, at_least: Sequence[Position]) -> ReadRun:
        for fold in await self.partitions():
            if run_id in fold.runs:
                return _read(fold, run_id)
        await require_not_deleted(self.log, await locate_run(self.log, run_id))
        raise NotExistError(f"run {run_id} doesn't exist", code="runDoesNotExist", hint="look at the list")

    async def run_by_counter(self, group: str, counter: int, at_least: Sequence[Position]) -> ReadRun:
        for partition in range(self.log.partitions):
            fold = await self._fold(partition, also_deleted=True)
            for run in fold.runs.values():
                if group_root(run.state.group) == group_root(group) and run.state.counter == counter:
                    await require_not_deleted(self.log, Address(partition, "run", run.state.id))
                    return _read(fold, run.state.id)
        raise NotExistError(f"run {group} #{counter} doesn't exist", code="runDoesNotExist")

    async def runs(
        self, query: RunQuery, at_least: Sequence[Position], *, counts: bool = False, tasks: bool = False
    ) -> RunPage:
        runs = [tracked.state for fold in await self.partitions() for tracked in fold.runs.values()]
        runs = [run for run in runs if not query.phases or run.phase in query.phases]
        runs = [run for run in runs if query.name in ("", run.name) and _in_groups(run.group, query.groups)]
        runs = [run for run in runs if not query.results or run.result in query.results]
        if number := query.start_counter:
            runs = [run for run in runs if (run.counter > number if query.ascending else run.counter < number)]
        if query.waiting_approval:
            runs = [run for run in runs if any(task.waiting_approval for task in run.tasks.values())]
        runs.sort(key=lambda run: run.sequence, reverse=not query.ascending)
        if query.start:
            runs = [
                run for run in runs if (run.sequence > query.start) is query.ascending and run.sequence != query.start
            ]
        page = runs[: query.limit]
        return RunPage(
            tuple(summary_of(run, _waiting(run)) for run in page), page[-1].sequence if len(runs) > len(page) else None
        )

    async def flaky(self, groups: Sequence[str], at_least: Sequence[Position]) -> FlakyList:
        return FlakyList((), 0, more=False)

    async def executors(self, at_least: Sequence[Position]) -> tuple[ExecutorRecord, ...]:
        return tuple(
            ExecutorRecord(tracked.state, tracked.head, fold.partition, 0)
            for fold in await self.partitions()
            for tracked in fold.executors.values()
            if tracked.state.state != "deleted"
        )


def _waiting(run: RunState) -> tuple[str, ...]:
    return tuple(sorted(task.name for task in run.tasks.values() if task.waiting_approval))


def _in_groups(group: str, groups: Sequence[str]) -> bool:
    return not groups or any(group == one or group.startswith(f"{one}/") for one in groups)


def _read(fold: PartitionFold, run_id: str) -> ReadRun:
    tracked = fold.runs[run_id]
    tasks = tracked.state.tasks.values()
    keys = (key for task in tasks for key in (task.executor_task_id, *task.executions) if key)
    executed = {key: fold.executor_tasks[key].state for key in keys}
    record = RunRecord(tracked.state, tracked.head, fold.partition, executed)
    return ReadRun(record, fold.configs[tracked.state.run_config])

"""Whether an archive that is not in the object storage was ever there: the log knows what each task saved."""

from __future__ import annotations

from runstream.events.run import RunRestarted, RunTaskRetried, RunTaskRetryDropped
from runstream.executor.asking import asked
from runstream.executor.spec import WorkspaceArchive
from runstream.folding import executor_task_of
from runstream.ids import executor_task_id, run_task_id
from runstream.log.port import Log
from runstream.subjects import Address


async def was_saved(run_id: str, partition: int, archive: WorkspaceArchive, log: Log) -> bool:
    """Whether the ancestor's task says that it stored this archive: one that was skipped or failed did not."""
    task_id = await _executed_as(run_id, partition, archive.task, log)
    address = Address(partition, "task", task_id)
    task = executor_task_of(await asked(lambda: log.history(address)) if task_id else ())
    return task is not None and archive.step < len(task.steps) and task.steps[archive.step].archive_stored


async def _executed_as(run_id: str, partition: int, name: str, log: Log) -> str:
    """The id of the executor task of the last attempt at a task; empty for one that was kept and never ran."""
    attempt = 1
    for stored in await asked(lambda: log.history(Address(partition, "run", run_id))):
        for event in stored.commit.events:
            match event:
                case RunRestarted(kept=kept):
                    for one in kept:
                        if one.task == name:
                            return one.executor_task_id
                case RunTaskRetried(task, number) if task == name:
                    attempt = number
                case RunTaskRetryDropped(task) if task == name:
                    attempt -= 1
                case _:
                    pass
    return executor_task_id(run_id, run_task_id(run_id, name), attempt)

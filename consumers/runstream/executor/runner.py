"""Runs the tasks of an executor in pods of its driver, and cleans up after an earlier process of this executor."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import structlog

from runstream.domain.executor_task import ExecutorTask
from runstream.errors import NotExistError
from runstream.events.executor_task import (
    ExecutorTaskLogLost,
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStepFinished,
    ExecutorTaskStepStarted,
)
from runstream.executor.beneath import remove_tree
from runstream.executor.drivers.capabilities import Capabilities
from runstream.executor.pod_task import PodTask, RunnerContext
from runstream.executor.task import Ended, Job, lost_logs
from runstream.executor.workdir import TaskFolder, spread
from runstream.folding import UnfitCommitError
from runstream.log.runs import find_run
from runstream.open_files import OpenFilesError
from runstream.steplogs.log_state import CUT_OFF
from runstream.subjects import Address

log = structlog.get_logger()


def cut_off(path: Path, task: ExecutorTask, step: int | None) -> None:
    """Mark the log of an unfinished step as cut off, once; skip the mark if the disk is full."""
    state = task.setup_step if step is None else task.steps[step]
    mark = f"{CUT_OFF}\n".encode()
    ended = state.end_time is not None and not (task.lost and state.end_time == task.end_time)
    if ended or (step is None and path.with_name("0.log").exists()):
        return
    with contextlib.suppress(OSError), path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - len(mark), 0))
        tail = file.read()
        if tail != mark:
            file.write(mark if not tail or tail.endswith(b"\n") else b"\n" + mark)
            path.with_suffix(".index").unlink(missing_ok=True)  # it is of the log without the mark


class PodRunner:
    """A runner that uses a driver."""

    def __init__(self, context: RunnerContext, tasks: Path) -> None:
        """`tasks` is the directory with one folder for each task."""
        self._context = context
        self._tasks = tasks

    async def setup(self) -> None:
        """Prepare the driver."""
        await self._context.driver.setup()

    @property
    def capabilities(self) -> Capabilities:
        """The driver's capabilities."""
        return self._context.driver

    async def close(self) -> None:
        """Close the driver."""
        await self._context.driver.close()

    async def run(self, job: Job) -> Ended:
        """Run the task until it ends."""
        return await PodTask(job, self._folder(job.task.id), self._context).run()

    def kept(self, task_id: str) -> bool:
        """Return whether the task's folder exists."""
        return self._folder(task_id).root.exists()

    async def recover(self, job: Job) -> Ended:
        """End the task's leftover processes; store the logs that are on this machine, and report the others as lost.

        A step may have begun just before the executor was killed, before its event reached the log.
        """
        folder = self._folder(job.task.id)
        await self._context.driver.end_leftover(job.task.id, folder)
        task = PodTask(job, folder, self._context)
        if job.task.lost and not await self._wants_logs(job):
            return Ended((), task.clean)
        lost = []
        for event in (*lost_logs(job.task), *self._found(job, folder)):
            if folder.log(event.step).exists():
                cut_off(folder.log(event.step), job.task, event.step)
                task.log_upload.add(event.step)
            else:
                lost.append(event)
        await task.log_upload.finish()
        return Ended(tuple(lost), task.clean)

    async def _wants_logs(self, job: Job) -> bool:
        """Return False if the run was deleted, or its logs removed, while the executor was lost."""
        try:
            found = await find_run(self._context.log, Address(job.partition, "run", job.task.run_id))
        except NotExistError as error:
            return error.code != "runDeleted"
        except UnfitCommitError:  # the projection parks it
            return True
        return found.run.logs_removed_at is None

    def _found(self, job: Job, folder: TaskFolder) -> list[ExecutorTaskLogLost]:
        """Report the steps that only their local logs show to have begun; return how each log is to be reported if
        lost."""
        unknown = [
            index for index, step in enumerate(job.task.steps) if step.start_time is None and folder.log(index).exists()
        ]
        if unknown and job.task.setup_step.end_time is None:
            job.report(ExecutorTaskSetupFinished(job.clock(), ExecutorTaskPhase.SUCCESS))
        for index in unknown:
            job.report(ExecutorTaskStepStarted(index, job.clock()))
            job.report(ExecutorTaskStepFinished(index, job.clock(), ExecutorTaskPhase.FAILED, None))
        return [ExecutorTaskLogLost(index) for index in unknown]

    async def sweep(self, kept: frozenset[str]) -> None:
        """End what earlier processes left of all tasks; remove the folders of tasks that are not `kept`.

        A failure is logged as a warning and does not prevent the start.
        """
        await self._context.driver.sweep()
        self._tasks.mkdir(mode=0o700, parents=True, exist_ok=True)
        spread(self._tasks)
        for path in await asyncio.to_thread(lambda: list(self._tasks.iterdir())):
            folder = TaskFolder(path)
            try:
                await self._context.driver.end_leftover(path.name, folder)
            except Exception:  # the leftovers of one task must not prevent the start
                log.exception(f"processes of task {path.name} may be left", action="leftover_not_ended", task=path.name)
            if path.name not in kept:
                with contextlib.suppress(OpenFilesError):  # the next start removes it
                    await asyncio.to_thread(folder.remove)
        await asyncio.to_thread(self._remove_set_aside)

    def _remove_set_aside(self) -> None:
        """Retry removing the files that could not be removed earlier; log a warning for those that remain."""
        aside = TaskFolder(self._tasks / "any").aside
        for path in aside.iterdir() if aside.is_dir() else ():
            problems = remove_tree(path)
            if problems.count:
                log.warning(
                    f"files of an earlier task still cannot be removed: {problems}",
                    action="task_folder_left",
                    path=str(path),
                    count=problems.count,
                )

    def _folder(self, task_id: str) -> TaskFolder:
        return TaskFolder(self._tasks / task_id)

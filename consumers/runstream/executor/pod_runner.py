"""Runs jobs in the pods of a driver, and clears up what an earlier process of this executor left."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import structlog

from runstream.domain.executor_task import ExecutorTask
from runstream.events.executor_task import (
    ExecutorTaskLogLost,
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStepFinished,
    ExecutorTaskStepStarted,
)
from runstream.executor.drivers.noop import lost_logs
from runstream.executor.jobs import Ended, Job
from runstream.executor.pod_task import PodTask, Surroundings
from runstream.executor.removal import remove_tree
from runstream.executor.spreading import spread
from runstream.executor.task_folder import TaskFolder

CUT_OFF = "The log is cut off here: the executor did not finish the step."
log = structlog.get_logger()


def cut_off(path: Path, task: ExecutorTask, step: int | None) -> None:
    """Mark the log of a step that did not end, once; a disk that is full takes no mark."""
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


class PodRunner:
    """Runs jobs with a driver."""

    def __init__(self, around: Surroundings, tasks: Path) -> None:
        """`tasks` is the folder of the tasks' folders."""
        self.allow_host = around.driver.allow_host
        self.allow_pod = around.driver.allow_pod
        self._around = around
        self._tasks = tasks

    async def setup(self) -> None:
        """Prepare the driver."""
        await self._around.driver.setup()

    @property
    def sandbox(self) -> str:
        """How tasks are kept apart from the machine."""
        return self._around.driver.sandbox

    async def close(self) -> None:
        """Let the driver go."""
        await self._around.driver.close()

    async def run(self, job: Job) -> Ended:
        """Run the task to its end."""
        return await PodTask(job, self._folder(job.task.id), self._around).run()

    def kept(self, task_id: str) -> bool:
        """Whether the task's folder is there."""
        return self._folder(task_id).root.exists()

    async def recover(self, job: Job) -> Ended:
        """End what is left of a task; store those of its logs that are here, and say that the others are lost.

        A step may have begun just before the executor was killed, when the log did not know it yet.
        """
        folder = self._folder(job.task.id)
        await self._around.driver.end_leftover(job.task.id, folder)
        task = PodTask(job, folder, self._around)
        lost = []
        for event in (*lost_logs(job.task), *self._found(job, folder)):
            if folder.log(event.step).exists():
                cut_off(folder.log(event.step), job.task, event.step)
                task.settling.add(event.step)
            else:
                lost.append(event)
        await task.settling.finish()
        return Ended(tuple(lost), task.clean)

    def _found(self, job: Job, folder: TaskFolder) -> list[ExecutorTaskLogLost]:
        """Report the steps of which only their logs here tell; what has to be done about these logs."""
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
        """End the processes of all tasks that have a folder; remove the folders of those that are not kept.

        Nothing that is left here stops a start: it is named in a warning.
        """
        self._tasks.mkdir(mode=0o700, parents=True, exist_ok=True)
        spread(self._tasks)
        for path in await asyncio.to_thread(lambda: list(self._tasks.iterdir())):
            folder = TaskFolder(path)
            try:
                await self._around.driver.end_leftover(path.name, folder)
            except Exception:  # one task's leftovers are no reason not to start
                log.exception(f"processes of task {path.name} may be left", action="leftover_not_ended", task=path.name)
            if path.name not in kept:
                await asyncio.to_thread(folder.remove)
        await asyncio.to_thread(self._remove_set_aside)

    def _remove_set_aside(self) -> None:
        """Try again to remove what could not be removed earlier; say what still cannot."""
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

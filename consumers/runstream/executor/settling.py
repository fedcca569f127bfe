"""The logs of a task become objects: gathered for a moment, stored together, tried again for a while.

What cannot be stored in that time is lost, and said to be.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from runstream.errors import RunstreamError
from runstream.events.executor_task import ExecutorTaskLogLost, ExecutorTaskLogStored
from runstream.executor.jobs import Job
from runstream.executor.task_folder import TaskFolder
from runstream.ids import attempt_id
from runstream.objects import ObjectStorage, paths

GATHER_SECONDS = 0.2
_TRIES = 3
_FIRST_DELAY_SECONDS = 0.2
_MAX_DELAY_SECONDS = 30.0
GIVE_UP_SECONDS = 600.0
"""How long after a task's end its logs are tried to be stored."""

log = structlog.get_logger()


class Settling:
    """Stores the logs of one task."""

    def __init__(self, objects: ObjectStorage, folder: TaskFolder, job: Job) -> None:
        self._objects = objects
        self._folder = folder
        self._job = job
        self._waiting: list[int | None] = []
        self._storing = asyncio.Lock()
        self._gathering: asyncio.Task[None] | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def add(self, step: int | None) -> None:
        """The log of a step is complete; it is stored soon."""
        self._waiting.append(step)
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._gather())

    async def finish(self) -> None:
        """Store what waits now, with a few tries; what was not stored still waits."""
        if self._gathering is not None:
            self._gathering.cancel()
        delay = _FIRST_DELAY_SECONDS
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(delay)
                delay *= 2
            if await self._store():
                return

    async def persevere(self) -> None:
        """Go on until everything is stored, or is given up as lost."""
        delay = _FIRST_DELAY_SECONDS
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS):
                while not await self._store():
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, _MAX_DELAY_SECONDS)
        except TimeoutError:
            self.lose(self._waiting)
            self._waiting = []

    def lose(self, steps: list[int | None]) -> None:
        """Say that these logs are lost."""
        for step in steps:
            self._job.report(ExecutorTaskLogLost(step))

    async def _gather(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        self._gathering = None
        await self._store()

    async def _store(self) -> bool:
        """Whether nothing waits any more."""
        async with self._storing:
            steps = self._waiting
            if not steps:
                return True
            self._waiting = []
            task = self._job.task
            stored = attempt_id(task.run_task_id, task.attempt)
            contents: dict[str, bytes | Path] = {paths.step_log(stored, step): self._folder.log(step) for step in steps}
            contents[paths.log_reference(stored, task.run_id)] = b""
            try:
                await self._objects.write_all(contents)
            except (RunstreamError, OSError) as error:
                self._waiting = steps + self._waiting
                log.warning(f"logs of task {task.id} wait: {error}", action="step_logs_wait", task=task.id)
                return False
            except asyncio.CancelledError:
                self._waiting = steps + self._waiting
                raise
        for step in steps:
            self._job.report(ExecutorTaskLogStored(step))
        return not self._waiting

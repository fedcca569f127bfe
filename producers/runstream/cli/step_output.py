"""The logs of a run's steps while they are written, line by line, each step's one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from runstream.cli.log_lines import LogLines
from runstream.client import Attempt, Client, ClientError, Run, Task

Lines = Callable[[str, list[str]], None]


class StepOutput:
    """Follows the logs of all steps that begin; `task` for task, a step's log after that of the one before."""

    def __init__(self, client: Client, group: asyncio.TaskGroup, show: Lines) -> None:
        self._client = client
        self._group = group
        self._show = show
        self._begun: set[tuple[str, int, int | None]] = set()
        self._last: dict[str, asyncio.Task[None]] = {}

    def follow(self, run: Run) -> None:
        """Begin with what has begun to run since the last time; the setup is only shown when it failed."""
        for task in (task for task in run.tasks.values() if not task.kept):
            attempts: tuple[Attempt | Task, ...] = (*task.attempts, task)
            for attempt in attempts:
                if attempt.setup_step.phase == "failed":
                    self._begin(run, task, attempt.attempt, None)
                for step, state in enumerate(attempt.steps):
                    if state.start_time is not None:
                        self._begin(run, task, attempt.attempt, step)

    def _begin(self, run: Run, task: Task, attempt: int, step: int | None) -> None:
        key = (task.id, attempt, step)
        if key not in self._begun:
            self._begun.add(key)
            chunks = self._client.logs.follow(run.id, task.id, step, attempt=attempt)
            self._last[task.id] = self._group.create_task(self._copy(task, chunks, self._last.get(task.id)))

    async def finish(self) -> None:
        """Wait until everything that was begun is shown."""
        if self._last:
            await asyncio.wait(self._last.values())

    async def _copy(self, task: Task, chunks: AsyncIterator[bytes], before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            lines = LogLines()
            async for chunk in chunks:
                self._show(task.name, lines.feed(chunk))
            self._show(task.name, lines.end())
        except ClientError as error:
            if error.kind != "not-exist":  # a step whose log was lost with its executor has none to show
                self._show(task.name, [f"(the log of this step cannot be followed: {error.message})"])

"""The output of a run's tasks in causal order.

A task's lines come before its end, and its end before the lines of tasks that depend on it. Events and logs arrive on
different connections, so each task has a queue, which waits for the ends of the tasks that it depends on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from runstream.cli.graph import ENDS, approval, log_command, status_text, task_line
from runstream.cli.log_text import SafeLines
from runstream.cli.screen import Screen
from runstream.client import Attempt, Client, ClientError, Reason, Run, Task
from runstream.lifecycle import StrictTaskGroup

LOG_SECONDS = 30.0
"""Maximum silence of a log after the end of its task; then it is reported as missing."""
_OPEN_LOGS = 64
"""Maximum number of logs that are read concurrently; each takes a connection."""
_ENDED_BY_OTHERS = ("skipped", "cancelled", "stopped")
"""Statuses of tasks that another task, or a person, ended."""
_EXPLAINED = ("noExecutor", "noExecutorFits", "executorsFull")


@dataclass(frozen=True, slots=True)
class _Log:
    """The log of a step (None: of the setup)."""

    run: Run
    attempt: int
    step: int | None


@dataclass(frozen=True, slots=True)
class _Causes:
    """A wait for the ends of these tasks."""

    ended: tuple[asyncio.Event, ...]


class StepOutput:
    """The output of all tasks of a run."""

    def __init__(
        self, client: Client, group: StrictTaskGroup, screen: Screen, *, log_seconds: float = LOG_SECONDS
    ) -> None:
        self._client = client
        self._group = group
        self._screen = screen
        self._log_seconds = log_seconds
        self._open = asyncio.Semaphore(_OPEN_LOGS)
        self._tasks: dict[str, _TaskOutput] = {}

    def follow(self, run: Run) -> None:
        """Queue the changes since the last call, and show what can be shown."""
        for task in run.tasks.values():
            if task.id not in self._tasks:
                self._tasks[task.id] = _TaskOutput(task, self._client, self._screen, self._open, self._log_seconds)
        causes = [self._tasks[task.id].ended for task in _causes(run)]
        for task in run.tasks.values():
            self._tasks[task.id].update(run, task, causes)
            self._begin(task)

    def explain(self, run: Run, reasons: tuple[Reason, ...]) -> None:
        """Queue why tasks wait, each reason once."""
        for reason in reasons:
            for name in reason.tasks if reason.code in _EXPLAINED else ():
                task = run.task(name)
                if task is not None and task.id in self._tasks:
                    self._tasks[task.id].explain(reason)
                    self._begin(task)

    def _begin(self, task: Task) -> None:
        """Start to show a task once something is queued."""
        output = self._tasks[task.id]
        if output.begins:
            parents = [self._tasks[parent].ended for parent in task.depends if parent in self._tasks]
            output.working = self._group.create_task(output.work(parents))

    async def finish(self) -> None:
        """Wait until the whole output of an ended run is shown."""
        for output in self._tasks.values():
            output.close()
        working = [output.working for output in self._tasks.values() if output.working is not None]
        if working:
            await asyncio.wait(working)


def _causes(run: Run) -> list[Task]:
    """Return the failed tasks whose ends are shown before those of the tasks that ended because of them.

    Tasks that depend on one that did not run are excluded: they wait for it themselves.
    """
    below: dict[str, list[str]] = {}
    for task in run.tasks.values():
        for parent in task.depends:
            below.setdefault(parent, []).append(task.id)
    waiting: set[str] = set()
    stack = [task.id for task in run.tasks.values() if task.status in _ENDED_BY_OTHERS]
    while stack:
        if (task_id := stack.pop()) not in waiting:
            waiting.add(task_id)
            stack += below.get(task_id, ())
    return [task for task in run.tasks.values() if task.status == "failed" and task.id not in waiting]


class _TaskOutput:
    """The queued output of one task."""

    def __init__(
        self, task: Task, client: Client, screen: Screen, open_logs: asyncio.Semaphore, log_seconds: float
    ) -> None:
        self._id, self._name = task.id, task.name
        self._client = client
        self._screen = screen
        self._open = open_logs
        self._log_seconds = log_seconds
        self._queue: deque[_Log | _Causes | list[str]] = deque()
        self._more = asyncio.Event()
        self._begun: set[tuple[int, int | None]] = set()
        self._state = ("waiting", 1)
        self._explained: set[str] = set()
        self._closed = False
        self._bound: asyncio.Timeout | None = None
        self.ended = asyncio.Event()
        """Set once the whole output of the task is shown."""
        self.working: asyncio.Task[None] | None = None

    @property
    def begins(self) -> bool:
        """True when the first output is queued."""
        return self.working is None and bool(self._queue)

    def update(self, run: Run, task: Task, causes: Sequence[asyncio.Event]) -> None:
        """Queue the changes of the task since the last call; its end waits for those of the tasks that caused it."""
        for attempt in task.attempts:
            self._update_logs(run, attempt)
        if task.status not in ENDS:
            self._update_state(run, task)
        self._update_logs(run, task)
        if task.status in ENDS and not self._closed:
            if task.status in _ENDED_BY_OTHERS and not task.kept and causes:
                self._put(_Causes(tuple(causes)))
            self._update_state(run, task)
            self.close()

    def explain(self, reason: Reason) -> None:
        """Queue why the task waits."""
        if reason.code not in self._explained and not self._closed:
            self._explained.add(reason.code)
            self._put([f"{self._name}: waits: {reason.message}"])

    def close(self) -> None:
        """Accept no more output; end once all of the queue is shown."""
        self._closed = True
        self._more.set()
        self._extend_timeout()
        if self.working is None and not self._queue:
            self.ended.set()

    async def work(self, parents: list[asyncio.Event]) -> None:
        """Show the queue, after the whole output of the tasks that it depends on."""
        try:
            for parent in parents:
                await parent.wait()
            while True:
                self._more.clear()
                while self._queue:
                    shown = self._queue.popleft()
                    if isinstance(shown, _Log):
                        await self._copy(shown)
                    elif isinstance(shown, _Causes):
                        for cause in shown.ended:
                            await cause.wait()
                    else:
                        self._screen.say(shown)
                if self._closed:
                    return
                await self._more.wait()
        finally:
            self.ended.set()

    def _update_state(self, run: Run, task: Task) -> None:
        state = status_text(task), task.attempt
        if state != self._state:
            self._state = state
            lines = [] if state[0] == "waiting" else [task_line(task)]
            self._put(lines + ([f"  {approval(run, task)}"] if task.waiting_approval else []))

    def _update_logs(self, run: Run, attempt: Attempt | Task) -> None:
        if isinstance(attempt, Task) and attempt.kept:
            return
        steps = [index for index, step in enumerate(attempt.steps) if step.start_time is not None]
        for step in ([None] if attempt.setup_step.phase == "failed" else []) + steps:
            if (attempt.attempt, step) not in self._begun:
                self._begun.add((attempt.attempt, step))
                self._put(_Log(run, attempt.attempt, step))

    def _put(self, shown: _Log | _Causes | list[str]) -> None:
        if shown:
            self._queue.append(shown)
            self._more.set()

    def _extend_timeout(self) -> None:
        if self._closed and self._bound is not None:
            self._bound.reschedule(asyncio.get_running_loop().time() + self._log_seconds)

    async def _copy(self, log: _Log) -> None:
        lines = SafeLines(colours=self._screen.colours, line_chars=self._screen.line_chars)
        missing = ""
        try:
            async with (
                self._open,
                asyncio.timeout(None) as self._bound,
                aclosing(self._client.logs.follow(log.run.id, self._id, log.step, attempt=log.attempt)) as chunks,
            ):
                self._extend_timeout()
                async for chunk in chunks:
                    self._extend_timeout()
                    self._screen.log(self._name, lines.feed(chunk), lines.unfinished)
                    await asyncio.sleep(0)  # let events and the screen run beside much output
        except ClientError as error:
            missing = error.message
        except TimeoutError:
            missing = f"nothing more came for {self._log_seconds:.0f} s after its task had ended"
        finally:
            self._bound = None
            self._screen.log(self._name, lines.end(), "")
        if missing:
            which = "setup" if log.step is None else f"step {log.step + 1}"
            command = log_command(log.run, self._name, log.step)
            self._screen.log(self._name, [f"(the log of {which} is missing here: {missing}: {command})"], "")

"""What the tasks of a run do, in an order that makes sense: causes before effects.

A task's lines come before its end, its end before anything of the tasks that depend on it. Events and logs arrive on
different ways, so each task has a queue, and a task's queue waits for the ends of those that it depends on.
"""

from __future__ import annotations

import asyncio
import shlex
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from runstream.cli.connection import us_command
from runstream.cli.finding import run_name
from runstream.cli.graph import ENDS, approval, told, word_for
from runstream.cli.log_text import LogLines
from runstream.cli.screen import Screen
from runstream.client import Attempt, Client, ClientError, Reason, Run, Task

LOG_SECONDS = 30.0
"""How long a log may be silent after its task has ended; then it is said to be missing."""
_OPEN_LOGS = 64
"""Logs that are read at once; each takes a connection."""
_FOR_ANOTHER = ("skipped", "cancelled", "stopped")
"""How tasks end when it is another task, or a person, that ends them."""
_TOLD = ("noExecutor", "noExecutorFits", "executorsFull")


@dataclass(frozen=True, slots=True)
class _Log:
    """The log of a step; of the setup for None."""

    run: Run
    attempt: int
    step: int | None


@dataclass(frozen=True, slots=True)
class _Causes:
    """Wait until these tasks are shown."""

    ended: tuple[asyncio.Event, ...]


class StepOutput:
    """Follows the logs of all steps that begin."""

    def __init__(
        self, client: Client, group: asyncio.TaskGroup, screen: Screen, *, log_seconds: float = LOG_SECONDS
    ) -> None:
        self._client = client
        self._group = group
        self._screen = screen
        self._log_seconds = log_seconds
        self._open = asyncio.Semaphore(_OPEN_LOGS)
        self._tasks: dict[str, _TaskOutput] = {}

    def follow(self, run: Run) -> None:
        """Go on with what has happened since the last time."""
        for task in run.tasks.values():
            if task.id not in self._tasks:
                self._tasks[task.id] = _TaskOutput(task, self._client, self._screen, self._open, self._log_seconds)
        causes = [self._tasks[task.id].ended for task in _causes(run)]
        for task in run.tasks.values():
            self._tasks[task.id].see(run, task, causes)
            self._begin(task)

    def explain(self, run: Run, reasons: tuple[Reason, ...]) -> None:
        """Say why tasks wait, each reason once."""
        for reason in reasons:
            for name in reason.tasks if reason.code in _TOLD else ():
                task = run.task(name)
                if task is not None and task.id in self._tasks:
                    self._tasks[task.id].explain(reason)
                    self._begin(task)

    def _begin(self, task: Task) -> None:
        """Show what is queued of a task from now on, unless there is nothing yet."""
        output = self._tasks[task.id]
        if output.begins:
            parents = [self._tasks[parent].ended for parent in task.depends if parent in self._tasks]
            output.working = self._group.create_task(output.work(parents))

    async def finish(self) -> None:
        """Wait until everything of a run that has ended is shown."""
        for output in self._tasks.values():
            output.close()
        working = [output.working for output in self._tasks.values() if output.working is not None]
        if working:
            await asyncio.wait(working)


def _causes(run: Run) -> list[Task]:
    """Return the failed tasks whose end is shown before that of the tasks that ended because of them.

    Tasks that depend on one that did not run are left out: they wait for it themselves.
    """
    below: dict[str, list[str]] = {}
    for task in run.tasks.values():
        for parent in task.depends:
            below.setdefault(parent, []).append(task.id)
    waiting: set[str] = set()
    stack = [task.id for task in run.tasks.values() if task.status in _FOR_ANOTHER]
    while stack:
        if (task_id := stack.pop()) not in waiting:
            waiting.add(task_id)
            stack += below.get(task_id, ())
    return [task for task in run.tasks.values() if task.status == "failed" and task.id not in waiting]


class _TaskOutput:
    """What there is to show of one task, in its order."""

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
        self._said = ("waiting", 1)
        self._explained: set[str] = set()
        self._over = False
        self._bound: asyncio.Timeout | None = None
        self.ended = asyncio.Event()
        """Set when everything of the task was shown."""
        self.working: asyncio.Task[None] | None = None

    @property
    def begins(self) -> bool:
        """True when there is something to show for the first time."""
        return self.working is None and bool(self._queue)

    def see(self, run: Run, task: Task, causes: Sequence[asyncio.Event]) -> None:
        """Queue what has happened to the task since the last time; its end behind that of the tasks that caused it."""
        for attempt in task.attempts:
            self._see_logs(run, attempt)
        if task.status not in ENDS:
            self._see_state(run, task)
        self._see_logs(run, task)
        if task.status in ENDS and not self._over:
            if task.status in _FOR_ANOTHER and not task.kept and causes:
                self._put(_Causes(tuple(causes)))
            self._see_state(run, task)
            self.close()

    def explain(self, reason: Reason) -> None:
        """Queue why the task waits."""
        if reason.code not in self._explained and not self._over:
            self._explained.add(reason.code)
            self._put([f"{self._name}: waits: {reason.message}"])

    def close(self) -> None:
        """Take nothing more; end when all that is queued was shown."""
        self._over = True
        self._more.set()
        self._be_patient()
        if self.working is None and not self._queue:
            self.ended.set()

    async def work(self, parents: list[asyncio.Event]) -> None:
        """Show what is queued, once everything of the tasks before it was shown."""
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
                if self._over:
                    return
                await self._more.wait()
        finally:
            self.ended.set()

    def _see_state(self, run: Run, task: Task) -> None:
        state = word_for(task), task.attempt
        if state != self._said:
            self._said = state
            lines = [] if state[0] == "waiting" else [told(task)]
            self._put(lines + ([f"  {approval(run, task)}"] if task.waiting_approval else []))

    def _see_logs(self, run: Run, attempt: Attempt | Task) -> None:
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

    def _be_patient(self) -> None:
        if self._over and self._bound is not None:
            self._bound.reschedule(asyncio.get_running_loop().time() + self._log_seconds)

    async def _copy(self, log: _Log) -> None:
        lines = LogLines(colours=self._screen.colours, line_chars=self._screen.line_chars)
        missing = ""
        try:
            async with (
                self._open,
                asyncio.timeout(None) as self._bound,
                aclosing(self._client.logs.follow(log.run.id, self._id, log.step, attempt=log.attempt)) as chunks,
            ):
                self._be_patient()
                async for chunk in chunks:
                    self._be_patient()
                    self._screen.log(self._name, lines.feed(chunk), lines.unfinished)
                    await asyncio.sleep(0)  # much output leaves the events and the screen their turn
        except ClientError as error:
            missing = error.message
        except TimeoutError:
            missing = f"nothing more came for {self._log_seconds:.0f} s after its task had ended"
        finally:
            self._bound = None
            self._screen.log(self._name, lines.end(), "")
        if missing:
            which = "setup" if log.step is None else f"step {log.step + 1}"
            option = "--setup" if log.step is None else f"--step {log.step}"
            command = f"{us_command()} log get {run_name(log.run)} {shlex.quote(self._name)} {option}"
            self._screen.log(self._name, [f"(the log of {which} is missing here: {missing}: {command})"], "")

"""One task from being taken up to being forgotten: started in the log, run, reported, cleared up.

A task runs only after its start is in the log, appended by this process: at most once, whoever else tries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from runstream.domain.executor_task import (
    ExecutorTask,
    decide_abandoned,
    decide_failed,
    decide_report,
    decide_start,
)
from runstream.events.executor_task import ExecutorTaskStarted
from runstream.executor.drivers.noop import lost_logs
from runstream.executor.ending import Ending, Reason
from runstream.executor.holding import Held
from runstream.executor.jobs import Clock, Ended, Job, Runner, fault_text
from runstream.executor.reporter import Reporter
from runstream.log.port import Log

_FIRST_DELAY_SECONDS = 0.1
_MAX_DELAY_SECONDS = 2.0
log = structlog.get_logger()


class Execution:
    """What this process does about one task."""

    def __init__(self, held: Held, runner: Runner, log: Log, actor: str, clock: Clock) -> None:
        self.ending = Ending()
        self._held = held
        self._runner = runner
        self._clock = clock
        self._reporter = held.reporter = Reporter(log, held.known, actor, clock, self.changed)

    def changed(self, task: ExecutorTask) -> None:
        """Somebody else said something of the task."""
        if task.lost:
            self.ending.tell(Reason.LOST)
        elif task.open and task.timedout:
            self.ending.tell(Reason.TIMEOUT)
        elif task.open and task.stop:
            self.ending.tell(Reason.STOP)

    async def start(self, release: Callable[[], None]) -> None:
        """Start the task if that is still to be done, and see it through; `release` when it no longer runs."""
        try:
            started = await self._reporter.append(lambda task: decide_start(task, self._clock()))
            if not any(isinstance(event, ExecutorTaskStarted) for event in started):
                return
            ended = await self._run()
        finally:
            release()
        await self._see_off(ended)

    async def recover(self) -> None:
        """See to a task that an earlier process of this executor left: it is not run again."""
        await self._reporter.reload()
        task = self._held.known.task
        if task.open and task.start_time is None:
            return
        if not task.settled or task.lost:
            ended = await self._runner.recover(self._job(task))
            for event in ended.events:
                self._reporter.report(event)
            await self._abandon()
            await self._see_off(ended)

    async def fail(self, fault: BaseException) -> None:
        """End a task in whose handling anything was raised: its processes, then the task in the log.

        The one guard of all that an executor does about a task. It tries until the log has taken the end, and says
        nothing but plain text that every part can store.
        """
        error = fault_text(fault)
        ended = await self._cleared()
        delay = _FIRST_DELAY_SECONDS
        while True:
            try:
                await self._reporter.reload()
                await self._reporter.append(lambda task: decide_failed(task, self._clock(), error))
                await self._reporter.append(lambda task: decide_report(task, lost_logs(task)) if ended is None else ())
                break
            except Exception:
                log.exception("a task's end is tried again", action="task_end_waits", task=self._held.id)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _MAX_DELAY_SECONDS)
        if ended is not None:
            await self._see_off(ended)

    async def _cleared(self) -> Ended | None:
        """End what the task left on this machine, and store its logs; None when that fails too."""
        try:
            ended = await self._runner.recover(self._job(self._held.known.task))
            for event in ended.events:
                self._reporter.report(event)
            await self._reporter.flush()
        except Exception:
            log.exception("what a task left cannot be cleared up", action="task_left", task=self._held.id)
            return None
        return ended

    async def _run(self) -> Ended:
        ended = await self._runner.run(self._job(self._held.known.task))
        await self._reporter.finish(ended.events)
        return ended

    async def _abandon(self) -> None:
        """End the task as failed, if it is running: the executor was restarted."""
        await self._reporter.flush()
        await self._reporter.append(lambda task: decide_abandoned(task, self._clock()))

    async def _see_off(self, ended: Ended) -> None:
        if ended.rest is not None:
            await ended.rest()
            await self._reporter.flush()

    def _job(self, task: ExecutorTask) -> Job:
        known = self._held.known
        return Job(task, known.address.partition, known.trace, self._clock, self._reporter.report, self.ending)

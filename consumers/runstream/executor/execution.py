"""One task from being taken up to being forgotten: started in the log, run, reported, cleared up.

A task runs only after its start is in the log, appended by this process: at most once, whoever else tries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from runstream.domain.executor_task import ExecutorTask, decide_abandoned, decide_start
from runstream.events.executor_task import ExecutorTaskFinished, ExecutorTaskStarted
from runstream.executor.drivers.noop import lost_logs
from runstream.executor.ending import Ending, Reason
from runstream.executor.holding import Held
from runstream.executor.jobs import Clock, Ended, Job, Runner
from runstream.executor.reporter import Events, Reporter
from runstream.log.port import Log

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
        if not task.settled:
            ended = await self._runner.recover(self._job(task))
            for event in ended.events:
                self._reporter.report(event)
            await self._abandon("")
            await self._see_off(ended)

    async def _run(self) -> Ended:
        try:
            ended = await self._runner.run(self._job(self._held.known.task))
        except Exception as error:  # a fault of ours fails this task, and no other
            log.exception("a task failed by a fault of Runstream", action="task_fault", task=self._held.id)
            for lost in lost_logs(self._held.known.task):
                self._reporter.report(lost)
            await self._abandon(f"internal error: {type(error).__name__}: {error}"[:1000])
            return Ended(())
        await self._reporter.finish(ended.events)
        return ended

    async def _abandon(self, error: str) -> None:
        """End the task as failed, if it is running; say `error`, or that the executor was restarted."""
        await self._reporter.flush()

        def decide(task: ExecutorTask) -> Events:
            events = decide_abandoned(task, self._clock())
            return tuple(
                replace(event, error=error) if error and isinstance(event, ExecutorTaskFinished) else event
                for event in events
            )

        await self._reporter.append(decide)

    async def _see_off(self, ended: Ended) -> None:
        if ended.rest is not None:
            await ended.rest()
            await self._reporter.flush()

    def _job(self, task: ExecutorTask) -> Job:
        known = self._held.known
        return Job(task, known.address.partition, known.trace, self._clock, self._reporter.report, self.ending)

"""Task timeouts: a timer for each running task that has a timeout, and what happens when it is due.

A due timer is a command that may be stale: the task's own history decides. Timers survive every restart; in case they
are lost, a worker schedules those of its running tasks again when it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import orjson
import structlog

from runstream.commits import Head, NewCommit, Position, StoredCommit
from runstream.domain.executor_task import ExecutorTask, decide_timeout
from runstream.errors import ConflictError, InternalError, RemoteError
from runstream.folding import executor_task_of
from runstream.lifecycle import BackgroundTasks, StrictTaskGroup, only_asked_cancellation
from runstream.log.port import Log, decide_and_append
from runstream.log.runs import head_of
from runstream.scheduler.decisions import ACTOR
from runstream.subjects import Address, group_root, partition_of
from runstream.timers import DueTimer, Timers

logger = structlog.get_logger(__name__)

RETRY_SECONDS = 1.0
MAX_CONCURRENT = 16
"""Timers that are handled concurrently, so that one that waits for the log delays few others."""


@dataclass(slots=True)
class TaskTimeouts:
    """The timers of tasks; shared by the workers of a process."""

    _timers: Timers
    _log: Log
    _clock: Callable[[], datetime]
    _skew: Callable[[str], float | None] = lambda _: 0.0
    """Returns how far the clock of the executor with this id is ahead of the log's server, in seconds, or None."""
    _armed: dict[str, ExecutorTask] = field(default_factory=dict)
    _to_arm: dict[str, ExecutorTask] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def arm(self, tasks: Iterable[ExecutorTask]) -> None:
        """Schedule a timer, once, for each of these tasks that has started and has a timeout."""
        for task in tasks:
            if not task.open:
                self._armed.pop(task.id, None)
                self._to_arm.pop(task.id, None)
            elif task.timeout and task.setup_step.end_time is not None and task.id not in self._armed:
                self._armed[task.id] = self._to_arm[task.id] = task
                self._changed.set()

    async def run(self) -> None:
        """Schedule timers and handle due ones until cancelled."""
        async with BackgroundTasks() as background:
            background.keep(self._schedule())
            await self._handle_due()

    async def _schedule(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._to_arm:
                task_id, task = next(iter(self._to_arm.items()))
                self._to_arm.pop(task_id)
                try:
                    partition = partition_of(group_root(task.group), self._log.partitions)
                    command = {"task": task_id, "partition": partition, "executor": task.executor_id}
                    await self._timers.schedule(task_id, self.due(task), orjson.dumps(command))
                except InternalError as error:
                    logger.warning("A timeout is scheduled later", action="timer_postponed", error=str(error))
                    if self._armed.get(task_id) is task:
                        self._to_arm.setdefault(task_id, task)  # behind the others, so that it delays none of them
                    await asyncio.sleep(RETRY_SECONDS)
                except Exception:  # permanent: a time after the last datetime, an invalid id
                    logger.exception("A timeout cannot be scheduled", action="timer_impossible", executor_task=task_id)

    def due(self, task: ExecutorTask) -> datetime:
        """Return when the task's timer is due, by the clock of the log's server, which delivers timers.

        The end of the task's setup is a time of its executor's clock. If that clock is not known the whole timeout
        counts from now: a late timeout does less harm than an early one, and the executor measures it, too.
        """
        skew = self._skew(task.executor_id)
        if skew is None or task.setup_step.end_time is None:
            return self._clock() + timedelta(microseconds=task.timeout / 1000)
        return task.setup_step.end_time - timedelta(seconds=skew) + timedelta(microseconds=task.timeout / 1000)

    async def _handle_due(self) -> None:
        slots = asyncio.Semaphore(MAX_CONCURRENT)
        async with StrictTaskGroup() as tasks:
            async for due in self._timers.due():
                await slots.acquire()
                tasks.create_task(self._handle(due)).add_done_callback(lambda _: slots.release())

    async def _handle(self, due: DueTimer) -> None:
        """Handle one timer; acknowledge it once it is handled, or if it can never be handled."""
        try:
            with only_asked_cancellation("timeout"):
                await self._time_out(due)
        except (InternalError, RemoteError, ConflictError) as error:
            logger.warning("A timeout is tried again later", action="timeout_postponed", error=str(error))
            return
        except Exception:  # permanent: an invalid payload, a history that cannot be read
            logger.exception("A timeout is dropped", action="timeout_impossible", timer=due.key)
        with contextlib.suppress(Exception):  # without an acknowledgement it is redelivered
            await due.done()

    async def _time_out(self, due: DueTimer) -> None:
        command = orjson.loads(due.payload)
        if command["partition"] >= self._log.partitions:
            return  # scheduled in an epoch with more partitions
        address = Address(command["partition"], "task", command["task"], command["executor"])

        async def load(_at_least: Position | None) -> tuple[list[StoredCommit], Head]:
            history = await self._log.history(address)
            return history, head_of(history)

        def decide(history: list[StoredCommit], head: Head) -> NewCommit | None:
            task = executor_task_of(history)
            events = decide_timeout(task) if task is not None else ()
            if not events:
                return None
            trace = history[-1].commit.trace
            cause = f"timeout:{address.id}"
            return head.next_commit(address, events, time=self._clock(), actor=ACTOR, cause=cause, trace=trace)

        if await decide_and_append(self._log, load, decide) is not None:
            logger.info("A task timed out", action="task_timed_out", executor_task=address.id)

"""One task in a pod: setup, steps in order, the end of its processes, its logs (rules step-1 to step-5).

The first step that does not succeed ends the task. When the task is to end, its pod is ended; a step that is
not a command of the pod is cancelled.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from runstream.errors import InternalError, RunstreamError
from runstream.events.executor_task import (
    ExecutorTaskArchiveStored,
    ExecutorTaskEvent,
    ExecutorTaskFinished,
    ExecutorTaskInterrupted,
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStepFinished,
    ExecutorTaskStepStarted,
    ExecutorTaskStepTimedOut,
    ExecutorTaskTimedOut,
)
from runstream.events.run_config import Step
from runstream.executor.disk_usage import watch_disk
from runstream.executor.drivers.port import Driver, NotStartedError, Pod
from runstream.executor.ending import STEP_LIMITS, Reason, StoppedError
from runstream.executor.jobs import Ended, Job, plain
from runstream.executor.masking import Masking
from runstream.executor.room import SpareRoom, is_full
from runstream.executor.settling import Settling
from runstream.executor.spec import ExecutorTaskSpec, Specs
from runstream.executor.step_limits import Limit, StepLimits, said
from runstream.executor.step_log import StepLog
from runstream.executor.steps.clone import clone
from runstream.executor.steps.commands import run
from runstream.executor.steps.context import DEFAULT_WORKING_DIR, StepContext
from runstream.executor.steps.workspace import restore, save
from runstream.executor.task_folder import TaskFolder
from runstream.log.port import Log
from runstream.objects import ObjectStorage
from runstream.steplogs.live import LiveLogs
from runstream.telemetry import span_from

T = TypeVar("T")

SETUP_SECONDS = 300.0
LEFTOVER_GRACE_SECONDS = 1.0
"""What a task that has ended by itself left running is given to end."""
_CANCEL_SECONDS = 1.0
_NOT_AVAILABLE = frozenset({"save_cache", "restore_cache"})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all tasks of an executor share."""

    driver: Driver
    log: Log
    objects: ObjectStorage
    live: LiveLogs | None
    """Without it logs cannot be followed while steps run."""
    specs: Specs
    spare: SpareRoom
    stop_grace_seconds: float
    step_log_bytes: int = 0
    """Of the log of one step; 0 for no limit."""
    task_disk_bytes: int = 0
    """Of the files of one task; 0 for no limit."""


class PodTask:
    """One job while it runs."""

    def __init__(self, job: Job, folder: TaskFolder, around: Surroundings) -> None:
        self.settling = Settling(around.objects, folder, job)
        self._job = job
        self._folder = folder
        self._around = around
        self._pod: Pod | None = None
        self._told: asyncio.Future[Any]
        """Done when the task is to end; while it runs."""
        self._error = ""
        self._masking = Masking()
        self._warnings: tuple[str, ...] = ()
        """Of the archive that was stored last."""

    async def run(self) -> Ended:
        """Run it to its end."""
        job = self._job
        told = self._told = asyncio.ensure_future(job.ending.told.wait())
        with span_from(job.trace, "task", {"task": job.task.task, "run": job.task.run_id}):
            try:
                spec = await self._setup()
                success = spec is not None and await self._run_steps(spec)
            finally:
                storing = asyncio.ensure_future(self.settling.finish())  # beside the end of what was left running
                try:
                    await self._end_pod()
                    await storing
                finally:
                    storing.cancel()
                    told.cancel()
        return Ended(self._finished(success), self.clean)

    async def clean(self) -> None:
        """Store what is not stored yet; remove what the task left on this machine."""
        await self.settling.persevere()
        if self._around.live is not None:
            await self._around.live.forget(self._job.task.id)
        await asyncio.to_thread(self._folder.remove)

    async def _watch_disk(self) -> None:
        limit, folder = self._around.task_disk_bytes, self._folder
        if limit:
            await watch_disk((folder.home, folder.tmp), limit, self._too_large)

    def _too_large(self) -> None:
        self._error = f"its files take more than {self._around.task_disk_bytes} bytes (executor.task_disk_bytes)"
        self._job.ending.tell(Reason.DISK)

    def _finished(self, success: bool) -> tuple[ExecutorTaskEvent, ...]:
        ending, at = self._job.ending, self._job.clock()
        if success:
            return (ExecutorTaskFinished(at, ExecutorTaskPhase.SUCCESS, ""),)
        if ending.interrupted:
            return (ExecutorTaskInterrupted(at), ExecutorTaskFinished(at, ending.task_phase, str(ending.reason)))
        return (ExecutorTaskFinished(at, ending.task_phase, self._masking.masked(self._error)),)

    async def _setup(self) -> ExecutorTaskSpec | None:
        job = self._job
        await asyncio.to_thread(self._folder.make)
        log = self._open_log(None)
        spec: ExecutorTaskSpec | None = None
        try:
            async with asyncio.timeout(SETUP_SECONDS):
                spec = await self._until_told(self._prepare(log))
        except (RunstreamError, OSError, TimeoutError) as failure:
            self._error = f"setup failed: {_said(failure)}"
            log.line(_said(failure))
        log.close()
        phase = ExecutorTaskPhase.SUCCESS if spec is not None else ExecutorTaskPhase.FAILED
        job.report(ExecutorTaskSetupFinished(job.clock(), phase))
        self.settling.add(None)
        if spec is None:
            self._end_logs(0, len(job.task.steps))
        return spec

    async def _prepare(self, log: StepLog) -> ExecutorTaskSpec:
        job, around = self._job, self._around
        spec = await around.specs.spec(job.task, job.partition)
        self._masking = await asyncio.to_thread(Masking.of, spec.secrets) if spec.secrets else Masking()
        log.hide(self._masking)
        used = sorted({step.type for step in spec.task.steps} & _NOT_AVAILABLE)
        if used:
            raise InternalError(f"step type {used[0]} is not available yet", code="stepNotAvailable")
        log.line("Preparing the task on this machine.")
        self._pod = pod = await around.driver.new_pod(job.task.id, spec, self._folder, log.write)
        working_dir = spec.task.working_dir or DEFAULT_WORKING_DIR
        log.line(f"Creating working dir {working_dir}.")
        os.close(await pod.files.run(pod.files.make_folder, pod.files.path(working_dir)))
        return spec

    async def _run_steps(self, spec: ExecutorTaskSpec) -> bool:
        steps = spec.task.steps
        watching = asyncio.ensure_future(self._watch_disk())
        seconds = self._job.task.timeout / 1e9
        timer = asyncio.get_running_loop().call_later(seconds, self._time_out) if seconds else None
        try:
            return await self._run_each(spec, steps)
        finally:
            watching.cancel()
            if timer is not None:
                timer.cancel()

    def _time_out(self) -> None:
        """End the task by this machine's monotonic clock; a scheduler's timer ends it where this machine hangs."""
        if not self._job.ending.told.is_set():
            self._job.report(ExecutorTaskTimedOut())
            self._job.ending.tell(Reason.TIMEOUT)

    async def _run_each(self, spec: ExecutorTaskSpec, steps: Sequence[Step]) -> bool:
        for index, step in enumerate(steps):
            with span_from("", "step", {"step": index, "type": step.type}):
                if self._job.ending.told.is_set() or not await self._run_step(spec, index, step):
                    self._end_logs(index, len(steps))
                    return False
        return True

    async def _run_step(self, spec: ExecutorTaskSpec, index: int, step: Step) -> bool:
        job, ending = self._job, self._job.ending
        job.report(ExecutorTaskStepStarted(index, job.clock()))
        log = self._open_log(index)
        limits = StepLimits(step, lambda limit: self._passed(index, step, limit, log))
        log.heard = limits.heard
        loop = asyncio.get_running_loop()
        log.full = lambda: loop.call_soon_threadsafe(self._disk_full)
        status: int | None = None
        try:
            status = await self._until_told(self._execute(spec, index, step, log))
        except (RunstreamError, OSError) as failure:
            if not ending.told.is_set():
                self._error = f"step {index} failed: {_said(failure)}"
                status = 1 if isinstance(failure, NotStartedError) else None
            log.line(_said(failure))
        finally:
            limits.close()
        if ending.told.is_set():
            status = None
            if ending.reason not in STEP_LIMITS:  # the step has said it already
                log.line(f"The task was ended: {ending.reason}.")
        log.close()
        if log.missing:
            self._disk_full()
        success = status == 0 and not ending.told.is_set()
        self.settling.add(index)
        if success and step.type == "save_to_workspace":
            job.report(ExecutorTaskArchiveStored(index, self._warnings))
        phase = ExecutorTaskPhase.SUCCESS if success else ending.step_phase
        job.report(ExecutorTaskStepFinished(index, job.clock(), phase, status))
        return success

    def _disk_full(self) -> None:
        """A log that cannot be written fails the step; a task is not to go on unseen."""
        if not self._job.ending.told.is_set():
            self._error = "disk full: the log cannot be written to its end"
            self._job.ending.tell(Reason.DISK_FULL)

    def _passed(self, index: int, step: Step, limit: Limit, log: StepLog) -> None:
        """End the task because of its step, unless it is being ended already."""
        ending = self._job.ending
        if not ending.told.is_set():
            log.line(f"The step is ended: {said(limit, step)}.")
            self._job.report(ExecutorTaskStepTimedOut(index, self._job.clock(), limit))
            ending.tell(Reason.STEP_TIMEOUT if limit == "timeout" else Reason.NO_OUTPUT)

    async def _execute(self, spec: ExecutorTaskSpec, index: int, step: Step, log: StepLog) -> int:
        job, around = self._job, self._around
        if self._pod is None:
            raise InternalError("the task was not set up", code="taskNotSetUp")
        context = StepContext(
            index, step, job.task, job.partition, spec, self._pod, self._folder, log, job.ending.stopped
        )
        match step.type:
            case "run":
                return await run(context)
            case "clone":
                return await clone(context)
            case "save_to_workspace":
                saved = await save(context, around.objects, self._masking)
                self._warnings = saved.warnings
                return saved.status
            case "restore_workspace":
                return await restore(context, around.objects, around.log)
            case "save_cache" | "restore_cache":
                raise InternalError(f"step type {step.type} is not available yet", code="stepNotAvailable")

    async def _until_told(self, work: Coroutine[None, None, T]) -> T:
        """What `work` gives. When the task is to end, the pod is ended; StoppedError if that does not end `work`."""
        ending = self._job.ending
        task = asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {task, self._told}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                if self._pod is not None:
                    await self._pod.end(ending.grace(self._around.stop_grace_seconds))
                await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            if task.cancelled():
                raise StoppedError
            return task.result()
        finally:
            task.cancel()

    async def _end_pod(self) -> None:
        if self._pod is not None:
            try:
                await self._pod.end(LEFTOVER_GRACE_SECONDS)
            finally:
                await self._pod.close()

    def _open_log(self, step: int | None) -> StepLog:
        live = self._around.live
        live_log = live.log(self._job.task.id, step) if live is not None else None
        around = self._around
        return StepLog(
            self._folder.log(step), live_log, self._masking, around.step_log_bytes, release_room=around.spare.release
        )

    def _end_logs(self, begin: int, end: int) -> None:
        """Tell those who follow steps that will never run; the log of one that ran has ended already."""
        if self._around.live is not None:
            for step in range(begin, end):
                if not self._folder.log(step).exists():
                    self._around.live.log(self._job.task.id, step).end()


def _said(failure: BaseException) -> str:
    """A failure for people; some of Python's say nothing."""
    if isinstance(failure, TimeoutError):
        return f"it took longer than {SETUP_SECONDS:.0f} seconds"
    if is_full(failure):
        return plain(f"disk full: {failure}")
    hint = failure.hint if isinstance(failure, RunstreamError) else ""
    return plain(f"{failure} ({hint})" if hint else str(failure))

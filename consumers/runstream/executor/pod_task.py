"""Runs one task in a pod: its setup, its steps in order, the end of its processes (rules step-1 to step-5).

The first step that fails ends the task. Ending a task ends its pod; a step that runs outside the pod is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import structlog

from runstream.backoff import Backoff, retry
from runstream.counting import counted
from runstream.errors import BadRequestError, InternalError, RunstreamError
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
from runstream.events.run_config import DEFAULT_WORKING_DIR, Step
from runstream.executor.drivers.port import Driver, Output, Pod
from runstream.executor.masking import Masking
from runstream.executor.spec import ExecutorTaskSpec, Specs
from runstream.executor.step_log import LogUpload, StepLog
from runstream.executor.steps.cache import restore_cache, save_cache
from runstream.executor.steps.clone import clone
from runstream.executor.steps.run import StepContext, run
from runstream.executor.steps.workspace import restore, save
from runstream.executor.task import STEP_LIMITS, Ended, EndReason, Job, StoppedError, plain
from runstream.executor.workdir import DiskReserve, TaskFolder, is_full, watch_disk
from runstream.lifecycle import BackgroundTasks
from runstream.log.port import Log
from runstream.objects import ObjectStorage
from runstream.objects.caches import StoredCaches
from runstream.open_files import OpenFilesError, out_of_files
from runstream.runconfig.amounts import format_duration
from runstream.steplogs.live import LiveLogs
from runstream.telemetry import span_from

log = structlog.get_logger()
_BACKOFF = Backoff(0.2, 30.0)

T = TypeVar("T")

LEFTOVER_GRACE_SECONDS = 1.0
"""Grace period for processes that a task has left running when its steps are done, in seconds."""
_CANCEL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class RunnerContext:
    """The context shared by all tasks of an executor."""

    driver: Driver
    log: Log
    objects: ObjectStorage
    live: LiveLogs | None
    """None if logs cannot be followed while steps run."""
    specs: Specs
    disk_reserve: DiskReserve
    stop_grace_seconds: float
    setup_seconds: float = 300.0
    """Maximum time of a task's setup."""
    step_log_bytes: int = 0
    """Limit of a step's log; 0 for no limit."""
    task_disk_bytes: int = 0
    """Limit of a task's files; 0 for no limit."""


class PodTask:
    """A running job."""

    def __init__(self, job: Job, folder: TaskFolder, context: RunnerContext) -> None:
        self.log_upload = LogUpload(context.objects, folder, job)
        self._job = job
        self._folder = folder
        self._context = context
        self._pod: Pod | None = None
        self._ending: asyncio.Future[Any]
        """Done when the task must end; set while it runs."""
        self._error = ""
        self._masking = Masking()
        self._services: dict[int, StepLog] = {}
        """The logs of services, by number."""
        self._warnings: tuple[str, ...] = ()
        """Warnings of the archive stored last."""

    async def run(self) -> Ended:
        """Run the job until it ends."""
        job = self._job
        ending = self._ending = asyncio.ensure_future(job.ending.requested.wait())
        with span_from(job.trace, "task", {"task": job.task.task, "run": job.task.run_id}):
            try:
                spec = await self._setup()
                success = spec is not None and await self._run_steps(spec)
            finally:
                storing = asyncio.ensure_future(self.log_upload.finish())  # while leftover processes are ended
                try:
                    await self._end_pod()
                    await storing
                    if self._services:
                        self._close_services()
                        await self.log_upload.finish()
                finally:
                    storing.cancel()
                    ending.cancel()
        return Ended(self._finished(success), self.clean)

    async def clean(self) -> None:
        """Upload the remaining logs, then remove the task's files from this machine."""
        await self.log_upload.persevere()
        if self._context.live is not None:
            await self._context.live.forget(self._job.task.id)
        await retry(lambda: asyncio.to_thread(self._folder.remove), OpenFilesError, _BACKOFF)

    async def _watch_disk(self) -> None:
        limit, folder = self._context.task_disk_bytes, self._folder
        if limit:
            await watch_disk((folder.home, folder.tmp), limit, self._too_large)

    def _too_large(self) -> None:
        self._error = f"its files take more than {self._context.task_disk_bytes} bytes (executor.task_disk_bytes)"
        self._job.ending.signal(EndReason.DISK)

    def _finished(self, success: bool) -> tuple[ExecutorTaskEvent, ...]:
        ending, at = self._job.ending, self._job.clock()
        if success:
            return (ExecutorTaskFinished(at, ExecutorTaskPhase.SUCCESS, ""),)
        if ending.reason is EndReason.TIMEOUT:
            self._error = self._timed_out
        if ending.interrupted:
            return (ExecutorTaskInterrupted(at), ExecutorTaskFinished(at, ending.task_phase, str(ending.reason)))
        return (ExecutorTaskFinished(at, ending.task_phase, self._masking.masked(self._error)),)

    async def _setup(self) -> ExecutorTaskSpec | None:
        job = self._job
        await asyncio.to_thread(self._folder.make)
        log = self._open_log(None)
        spec: ExecutorTaskSpec | None = None
        try:
            async with asyncio.timeout(self._context.setup_seconds):
                spec = await self._unless_ending(self._prepare(log))
        except (RunstreamError, OSError, TimeoutError) as failure:
            text = _failure_text(failure)
            if self._ended_by:  # the failure is how the setup ended
                text = self._ended_by
            elif isinstance(failure, TimeoutError) and not text:
                limit = counted(round(self._context.setup_seconds), "second")
                text = f"it took longer than {limit} (executor.setup_seconds)"
            self._error = "" if self._ended_by else f"setup failed: {text}"
            log.line(text)
        finally:
            log.close()
        phase = ExecutorTaskPhase.SUCCESS if spec is not None else ExecutorTaskPhase.FAILED
        job.report(ExecutorTaskSetupFinished(job.clock(), phase))
        self.log_upload.add(None)
        if spec is None:
            self._end_logs(0, len(job.task.steps))
        return spec

    async def _prepare(self, log: StepLog) -> ExecutorTaskSpec:
        job, context = self._job, self._context
        spec = await context.specs.spec(job.task, job.partition)
        self._masking = await asyncio.to_thread(Masking.of, spec.secrets) if spec.secrets else Masking()
        log.hide(self._masking)
        if spec.task.runtime.type == "host":
            log.line("Preparing the task on this machine.")
        self._pod = pod = await context.driver.new_pod(job.task.id, spec, self._folder, log.write, self._service_log)
        working_dir = spec.task.working_dir or DEFAULT_WORKING_DIR
        log.line(f"Creating working dir {working_dir}.")
        await pod.make_working_dir(working_dir)
        return spec

    def _service_log(self, number: int) -> Output:
        log = self._services[number] = self._open_log(-number)
        log.hide(self._masking)
        return log.write

    def _close_services(self) -> None:
        for number, log in self._services.items():
            log.close()
            self.log_upload.add(-number)

    async def _run_steps(self, spec: ExecutorTaskSpec) -> bool:
        steps = spec.task.steps
        seconds = self._job.task.timeout / 1e9
        timer = asyncio.get_running_loop().call_later(seconds, self._time_out) if seconds else None
        try:
            async with BackgroundTasks() as background:
                background.once(self._watch_disk())
                return await self._run_each(spec, steps)
        finally:
            if timer is not None:
                timer.cancel()

    def _time_out(self) -> None:
        """End the task by this machine's monotonic clock; a scheduler's timer ends it if this machine hangs."""
        if not self._job.ending.requested.is_set():
            self._job.report(ExecutorTaskTimedOut())
            self._job.ending.signal(EndReason.TIMEOUT)

    @property
    def _timed_out(self) -> str:
        timeout = self._job.task.timeout
        return f"timed out after {format_duration(timeout)}" if timeout else "timed out"

    @property
    def _ended_by(self) -> str:
        """The last line of the log of a step that ended because its task must end; empty if its log says why."""
        reason = self._job.ending.reason
        if reason is None or reason in STEP_LIMITS:
            return ""
        if reason is EndReason.TIMEOUT:
            return f"The task {self._timed_out}."
        return f"The task was ended: {reason}."

    async def _run_each(self, spec: ExecutorTaskSpec, steps: Sequence[Step]) -> bool:
        for index, step in enumerate(steps):
            with span_from("", "step", {"step": index, "type": step.type}):
                if self._job.ending.requested.is_set() or not await self._run_step(spec, index, step):
                    self._end_logs(index, len(steps))
                    return False
        return True

    async def _run_step(self, spec: ExecutorTaskSpec, index: int, step: Step) -> bool:
        job, ending = self._job, self._job.ending
        try:
            log = self._open_log(index)  # before the step has begun in the log: one without a file would never settle
        except OSError as failure:
            self._error = f"step {index} failed: its log cannot be opened: {_failure_text(failure)}"
            return False
        job.report(ExecutorTaskStepStarted(index, job.clock()))
        limits = StepLimits(step, lambda limit: self._passed(index, step, limit, log))
        log.on_output = limits.note_output
        loop = asyncio.get_running_loop()
        log.full = lambda: loop.call_soon_threadsafe(self._disk_full)
        status: int | None = None
        try:
            status = await self._unless_ending(self._execute(spec, index, step, log))
        except (RunstreamError, OSError) as failure:
            if not ending.requested.is_set():
                self._error = f"step {index} failed: {_failure_text(failure)}"
                status = 1 if isinstance(failure, BadRequestError) and not out_of_files(failure) else None
                log.line(_failure_text(failure))
        finally:
            limits.close()
            if self._ended_by:
                log.line(self._ended_by)
            log.close()
        if ending.requested.is_set():
            status = None
        if log.missing:
            self._disk_full()
        success = status == 0 and not ending.requested.is_set()
        self.log_upload.add(index)
        if success and step.type == "save_to_workspace":
            job.report(ExecutorTaskArchiveStored(index, self._warnings))
        phase = ExecutorTaskPhase.SUCCESS if success else ending.step_phase
        job.report(ExecutorTaskStepFinished(index, job.clock(), phase, status))
        return success

    def _disk_full(self) -> None:
        """Fail the step if its log cannot be written: a task must not continue without its log."""
        if not self._job.ending.requested.is_set():
            self._error = "disk full: the log cannot be written to its end"
            self._job.ending.signal(EndReason.DISK_FULL)

    def _passed(self, index: int, step: Step, limit: Limit, log: StepLog) -> None:
        """End the task because a step has exceeded a limit, unless it is ending already."""
        ending = self._job.ending
        if not ending.requested.is_set():
            if limit == "timeout":
                reason, why = EndReason.STEP_TIMEOUT, f"timed out after {format_duration(step.step_timeout_interval)}"
            else:
                silence = format_duration(step.no_output_timeout)
                reason, why = EndReason.NO_OUTPUT, f"timed out after {silence} without output"
            log.line(f"The step {why}.")
            self._error = f"step {index} failed: {why}"
            self._job.report(ExecutorTaskStepTimedOut(index, self._job.clock(), limit))
            ending.signal(reason)

    async def _execute(self, spec: ExecutorTaskSpec, index: int, step: Step, log: StepLog) -> int:
        job, context = self._job, self._context
        if self._pod is None:
            raise InternalError("the task was not set up", code="taskNotSetUp")
        here = StepContext(index, step, job.task, job.partition, spec, self._pod, self._folder, log, job.ending.stopped)
        match step.type:
            case "run":
                return await run(here)
            case "clone":
                return await clone(here)
            case "save_to_workspace":
                self._warnings = await save(here, context.objects, self._masking)
            case "restore_workspace":
                await restore(here, context.objects, context.log)
            case "save_cache":
                await save_cache(here, StoredCaches(context.objects), self._masking)
            case "restore_cache":
                await restore_cache(here, StoredCaches(context.objects), self._masking)
        return 0

    async def _unless_ending(self, work: Coroutine[None, None, T]) -> T:
        """Return the result of `work`. When the task must end, end its pod; raise StoppedError if `work` does not
        end then."""
        ending = self._job.ending
        task = asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {task, self._ending}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                if self._pod is not None:
                    await self._pod.end(ending.grace(self._context.stop_grace_seconds))
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
        live = self._context.live
        live_log = live.log(self._job.task.id, step) if live is not None else None
        context = self._context
        return StepLog(
            self._folder.log(step),
            live_log,
            self._masking,
            context.step_log_bytes,
            release_reserve=context.disk_reserve.release,
        )

    def _end_logs(self, begin: int, end: int) -> None:
        """End the live logs of steps that will never run, for readers that follow them."""
        if self._context.live is not None:
            for step in range(begin, end):
                if not self._folder.log(step).exists():
                    self._context.live.log(self._job.task.id, step).end()


def _failure_text(failure: BaseException) -> str:
    """Return the text of a failure; some Python exceptions have none."""
    if out_of_files(failure):
        return OpenFilesError().message
    if is_full(failure):
        return plain(f"disk full: {failure}")
    hint = failure.hint if isinstance(failure, RunstreamError) else ""
    return plain(f"{failure} ({hint})" if hint else str(failure))


Limit = Literal["timeout", "no_output"]
_SECOND = 1_000_000_000


class StepLimits:
    """The time limits of one running step. `close` it when the step has ended."""

    def __init__(self, step: Step, passed: Callable[[Limit], None]) -> None:
        """Call `passed` at most once, when a limit is exceeded."""
        self._loop = asyncio.get_running_loop()
        self._passed = passed
        self._silence = step.no_output_timeout / _SECOND
        self._output_at = self._loop.time()
        self._timers: dict[Limit, asyncio.TimerHandle] = {}
        if step.step_timeout_interval:
            seconds = step.step_timeout_interval / _SECOND
            self._timers["timeout"] = self._loop.call_later(seconds, self._over, "timeout")
        if self._silence:
            self._watch_output()

    def note_output(self) -> None:
        """Record that the step has written output."""
        self._output_at = self._loop.time()

    def close(self) -> None:
        """Cancel the timers."""
        while self._timers:
            self._timers.popitem()[1].cancel()

    def _watch_output(self) -> None:
        """Re-arm the timer only when it fires, because a step may write many times a second."""
        due = self._output_at + self._silence
        if self._loop.time() >= due:
            self._over("no_output")
        else:
            self._timers["no_output"] = self._loop.call_at(due, self._watch_output)

    def _over(self, limit: Limit) -> None:
        self.close()
        self._passed(limit)

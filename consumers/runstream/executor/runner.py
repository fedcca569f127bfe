"""Runs the steps of one task in a pod of a driver, and cleans up after an earlier process of this executor.

A task is its setup, its steps in order, the end of its processes, and the upload of its logs (rules step-1 to step-5).
The first step that fails ends the task. Ending a task ends its pod; a step that runs outside the pod is cancelled. Logs
are uploaded in groups, with retries for a limited time while the object storage is unavailable.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import structlog

from runstream.backoff import Backoff, retry
from runstream.counting import counted
from runstream.domain.executor_task import ExecutorTask
from runstream.errors import BadRequestError, InternalError, NotExistError, RunstreamError
from runstream.events.executor_task import (
    ExecutorTaskArchiveStored,
    ExecutorTaskEvent,
    ExecutorTaskFinished,
    ExecutorTaskInterrupted,
    ExecutorTaskLogLost,
    ExecutorTaskLogStored,
    ExecutorTaskPhase,
    ExecutorTaskSetupFinished,
    ExecutorTaskStepFinished,
    ExecutorTaskStepStarted,
    ExecutorTaskStepTimedOut,
    ExecutorTaskTimedOut,
)
from runstream.events.run_config import Step
from runstream.executor.beneath import remove_tree
from runstream.executor.drivers.capabilities import Capabilities
from runstream.executor.drivers.port import Driver, Output, Pod
from runstream.executor.masking import Masking
from runstream.executor.spec import ExecutorTaskSpec, Specs
from runstream.executor.step_log import StepLog
from runstream.executor.steps.cache import restore_cache, save_cache
from runstream.executor.steps.clone import clone
from runstream.executor.steps.run import DEFAULT_WORKING_DIR, StepContext, run
from runstream.executor.steps.workspace import restore, save
from runstream.executor.task import STEP_LIMITS, Ended, EndReason, Job, StoppedError, lost_logs, plain
from runstream.executor.workdir import DiskReserve, TaskFolder, is_full, spread, watch_disk
from runstream.folding import UnfitCommitError
from runstream.ids import attempt_id
from runstream.lifecycle import BackgroundTasks
from runstream.log.port import Log
from runstream.log.runs import find_run
from runstream.objects import ObjectStorage, paths
from runstream.objects.caches import StoredCaches
from runstream.open_files import OpenFilesError, out_of_files
from runstream.runconfig.amounts import format_duration
from runstream.steplogs.live import LiveLogs
from runstream.steplogs.log_state import CUT_OFF
from runstream.subjects import Address
from runstream.telemetry import span_from

log = structlog.get_logger()


def cut_off(path: Path, task: ExecutorTask, step: int | None) -> None:
    """Mark the log of an unfinished step as cut off, once; skip the mark if the disk is full."""
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
            path.with_suffix(".index").unlink(missing_ok=True)  # it is of the log without the mark


class PodRunner:
    """A runner that uses a driver."""

    def __init__(self, context: RunnerContext, tasks: Path) -> None:
        """`tasks` is the directory with one folder for each task."""
        self._context = context
        self._tasks = tasks

    async def setup(self) -> None:
        """Prepare the driver."""
        await self._context.driver.setup()

    @property
    def capabilities(self) -> Capabilities:
        """The driver's capabilities."""
        return self._context.driver

    async def close(self) -> None:
        """Close the driver."""
        await self._context.driver.close()

    async def run(self, job: Job) -> Ended:
        """Run the task until it ends."""
        return await PodTask(job, self._folder(job.task.id), self._context).run()

    def kept(self, task_id: str) -> bool:
        """Return whether the task's folder exists."""
        return self._folder(task_id).root.exists()

    async def recover(self, job: Job) -> Ended:
        """End the task's leftover processes; store the logs that are on this machine, and report the others as lost.

        A step may have begun just before the executor was killed, before its event reached the log.
        """
        folder = self._folder(job.task.id)
        await self._context.driver.end_leftover(job.task.id, folder)
        task = PodTask(job, folder, self._context)
        if job.task.lost and not await self._wants_logs(job):
            return Ended((), task.clean)
        lost = []
        for event in (*lost_logs(job.task), *self._found(job, folder)):
            if folder.log(event.step).exists():
                cut_off(folder.log(event.step), job.task, event.step)
                task.log_upload.add(event.step)
            else:
                lost.append(event)
        await task.log_upload.finish()
        return Ended(tuple(lost), task.clean)

    async def _wants_logs(self, job: Job) -> bool:
        """Return False if the run was deleted, or its logs removed, while the executor was lost."""
        try:
            found = await find_run(self._context.log, Address(job.partition, "run", job.task.run_id))
        except NotExistError as error:
            return error.code != "runDeleted"
        except UnfitCommitError:  # the projection parks it
            return True
        return found.run.logs_removed_at is None

    def _found(self, job: Job, folder: TaskFolder) -> list[ExecutorTaskLogLost]:
        """Report the steps that only their local logs show to have begun; return how each log is to be reported if
        lost."""
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
        """End what earlier processes left of all tasks; remove the folders of tasks that are not `kept`.

        A failure is logged as a warning and does not prevent the start.
        """
        await self._context.driver.sweep()
        self._tasks.mkdir(mode=0o700, parents=True, exist_ok=True)
        spread(self._tasks)
        for path in await asyncio.to_thread(lambda: list(self._tasks.iterdir())):
            folder = TaskFolder(path)
            try:
                await self._context.driver.end_leftover(path.name, folder)
            except Exception:  # the leftovers of one task must not prevent the start
                log.exception(f"processes of task {path.name} may be left", action="leftover_not_ended", task=path.name)
            if path.name not in kept:
                with contextlib.suppress(OpenFilesError):  # the next start removes it
                    await asyncio.to_thread(folder.remove)
        await asyncio.to_thread(self._remove_set_aside)

    def _remove_set_aside(self) -> None:
        """Retry removing the files that could not be removed earlier; log a warning for those that remain."""
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


GATHER_SECONDS = 0.2
_TRIES = 3
_UNAVAILABLE = (RunstreamError, OSError)
"""Errors of an object storage that may be back later."""
_BACKOFF = Backoff(0.2, 30.0)
GIVE_UP_SECONDS = 600.0
"""Maximum time for uploading logs after the end of a task, in seconds."""


class LogUpload:
    """The log upload of one task."""

    def __init__(self, objects: ObjectStorage, folder: TaskFolder, job: Job) -> None:
        self._objects = objects
        self._folder = folder
        self._job = job
        self._waiting: list[int | None] = []
        self._storing = asyncio.Lock()
        self._gathering: asyncio.Task[None] | None = None

    def add(self, step: int | None) -> None:
        """Schedule the upload of a step's complete log."""
        self._waiting.append(step)
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._gather())

    async def finish(self) -> None:
        """Upload the pending logs, with a few attempts; those that fail stay pending."""
        if self._gathering is not None:
            self._gathering.cancel()
        with contextlib.suppress(*_UNAVAILABLE):
            await retry(self._store_all, _UNAVAILABLE, replace(_BACKOFF, attempts=_TRIES))

    async def persevere(self) -> None:
        """Retry until all logs are uploaded; report those still pending at the end as lost."""
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS):
                await retry(self._store_all, _UNAVAILABLE, _BACKOFF)
        except TimeoutError:
            for step in self._waiting:
                if step is None or step >= 0:
                    self._job.report(ExecutorTaskLogLost(step))
            self._waiting = []

    async def _gather(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        self._gathering = None
        with contextlib.suppress(*_UNAVAILABLE):
            await self._store()

    async def _store_all(self) -> None:
        while self._waiting:
            await self._store()

    async def _store(self) -> None:
        """Upload the logs that are pending now; they stay pending if that fails."""
        async with self._storing:
            steps, self._waiting = self._waiting, []
            if not steps:
                return
            task = self._job.task
            stored = attempt_id(task.run_task_id, task.attempt)
            contents: dict[str, bytes | Path] = {}
            for step in steps:
                contents[paths.step_log(stored, step)] = self._folder.log(step)
                if (index := self._folder.log_index(step)).exists():
                    contents[paths.log_index(stored, step)] = index
            contents[paths.log_reference(stored, task.run_id)] = b""
            try:
                await self._objects.write_all(contents)
            except BaseException as error:
                self._waiting = steps + self._waiting
                if isinstance(error, _UNAVAILABLE):
                    log.warning(f"logs of task {task.id} wait: {error}", action="step_logs_wait", task=task.id)
                raise
        for step in steps:
            if step is None or step >= 0:  # nobody waits for that of a service
                self._job.report(ExecutorTaskLogStored(step))


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

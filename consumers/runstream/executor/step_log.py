"""The output of a step: written to a local file, which becomes the stored log, and to the live log.

Large output is masked in a thread, in order. The queue for the thread is bounded: when it is full, the event loop masks
the output itself, so a step cannot write faster than its log is masked.

The times of the log are those at which masked output is written. The index with them is written when the log is
complete, so the log of a killed executor has none.

A complete log is uploaded within a moment, together with those of other short steps; it is tried again for a limited
time while the object storage is unavailable.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from runstream.atomic_files import replace_file
from runstream.backoff import Backoff, retry
from runstream.counting import counted
from runstream.errors import RunstreamError
from runstream.events.executor_task import ExecutorTaskLogLost, ExecutorTaskLogStored
from runstream.executor.masking import Masker, Masking
from runstream.executor.task import Job
from runstream.executor.workdir import TaskFolder, is_full
from runstream.ids import attempt_id
from runstream.objects import ObjectStorage, paths
from runstream.steplogs.live import LiveLog
from runstream.steplogs.log_index import LogIndexer, encode

log = structlog.get_logger()

_INLINE_BYTES = 8 << 10
"""Number of bytes masked in the event loop: handing them to a thread would take longer."""
_WAITING_BYTES = 1 << 20


def _now() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(eq=False)
class StepLog:
    """The log of a running step. Writing never fails the step."""

    path: Path
    live: LiveLog | None
    masking: Masking = field(default_factory=Masking)
    """The secrets to mask."""
    limit: int = 0
    """Maximum number of bytes of output; 0 for no limit."""
    release_reserve: Callable[[], bool] = lambda: False
    """Frees disk blocks for the last line; returns False when it has none."""

    def __post_init__(self) -> None:
        self._masker = Masker(self.masking)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._masked: deque[tuple[bytes, int]] = deque()
        """Masked output, with the time in milliseconds at which each piece was written."""
        self._indexer = LogIndexer()
        self._turn = threading.Lock()
        """Held while masking and writing."""
        self._thread: asyncio.Future[None] | None = None
        self._room = self.limit or sys.maxsize
        self.on_output: Callable[[], None] = lambda: None
        """Called for each chunk of the step's own output."""
        self.missing = 0
        """Number of bytes that could not be written because the disk is full."""
        self.full: Callable[[], object] = lambda: None
        """Called once, in any thread, when the disk is full."""
        self._file: int | None = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def hide(self, masking: Masking) -> None:
        """Mask these secrets from now on."""
        self._finish()
        self._masker = Masker(masking)

    def write(self, chunk: bytes) -> None:
        """Append output of the step."""
        self.on_output()
        if self._room > 0:
            kept = chunk[: self._room]
            self._room -= len(kept)
            self._take(kept)
            if self._room == 0:
                self.line(f"\nThe log ends here: it has {self.limit} bytes, the limit (executor.step_log_bytes).")

    def _take(self, chunk: bytes) -> None:
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk)
        if self._thread is None and self._waiting_bytes > _INLINE_BYTES and self._masker.masks:
            self._thread = asyncio.get_running_loop().run_in_executor(None, self._write_waiting)
            self._thread.add_done_callback(self._thread_ended)
        elif self._thread is None or self._waiting_bytes > _WAITING_BYTES:
            self._write_waiting()
            self._publish()

    def _thread_ended(self, thread: asyncio.Future[None]) -> None:
        self._thread = None
        thread.result()
        self._write_waiting()  # output queued since the thread last looked
        self._publish()

    def _write_waiting(self) -> None:
        """Mask and write the queued output. Runs in a thread, or in the event loop, which then waits for the
        thread's chunk."""
        with self._turn:
            while self._waiting:
                chunk = self._waiting.popleft()
                self._waiting_bytes -= len(chunk)
                self._store(self._masker.feed(chunk))

    def _finish(self) -> None:
        self._write_waiting()
        with self._turn:
            self._store(self._masker.end())
        self._publish()

    def _publish(self) -> None:
        """Pass the written output on to the live log. Runs in the event loop."""
        while self._masked:
            chunk, at = self._masked.popleft()
            if self.live is not None:
                self.live.write(chunk, at)

    def _store(self, chunk: bytes) -> None:
        if self._file is None or not chunk:
            return
        if self.missing:
            self.missing += len(chunk)
            return
        written = 0
        try:
            while written < len(chunk):
                written += os.write(self._file, chunk[written:] if written else chunk)
        except OSError as error:
            if is_full(error):
                self.missing += len(chunk) - written
                self.full()
            else:
                log.warning(
                    f"the log {self.path} ends here, it cannot be written: {error}",
                    action="step_log_not_written",
                    path=str(self.path),
                )
                self._close_file()
        if written:
            self._written(chunk[:written])

    def _written(self, chunk: bytes) -> None:
        """Note bytes that are in the file."""
        self._masked.append((chunk, self._indexer.add(chunk, _now())))

    def _say_missing(self, file: int) -> None:
        text = f"\ndisk full: {counted(self.missing, 'byte')} of the log missing here\n".encode()
        begin = os.lseek(file, 0, os.SEEK_CUR)
        while True:
            with contextlib.suppress(OSError):  # the disk is still full
                if os.pwrite(file, text, begin) == len(text):
                    self._written(text)
                    return
            if not self.release_reserve():
                return

    def line(self, text: str) -> None:
        """Append a line of Runstream's own."""
        self._take(f"{text}\n".encode())

    def close(self) -> None:
        """Complete the log; a second close does nothing."""
        try:
            self._finish()
            if self._file is not None and self.missing:
                self._say_missing(self._file)
                self._publish()
            if self._file is not None:
                self._write_index()
        finally:
            self._close_file()
            if self.live is not None:
                self.live.end()

    def _write_index(self) -> None:
        """Write the index whole, or not at all: a log without one has no times. Storing it as an object syncs it."""
        try:
            replace_file(self.path.with_suffix(".index"), encode(self._indexer.index()), durable=False)
        except OSError as error:
            log.warning(
                f"the log {self.path} has no times, its index cannot be written: {error}",
                action="log_index_not_written",
                path=str(self.path),
            )

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


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
        with contextlib.suppress(*_UNAVAILABLE):  # `persevere` goes on with what is pending
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
        with contextlib.suppress(*_UNAVAILABLE):  # `finish` tries again
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

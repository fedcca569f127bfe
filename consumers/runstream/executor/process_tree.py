"""Which processes belong to a task, and their end: none of them survives the task.

A process belongs to a task when it is in a session that the task started, carries the task's mark in its
environment, works in the task's folder, or was started by one that does. So a grandchild that began a session
of its own is found; one that also dropped its environment, left the folder and was orphaned is not, unless
tasks are sandboxed: there the end of the sandbox's process namespace ends it. Linux only (/proc).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from runstream.errors import InternalError

MARK = "RUNSTREAM_EXECUTOR_TASK"
"""The environment variable that every process of a task has: `<executor id>/<executor task id>`."""

_READ_BYTES = 64 << 10
_KILL_ROUNDS = 50
_KILL_SECONDS = 1.0
_YOUNG_SECONDS = 5.0
"""So long after its first process, younger processes are those with higher ids, up to the last that was given out."""
_SANDBOX = "bwrap"


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc shows it."""

    pid: int
    command: str
    parent: int
    session: int
    started: int
    """Clock ticks since the machine's start: with the pid it names a process for ever."""


def find_process(pid: int) -> Process | None:
    """The process with this id; None when there is none, or only its exit status is left."""
    try:
        stat = _read(f"/proc/{pid}/stat")
    except OSError:
        return None
    opening, closing = stat.index(b"("), stat.rindex(b")")
    fields = stat[closing + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    command = stat[opening + 1 : closing].decode(errors="replace")
    return Process(pid, command, int(fields[1]), int(fields[3]), int(fields[19]))


class ProcessTree:
    """The processes of one task."""

    def __init__(self, mark: str, folder: Path, record: Path) -> None:
        self._mark = f"{MARK}={mark}".encode()
        self._folder = str(folder)
        self._record = record
        self._sessions: dict[int, int] = {}
        self._first_pid = 0
        self._first_time = 0.0

    def started(self, pid: int) -> None:
        """Record a session that the task begins, here and on disk for after a restart."""
        process = find_process(pid)
        started = process.started if process is not None else -1
        if not self._sessions:
            self._first_pid, self._first_time = pid, time.monotonic()
        self._sessions[pid] = started
        descriptor = os.open(self._record, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, f"{_boot_id()} {pid} {started}\n".encode())
        finally:
            os.close(descriptor)

    def recall(self) -> None:
        """Know the sessions that were recorded before a restart of the executor."""
        with contextlib.suppress(FileNotFoundError):  # it died before it had recorded one
            for line in self._record.read_text().splitlines():
                boot, _, rest = line.partition(" ")
                pid, _, started = rest.partition(" ")
                if boot == _boot_id() and pid.isdigit() and started.isdigit():
                    self._sessions[int(pid)] = int(started)
        self._first_time = float("-inf")

    def members(self) -> list[Process]:
        """The living processes of the task."""
        found: dict[int, Process] = {}
        others: list[Process] = []
        for pid in self._candidates():
            process = find_process(pid)
            if process is None:
                continue
            if self._is_own(process):
                found[pid] = process
            else:
                others.append(process)
        grew = bool(found)
        while grew:
            grew = False
            for process in others:
                if process.parent in found and process.pid not in found:
                    found[process.pid] = process
                    grew = True
        return list(found.values())

    async def end(self, grace_seconds: float) -> None:
        """End all processes: TERM, and after the grace KILL. Raises InternalError for one that cannot be killed."""
        members = await asyncio.to_thread(self.members)
        if grace_seconds > 0 and members:
            # A sandbox that is told to end takes its inhabitants along at once: they are told themselves.
            await _end(members, signal.SIGTERM, grace_seconds, spare=_SANDBOX)
            members = await asyncio.to_thread(self.members)
        for _ in range(_KILL_ROUNDS):
            if not members:
                return
            await _end(members, signal.SIGKILL, _KILL_SECONDS)
            members = await asyncio.to_thread(self.members)
        if members:
            names = ", ".join(f"{process.pid} ({process.command})" for process in members[:5])
            raise InternalError(f"these processes of the task do not end: {names}", code="processNotEnded")

    def _candidates(self) -> Iterator[int]:
        first, last = 0, sys.maxsize
        if time.monotonic() - self._first_time < _YOUNG_SECONDS and (latest := _last_pid()) >= self._first_pid:
            first, last = self._first_pid, latest
        own = os.getpid()
        pids = (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208
        return (pid for pid in pids if first <= pid <= last and pid != own)

    def _is_own(self, process: Process) -> bool:
        leader = self._sessions.get(process.session)
        if leader is not None and self._is_session_of(process, leader):
            return True
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's: then not of the task
            if self._mark in _read(f"/proc/{process.pid}/environ").split(b"\0"):
                return True
            folder = os.readlink(f"/proc/{process.pid}/cwd")  # noqa: PTH115
            return folder == self._folder or folder.startswith(self._folder + "/")
        return False

    @staticmethod
    def _is_session_of(process: Process, leader_started: int) -> bool:
        """Whether the session is still the recorded one: its number may have been used again after a restart."""
        if process.pid == process.session:
            return leader_started in (process.started, -1)
        return process.started >= leader_started


async def _end(processes: Iterable[Process], what: signal.Signals, seconds: float, spare: str = "") -> None:
    """Send a signal to each, and wait until they are gone, bounded."""
    handles: list[int] = []
    try:
        for process in processes:
            handle = _handle(process)
            if handle is not None:
                handles.append(handle)
                if process.command != spare:
                    # What has ended needs none; what takes none is still there at the end, and that is an error.
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        signal.pidfd_send_signal(handle, what)
        with contextlib.suppress(TimeoutError):  # the caller looks again
            async with asyncio.timeout(seconds):
                for handle in handles:
                    await readable(handle)
    finally:
        for handle in handles:
            os.close(handle)


def _handle(process: Process) -> int | None:
    """A handle of exactly this process; None when it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return None
    now = find_process(process.pid)
    if now is None or now.started != process.started:
        os.close(handle)
        return None
    return handle


async def readable(descriptor: int) -> None:
    """Wait until a file descriptor is readable; that of a process is, when it has ended."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        if not done.done():
            done.set_result(None)

    loop.add_reader(descriptor, ready)
    try:
        await done
    finally:
        loop.remove_reader(descriptor)


def _last_pid() -> int:
    """The id that was given out last."""
    return int(_read("/proc/loadavg").rsplit(b" ", 1)[1])


def _read(path: str) -> bytes:
    """A file of /proc in four system calls: each task looks at many. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = b""
        while chunk := os.read(descriptor, _READ_BYTES):
            found += chunk
        return found
    finally:
        os.close(descriptor)


@cache
def _boot_id() -> str:
    return _read("/proc/sys/kernel/random/boot_id").decode().strip()

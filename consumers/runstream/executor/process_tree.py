"""Which processes belong to a task, and their end: none of them survives the task.

All of them are below the task's agent: it adopts orphans, and in a sandbox the first process of the process namespace
does, whose end makes the kernel end all others. What an executor left that was killed is found by the sessions that it
recorded, the mark in the environment, the folder. Linux only (/proc).
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
from runstream.executor.limits import ControlGroup

MARK = "RUNSTREAM_EXECUTOR_TASK"
"""The environment variable that every process of a task has: `<executor id>/<executor task id>`."""

_READ_BYTES = 64 << 10
_KILL_ROUNDS = 50
_KILL_SECONDS = 1.0
_YOUNG_SECONDS = 5.0
"""So long after its first process, younger processes are those with higher ids, up to the last that was given out."""


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
        self._agents: dict[int, int] = {}
        """The processes of ours among them, which are not told to end: what they start is."""
        self._init = 0
        self._group: ControlGroup | None = None
        self._first_pid = 0
        self._first_time = 0.0

    def started(self, agent: int, init: int = 0, group: ControlGroup | None = None) -> None:
        """Record the task's agent and the first process of its sandbox, here and on disk for after a restart."""
        self._init = init
        self._group = group
        if not self._sessions:
            self._first_pid, self._first_time = agent, time.monotonic()
        lines = ""
        for pid in filter(None, (agent, init)):
            process = find_process(pid)
            self._sessions[pid] = self._agents[pid] = process.started if process is not None else -1
            lines += f"{_boot_id()} {pid} {self._sessions[pid]}\n"
        descriptor = os.open(self._record, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, lines.encode())
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
        """The living processes of the task, without those of ours."""
        if self._agents and self._is_childless():
            return []
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
        return [process for process in found.values() if process.pid not in self._agents]

    async def agents_gone(self) -> None:
        """Wait until the agent has ended, bounded; it ends when its socket is closed."""
        agents = [process for pid in self._agents if (process := find_process(pid)) is not None]
        await _end(agents, signal.SIGCONT, _KILL_SECONDS)

    def _is_childless(self) -> bool:
        """Whether neither the agent nor the first process has a child; False where the kernel does not say."""
        try:
            children = b" ".join(_read(f"/proc/{pid}/task/{pid}/children") for pid in self._agents)
        except OSError:
            return False
        return not {int(pid) for pid in children.split()} - self._agents.keys()

    async def end(self, grace_seconds: float) -> None:
        """End all processes: TERM, and after the grace KILL. Raises InternalError for one that cannot be killed."""
        # A thread costs more than asking for the children; most tasks leave none.
        members = [] if self._agents and self._is_childless() else await asyncio.to_thread(self.members)
        if grace_seconds > 0 and members:
            await _end(members, signal.SIGTERM, grace_seconds)
        if self._init and (init := find_process(self._init)) is not None:
            await _end([init], signal.SIGKILL, _KILL_SECONDS)
            if find_process(self._init) is None:  # the kernel has ended all others before
                return
        if self._agents and self._is_childless():
            return
        members = await asyncio.to_thread(self.members)
        if members:
            await _end(members, signal.SIGKILL, _KILL_SECONDS)
            members = await asyncio.to_thread(self.members)
        if members and self._group is not None:
            self._group.kill()  # the agent too, which knows how the command ended
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


async def _end(processes: Iterable[Process], what: signal.Signals, seconds: float) -> None:
    """Send a signal to each, and wait until they are gone, bounded."""
    handles: list[int] = []
    try:
        for process in processes:
            handle = _handle(process)
            if handle is not None:
                handles.append(handle)
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

"""Finds and ends the processes of a task: none of them survives it.

All of them are descendants of the task's agent, which adopts orphans; in a sandbox the first process of the PID
namespace adopts them, and its end makes the kernel kill all others. Processes that a killed executor left behind are
found by their recorded sessions, the mark in their environment, or their folder. Linux only (/proc).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from runstream.errors import InternalError
from runstream.executor.limits import ControlGroup
from runstream.open_files import OpenFilesError, out_of_files

MARK = "RUNSTREAM_EXECUTOR_TASK"
"""The environment variable that every process of a task has: `<executor id>/<executor task id>`."""

_READ_BYTES = 64 << 10
_KILL_ROUNDS = 50
_KILL_SECONDS = 1.0
_YOUNG_SECONDS = 5.0
"""For this time after its first process, in seconds, younger processes have higher ids, up to the last one issued."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc shows it."""

    pid: int
    command: str
    parent: int
    session: int
    started: int
    """Start time in clock ticks since boot, which together with the pid identifies a process."""


def find_process(pid: int) -> Process | None:
    """Return the process with this id; None if there is none, or only a zombie."""
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
        self.mark = mark
        """The value of the variable that marks its processes."""
        self._marking = f"{MARK}={mark}".encode()
        self._folder = str(folder)
        self._record = record
        self._sessions: dict[int, int] = {}
        self._agent: Process | None = None
        """Runstream's own process among them, which is not signalled, unlike its children."""
        self._handle = -1
        """A handle of the agent if it is the first process of a sandbox; otherwise -1."""
        self._group: ControlGroup | None = None
        self._first_pid = 0
        self._first_time = float("-inf")

    def started(self, agent: Process, group: ControlGroup | None = None, *, first: bool, new: bool) -> None:
        """Record the task's agent in memory, and on disk for use after a restart.

        `first` says that it is the first process of a sandbox, `new` that it was made for this task.
        """
        self._agent = agent
        self._group = group
        if first:
            handle = _handle(agent)
            self._handle = -1 if handle is None else handle
        if new:
            self._first_pid, self._first_time = agent.pid, time.monotonic()
        self._sessions[agent.pid] = agent.started
        descriptor = os.open(self._record, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, f"{_boot_id()} {agent.pid} {agent.started}\n".encode())
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the agent."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def recall(self, living: Container[int]) -> None:
        """Load the recorded sessions, except those of living agents, which may serve other tasks by now."""
        with contextlib.suppress(FileNotFoundError):  # The executor died before it had recorded one.
            for line in self._record.read_text().splitlines():
                boot, _, rest = line.partition(" ")
                pid, _, started = rest.partition(" ")
                if boot == _boot_id() and pid.isdigit() and started.isdigit() and int(pid) not in living:
                    self._sessions[int(pid)] = int(started)

    def members(self) -> list[Process]:
        """Return the living processes of the task, without the agent."""
        if self._is_childless():
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
        return [process for process in found.values() if self._agent is None or process.pid != self._agent.pid]

    def _is_childless(self) -> bool:
        """Return whether the agent has no child, and so the task no process; False if the kernel cannot tell."""
        if self._agent is None:
            return False
        try:
            return not _read(f"/proc/{self._agent.pid}/task/{self._agent.pid}/children")
        except OSError:
            return False

    async def end(self, grace_seconds: float, *, alone: bool = False) -> bool:
        """End all processes; return False if the agent had no children.

        `alone` says that the agent has no command to start, and that no other one serves the task.

        Raises InternalError for a process that cannot be killed.
        """
        # A thread costs more than asking for the children; most tasks leave none.
        childless = self._is_childless()
        if not childless and grace_seconds > 0 and (members := await asyncio.to_thread(self.members)):
            await _end(members, signal.SIGTERM, grace_seconds)
        if self._handle >= 0:
            if childless and alone:  # The agent is the last process; its namespaces end after it, which takes longer.
                _kill(self._handle)
                return False
            if await _killed(self._handle):  # Killing the first process makes the kernel kill all others.
                return not childless
        elif childless:
            return False
        await self._end_members()
        return True

    async def _end_members(self) -> None:
        members = await asyncio.to_thread(self.members)
        if members:
            await _end(members, signal.SIGKILL, _KILL_SECONDS)
            members = await asyncio.to_thread(self.members)
        if members and self._group is not None:
            self._group.kill()  # including the agent, which knows how the command ended
            members = await asyncio.to_thread(self.members)
        for _ in range(_KILL_ROUNDS):
            if not members:
                return
            await _end(members, signal.SIGKILL, _KILL_SECONDS)
            members = await asyncio.to_thread(self.members)
        if members:
            names = ", ".join(f"{process.pid} ({process.command})" for process in members[:5])
            raise InternalError(f"cannot kill these processes of the task: {names}", code="processNotEnded")

    def _candidates(self) -> Iterator[int]:
        first, last = 0, sys.maxsize
        if time.monotonic() - self._first_time < _YOUNG_SECONDS:
            latest = int(_read("/proc/loadavg").rsplit(b" ", 1)[1])  # the last process id that the kernel has issued
            if latest >= self._first_pid:
                first, last = self._first_pid, latest
        own = os.getpid()
        pids = (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208
        return (pid for pid in pids if first <= pid <= last and pid != own)

    def _is_own(self, process: Process) -> bool:
        leader = self._sessions.get(process.session)
        if leader is not None and self._is_session_of(process, leader):
            return True
        with contextlib.suppress(OSError):  # It has exited, or belongs to another user and so not to the task.
            if self._marking in _read(f"/proc/{process.pid}/environ").split(b"\0"):
                return True
            folder = os.readlink(f"/proc/{process.pid}/cwd")  # noqa: PTH115
            return folder == self._folder or folder.startswith(self._folder + "/")
        return False

    @staticmethod
    def _is_session_of(process: Process, leader_started: int) -> bool:
        """Return whether the session is still the recorded one, because its number may have been reused after a
        restart."""
        if process.pid == process.session:
            return leader_started in (process.started, -1)
        return process.started >= leader_started


async def agent_gone(agent: Process) -> None:
    """Wait for the end of an agent whose socket is closed, for a bounded time."""
    await _end([agent], signal.SIGCONT, _KILL_SECONDS)


async def _end(processes: Iterable[Process], what: signal.Signals, seconds: float) -> None:
    """Send a signal to each process, and wait for their ends, for a bounded time."""
    handles: list[int] = []
    try:
        for process in processes:
            handle = _handle(process)
            if handle is not None:
                handles.append(handle)
                # A process that has ended needs no signal; one that ignores it is still there at the end, which is an
                # error.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(handle, what)
        with contextlib.suppress(TimeoutError):  # the caller looks again
            async with asyncio.timeout(seconds):
                for handle in handles:
                    await readable(handle)
    finally:
        for handle in handles:
            os.close(handle)


async def _killed(handle: int) -> bool:
    """Kill a process, and wait for its end, bounded; return whether it has ended."""
    _kill(handle)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_KILL_SECONDS):
            await readable(handle)
            return True
    return False


def _kill(handle: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        signal.pidfd_send_signal(handle, signal.SIGKILL)


def _handle(process: Process) -> int | None:
    """Return a handle of exactly this process; None if it has ended."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError as error:
        if out_of_files(error):
            raise OpenFilesError from error
        return None
    try:
        now = find_process(process.pid)
    except BaseException:
        os.close(handle)
        raise
    if now is None or now.started != process.started:
        os.close(handle)
        return None
    return handle


async def readable(descriptor: int) -> None:
    """Wait until a file descriptor is readable, which that of a process is once the process has ended."""
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


def _read(path: str) -> bytes:
    """Read a file of /proc in four system calls, because each task reads many.

    Raises OSError, which mostly means that the process has ended; and OpenFilesError, which does not.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if out_of_files(error):
            raise OpenFilesError from error
        raise
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

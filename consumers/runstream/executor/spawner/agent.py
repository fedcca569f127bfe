"""The agent of a task: starts its commands, one after the other, and says how they end.

    socket ->  "c" and a command, or "m" and the command in a file of memory; the write end of a pipe for the output
    socket <-  {"terminal": n} and the descriptor         a command with a terminal has begun
               {"failed": "folder", "errno": 2}           it could not be started
    socket <-  {"status": n}                              it ended; 128 + n when signal n ended it
    socket ->  "t"                                        the next task begins; nothing of the last one is left
    socket ->  "n"                                        the namespaces of the sandbox are wanted
    socket <-  {"namespaces": n} and their descriptors
    socket ->  "k" and a connection                       cut it at the end

When the executor's end of the socket is closed, or the executor stands still for longer than it may trust its lease
(`runstream.executor.spawner.trust`), everything that the task started is killed. The agent adopts orphans of the task:
as the first process of the sandbox, or as a subreaper. So it finds them all.

A terminal belongs to the agent's session, with the command in the foreground. So what a command leaves running is not
hung up when the command ends, and `tee` writes the last lines. It never has input: a read meets the end at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from typing import NoReturn

from runstream.executor.spawner import kernel
from runstream.executor.spawner.namespaces import NAMESPACES, Boundary, describe, join, new_namespaces
from runstream.executor.spawner.plan import (
    COMMAND,
    CONNECTION,
    LARGE,
    NAMESPACES_WANTED,
    NEXT_TASK,
    PACKET_BYTES,
    AgentCommand,
    Plan,
    content_of,
    read_command,
    read_plan,
)
from runstream.executor.spawner.trust import read_trust

ROWS, COLUMNS = 40, 120
_STOPS_OF_TERMINALS = (signal.SIGTTIN, signal.SIGTTOU)
_MAX_WAIT_SECONDS = 3600.0
"""Bound of one wait for a packet: `poll` takes no infinite time."""
_OUT_OF_MEMORY_SCORE = b"500"
"""The kernel kills the task's processes before the service's when memory runs out."""


def serve_task(
    channel: socket.socket, plan: Plan, boundary: Boundary | None, namespaces: Sequence[int], trust: int
) -> NoReturn:
    """Serve as the agent of a task until the socket is closed; `namespaces` are those of a sandbox to join."""
    try:
        _enter(channel, plan, boundary, namespaces)
    except BaseException as error:  # noqa: BLE001  (whatever it is: the task cannot run, and has to know why)
        _refuse(channel, error)
        os._exit(1)
    Agent(channel, trust, plan.cgroup, orphans=plan.sandbox is None and plan.join is None).serve()


def _refuse(channel: socket.socket, error: BaseException) -> None:
    with contextlib.suppress(OSError):  # the executor has given up on this agent
        channel.send(json.dumps({"error": describe(error)}).encode())


def _enter(channel: socket.socket, plan: Plan, boundary: Boundary | None, namespaces: Sequence[int]) -> None:
    """Enter the place that the plan names, and report it to the executor."""
    os.setsid()
    kernel.leave_keyring()
    pid, scoped, roots = os.getpid(), False, []
    if boundary is not None:
        pid = boundary.make()
        roots.append(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    elif plan.join is not None:
        join(namespaces, plan.join.seen, plan.join.inside_uid)
    else:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    if boundary is not None or plan.join is not None:
        scoped = kernel.scope_abstract_sockets()
    _limit(plan)
    socket.send_fds(channel, [b'{"pid": %d, "scoped": %s}' % (pid, b"true" if scoped else b"false")], roots)
    for root in roots:
        os.close(root)


def _limit(plan: Plan) -> None:
    for name, value in plan.limits:
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


class Agent:
    """The server of one socket."""

    def __init__(self, channel: socket.socket, trust: int, group: str, *, orphans: bool) -> None:
        """`group` is the folder of the task's control group, or empty; `orphans` means that this process adopts the
        task's orphans."""
        self._channel = channel
        self._trust = trust
        self._until = read_trust(trust)
        """The time up to which the executor need not be heard, as read last."""
        self._group = group
        self._connections: list[socket.socket] = []
        self._null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._orphans = orphans
        self._command = 0
        self._terminal = -1
        self._woken, theirs = os.pipe()
        for descriptor in (self._woken, theirs):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)

    def serve(self) -> NoReturn:
        """Serve until the executor closes its side, or stands still for too long."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        try:
            while True:
                for descriptor, _ in poll.poll(self._milliseconds()):
                    if descriptor == self._woken:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self._woken, 4096)
                        self._reap()
                    elif not self._receive():
                        self._end()
        finally:
            os._exit(1)

    def _milliseconds(self) -> float:
        """Return for how long to wait. End the task if the executor stands still."""
        left = self._until - time.monotonic()
        if left <= 0:
            self._until = read_trust(self._trust)
            left = self._until - time.monotonic()
            if left <= 0:
                self._end()
        return min(left, _MAX_WAIT_SECONDS) * 1000

    def _receive(self) -> bool:
        """Handle a packet; return False if the executor has closed its side."""
        packet, descriptors, flags, _ = socket.recv_fds(self._channel, PACKET_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        kind = packet[:1]
        if kind == NEXT_TASK:
            kernel.leave_keyring()
        elif kind == NAMESPACES_WANTED:
            self._send_namespaces()
        elif kind == CONNECTION:
            self._connections += [socket.socket(fileno=each) for each in descriptors]
        elif packet:
            try:
                if flags & socket.MSG_CTRUNC:  # this process cannot open the descriptors that were sent
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                command = read_command(packet[1:] if kind == COMMAND else content_of(descriptors[-1]))
                for path, text in command.scripts:
                    write(path, text.encode(), os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
                self._start(command, descriptors[0] if descriptors else -1)
            except OSError as error:  # the disk is full, no terminal, no descriptor is left
                self._say({"failed": "start", "errno": error.errno or 0})
            for descriptor in descriptors:
                os.close(descriptor)
        return bool(packet)

    def _send_namespaces(self) -> None:
        descriptors = []
        with contextlib.suppress(OSError):  # no descriptor is left: the executor notices the missing ones
            for name, _ in NAMESPACES:
                descriptors.append(os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC))
        with contextlib.suppress(OSError):  # the executor has closed its side
            socket.send_fds(self._channel, [b'{"namespaces": %d}' % len(descriptors)], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _start(self, command: AgentCommand, output: int) -> None:
        """Start a command with its output to a pipe, or to a new terminal."""
        if not command.tty:
            try:
                self._command = self._execute(command, output)
            except Exception as error:  # noqa: BLE001  (the executor is told)
                self._say(_failure(command, error))
            return
        ours, theirs = _open_terminal()
        try:
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
            try:
                self._command = self._execute(command, theirs)
            except Exception as error:  # noqa: BLE001  (the executor is told)
                fcntl.ioctl(theirs, termios.TIOCNOTTY)
                os.close(theirs)
                self._say(_failure(command, error))
            else:
                self._terminal = theirs
                # Fails if a shell with job control was faster and has put a job of its own in the foreground.
                with contextlib.suppress(OSError):
                    os.tcsetpgrp(theirs, self._command)
                socket.send_fds(self._channel, [b'{"terminal": %d}' % self._command], [ours])
        finally:
            os.close(ours)

    def _execute(self, command: AgentCommand, output: int) -> int:
        """Start a command by vfork, which does not copy this process, and return its id."""
        process = subprocess.Popen(
            command.arguments,
            stdin=output if command.tty else self._null,
            stdout=output,
            stderr=output,
            cwd=command.folder,
            env=command.environment,
            start_new_session=not command.tty,
            process_group=0 if command.tty else None,
        )
        process.returncode = 0  # `_reap` waits for it
        return process.pid

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:  # no child is left
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                if pid == self._command and os.WSTOPSIG(status) in _STOPS_OF_TERMINALS:
                    self._continue(pid)
            elif pid == self._command:
                self._command = 0
                if self._terminal >= 0:
                    self._take_terminal_back()
                code = os.waitstatus_to_exitcode(status)
                self._send(b'{"status": %d}' % (code if code >= 0 else 128 - code))

    def _continue(self, pid: int) -> None:
        """Put a command in the foreground that was stopped because it used the terminal from the background.

        The command was faster than `_execute`, or its own job held the foreground. In a user's shell it would wait for
        `fg`; here it would stay stopped forever.
        """
        self._put_in_foreground(pid)
        with contextlib.suppress(ProcessLookupError):  # it was killed meanwhile
            os.killpg(pid, signal.SIGCONT)

    def _put_in_foreground(self, group: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        with contextlib.suppress(OSError):  # already hung up
            os.tcsetpgrp(self._terminal, group)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTTOU})

    def _take_terminal_back(self) -> None:
        """Detach from the terminal without hanging up processes that the command left in the foreground."""
        self._put_in_foreground(os.getpgrp())
        with contextlib.suppress(OSError):  # already hung up
            fcntl.ioctl(self._terminal, termios.TIOCNOTTY)
        os.close(self._terminal)
        self._terminal = -1

    def _say(self, what: dict[str, object]) -> None:
        self._send(json.dumps(what).encode())

    def _send(self, packet: bytes) -> None:
        with contextlib.suppress(OSError):  # the executor has closed its side, which reading detects
            self._channel.send(packet)

    def _end(self) -> NoReturn:
        """Kill all remaining processes of the task, and exit."""
        for connection in self._connections:
            with contextlib.suppress(OSError):  # the other side has closed it
                connection.shutdown(socket.SHUT_RDWR)  # for the executor's descriptor of it, too
        with contextlib.suppress(ChildProcessError):  # no child is left
            while self._orphans:
                os.waitpid(-1, os.WNOHANG)
                if self._group:
                    with contextlib.suppress(OSError):  # before Linux 5.14, or the group was removed
                        write(f"{self._group}/cgroup.kill", b"1")  # including this process
                for pid in _children():
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
                os.waitpid(-1, 0)
        os._exit(0)


def _children() -> list[int]:
    """Return the children of this process: its commands, and the orphans that it adopted."""
    own = os.getpid()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:  # the process has ended
                continue
            if int(fields[1]) == own:
                found.append(int(name))
    return found


def _open_terminal() -> tuple[int, int]:
    """Open a terminal that does not translate line ends and answers each read with the end of input."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    modes = termios.tcgetattr(theirs)
    modes[1] &= ~termios.ONLCR
    modes[3] &= ~(termios.ICANON | termios.ECHO)
    modes[6][termios.VMIN] = modes[6][termios.VTIME] = 0
    termios.tcsetattr(theirs, termios.TCSANOW, modes)
    return ours, theirs


def _failure(command: AgentCommand, error: BaseException) -> dict[str, object]:
    """Return the message to the executor with the reason why a command could not be started."""
    number = (error.errno or 0) if isinstance(error, OSError) else 0
    of_folder = isinstance(error, OSError) and error.filename == command.folder
    return {"failed": "folder" if of_folder else "program", "errno": number, "error": str(error)[:200]}


def _nothing(_number: int, _frame: object) -> None:
    """Do nothing: a handler must exist so that the signal writes to the wake-up descriptor."""


def write(path: str, text: bytes, flags: int = 0) -> None:
    """Write a whole file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    try:
        while text:
            text = text[os.write(descriptor, text) :]
    finally:
        os.close(descriptor)


def main(descriptor: int, trust: int) -> None:
    """Serve the inherited socket with this descriptor; `trust` is the one of the file in memory."""
    _prepare()
    os.set_inheritable(trust, False)
    uid, gid = os.geteuid(), os.getegid()
    gc.disable()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=descriptor) as channel:
        while True:
            packet, descriptors, flags, _ = socket.recv_fds(
                channel, PACKET_BYTES, 2 + len(NAMESPACES), socket.MSG_CMSG_CLOEXEC
            )
            if not packet:
                return
            if flags & socket.MSG_CTRUNC or not descriptors:  # the agent's socket closes: the executor notices
                for each in descriptors:
                    os.close(each)
                continue
            plan = read_plan(content_of(descriptors[-1]) if packet[:1] == LARGE else packet[1:])
            boundary = Boundary(plan.sandbox, uid, gid) if plan.sandbox is not None else None
            with socket.socket(fileno=descriptors[0]) as agent:
                try:
                    pid = _fork(plan)
                except OSError as error:
                    _refuse(agent, error)
                else:
                    if pid == 0:
                        channel.close()
                        serve_task(agent, plan, boundary, descriptors[1:], trust)
            for each in descriptors[1:]:
                os.close(each)


def _prepare() -> None:
    """Set up the state that all agents inherit."""
    _reset_signals()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, _nothing)  # a handler, because commands would inherit an ignored signal
    os.umask(0o022)
    with contextlib.suppress(OSError):  # best effort
        write("/proc/self/oom_score_adj", _OUT_OF_MEMORY_SCORE)


def _reset_signals() -> None:
    """Reset signals to their defaults, because commands inherit what the service itself has inherited."""
    for number in set(range(1, signal.NSIG)) - {signal.SIGPIPE, signal.SIGXFSZ}:  # a command's are reset at its start
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):  # KILL and STOP, and those of the C library, which a runtime may have ignored
            kernel.default_signal(number)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _fork(plan: Plan) -> int:
    """Fork into the namespaces of the task's sandbox and into its control groups, if it has them."""
    pid = _fork_into_group(plan)
    if pid == 0 and plan.pids:
        with contextlib.suppress(OSError):  # the group was removed: the processes are not bounded
            write(f"{plan.pids}/cgroup.procs", b"0")
    return pid


def _fork_into_group(plan: Plan) -> int:
    namespaces = new_namespaces(plan.sandbox) if plan.sandbox is not None else 0
    if not plan.cgroup:
        return kernel.fork(namespaces)
    try:
        return kernel.fork(namespaces, plan.cgroup)
    except OSError:  # a kernel before 5.7, or a filter
        if (pid := kernel.fork(namespaces)) == 0:
            with contextlib.suppress(OSError):  # the group was removed: its limits are not enforced
                write(f"{plan.cgroup}/cgroup.procs", b"0")
        return pid

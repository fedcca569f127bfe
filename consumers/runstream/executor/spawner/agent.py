"""The agent of one task: starts its commands, one after the other, and says how they end.

    socket ->  a command (a file of memory)               one packet
    socket <-  {"pid": n} and the command's output        the read end of a pipe, or a terminal's
               {"failed": "folder", "errno": 2}           it could not be started
    socket <-  {"status": n}                              it ended; 128 + n when signal n ended it

When the executor's end of the socket is closed, everything that the task started is killed. Orphans of the task are
adopted: by the first process of its namespace, or without a sandbox by the agent, which therefore finds them all.

A terminal belongs to the agent's session, with the command in the foreground. So what a command leaves running is not
hung up when the command ends, and `tee` writes the last lines. It never has input: a read meets the end at once.
"""

from __future__ import annotations

import contextlib
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
from typing import NoReturn

from runstream.executor.spawner import kernel
from runstream.executor.spawner.namespaces import Boundary, describe, join
from runstream.executor.spawner.plan import Command, Plan, read_command, read_plan

ROWS, COLUMNS = 40, 120
_PACKET_BYTES = 1 << 16
_STOPS_OF_TERMINALS = (signal.SIGTTIN, signal.SIGTTOU)
_OUT_OF_MEMORY_SCORE = b"500"
"""The task's processes go before the service does."""


def serve_task(channel: socket.socket, plan: Plan, init: int) -> NoReturn:
    """Be the agent of a task until the socket is closed; `init` is the first process of the sandbox to join, or -1."""
    try:
        with contextlib.suppress(OSError):  # it is only an advice
            write("/proc/self/oom_score_adj", _OUT_OF_MEMORY_SCORE)
        _enter(channel, plan, init)
    except BaseException as error:  # noqa: BLE001  (whatever it is: the task cannot run, and has to know why)
        with contextlib.suppress(OSError):
            channel.send(json.dumps({"error": describe(error)}).encode())
        os._exit(1)
    Agent(channel, orphans=plan.sandbox is None and plan.join is None).serve()


def _enter(channel: socket.socket, plan: Plan, init: int) -> None:
    """Be where the plan says, and tell that."""
    os.setsid()
    os.umask(0o022)
    signal.signal(signal.SIGHUP, _nothing)  # not ignored: commands would inherit that
    kernel.leave_keyring()
    ready: dict[str, object] = {"pid": os.getpid()}
    roots = []
    if plan.sandbox is not None:
        boundary = Boundary(plan.sandbox)
        boundary.enter()
        boundary.finish()
        ready["init"] = boundary.init
        roots.append(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    elif plan.join is not None:
        join(init, plan.join.seen, plan.join.inside_uid, network=plan.join.network)
        os.close(init)
    else:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    if plan.sandbox is not None or plan.join is not None:
        ready["scoped"] = kernel.scope_abstract_sockets()
    _limit(plan)
    socket.send_fds(channel, [json.dumps(ready).encode()], roots)
    for root in roots:
        os.close(root)


def _limit(plan: Plan) -> None:
    for name, value in plan.limits:
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


class Agent:
    """Serves one socket."""

    def __init__(self, channel: socket.socket, *, orphans: bool) -> None:
        """`orphans` says that this process adopts those of the task."""
        self._channel = channel
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
        """Serve until the other side is gone."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        try:
            while True:
                for descriptor, _ in poll.poll():
                    if descriptor == self._woken:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self._woken, 4096)
                        self._reap()
                    elif not self._receive():
                        self._end()
        finally:
            os._exit(1)

    def _receive(self) -> bool:
        """Take a command; return False when the other side is gone."""
        _, descriptors, _, _ = socket.recv_fds(self._channel, _PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        if not descriptors:
            return False
        command = read_command(descriptors[0])
        try:
            for path, text in command.scripts:
                write(path, text.encode(), os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
            self._start(command)
        except OSError as error:  # the disk is full, no terminal, no pipe, no descriptor is left
            self._say({"failed": "start", "errno": error.errno or 0})
        return True

    def _start(self, command: Command) -> None:
        if command.tty:
            ours, theirs = _open_terminal()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        else:
            ours, theirs = os.pipe()
        try:
            pid = self._execute(command, theirs)
        except BaseException as error:  # noqa: BLE001  (the executor is told)
            if command.tty:
                fcntl.ioctl(theirs, termios.TIOCNOTTY)
            os.close(theirs)
            self._say(_failure(command, error))
        else:
            if command.tty:
                self._terminal = theirs
            else:
                os.close(theirs)
            self._command = pid
            socket.send_fds(self._channel, [b'{"pid": %d}' % pid], [ours])
        finally:
            os.close(ours)

    def _execute(self, command: Command, output: int) -> int:
        """Start a command by vfork: this process is not copied. Return its id."""
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
        process.returncode = 0  # it is waited for here
        if command.tty:
            # Refused when a shell with job control was quicker, and has put a job of its own in the foreground.
            with contextlib.suppress(OSError):
                os.tcsetpgrp(output, process.pid)
        return process.pid

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:  # there is none left
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
                self._say({"status": code if code >= 0 else 128 - code})

    def _continue(self, pid: int) -> None:
        """Put a command in the foreground that was stopped because it used the terminal from the background.

        It was quicker than `_execute`, or its own job held the foreground. A user's shell would show a prompt and wait
        for `fg`; here it would stay stopped forever.
        """
        self._put_in_foreground(pid)
        with contextlib.suppress(ProcessLookupError):  # it was killed meanwhile
            os.killpg(pid, signal.SIGCONT)

    def _put_in_foreground(self, group: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        with contextlib.suppress(OSError):  # hung up already
            os.tcsetpgrp(self._terminal, group)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTTOU})

    def _take_terminal_back(self) -> None:
        """Part from the terminal, without a hangup for what the command left in the foreground."""
        self._put_in_foreground(os.getpgrp())
        with contextlib.suppress(OSError):  # hung up already
            fcntl.ioctl(self._terminal, termios.TIOCNOTTY)
        os.close(self._terminal)
        self._terminal = -1

    def _say(self, what: dict[str, object]) -> None:
        with contextlib.suppress(OSError):  # the other side is gone: that is found out by reading
            self._channel.send(json.dumps(what).encode())

    def _end(self) -> NoReturn:
        """Kill all that is left, and go."""
        with contextlib.suppress(ChildProcessError):  # none is left
            while self._orphans:
                os.waitpid(-1, os.WNOHANG)
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
            except OSError:  # it has ended
                continue
            if int(fields[1]) == own:
                found.append(int(name))
    return found


def _open_terminal() -> tuple[int, int]:
    """Return the two ends of a terminal that leaves line ends alone and answers each read with the end of input."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    modes = termios.tcgetattr(theirs)
    modes[1] &= ~termios.ONLCR
    modes[3] &= ~(termios.ICANON | termios.ECHO)
    modes[6][termios.VMIN] = modes[6][termios.VTIME] = 0
    termios.tcsetattr(theirs, termios.TCSANOW, modes)
    return ours, theirs


def _failure(command: Command, error: BaseException) -> dict[str, object]:
    """Return why a command could not be started, as the executor is told it."""
    number = (error.errno or 0) if isinstance(error, OSError) else 0
    of_folder = isinstance(error, OSError) and error.filename == command.folder
    return {"failed": "folder" if of_folder else "program", "errno": number, "error": str(error)[:200]}


def _nothing(_number: int, _frame: object) -> None:
    """Be called, so that the wake-up is written."""


def write(path: str, text: bytes, flags: int = 0) -> None:
    """Write a whole text to a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    try:
        while text:
            text = text[os.write(descriptor, text) :]
    finally:
        os.close(descriptor)


MAX_DESCRIPTORS = 3


def main(descriptor: int) -> None:
    """Serve the socket that was inherited as this descriptor."""
    _reset_signals()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.disable()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=descriptor) as channel:
        while True:
            _, descriptors, _, _ = socket.recv_fds(channel, 1, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            if len(descriptors) < MAX_DESCRIPTORS - 1:
                return
            plan = read_plan(descriptors[0])
            if _fork(plan) == 0:
                channel.close()
                agent = socket.socket(fileno=descriptors[1])
                serve_task(agent, plan, descriptors[2] if descriptors[2:] else -1)
            for each in descriptors[1:]:
                os.close(each)


def _reset_signals() -> None:
    """Give signals their defaults, whatever the service inherited: commands inherit these."""
    for number in set(range(1, signal.NSIG)) - {signal.SIGPIPE, signal.SIGXFSZ}:  # a command's are reset at its start
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):  # KILL and STOP, and those of the C library, which a runtime may have ignored
            kernel.default_signal(number)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _fork(plan: Plan) -> int:
    """Fork, into the control group of the task where it has one."""
    if not plan.cgroup:
        return os.fork()
    try:
        return kernel.fork_into(plan.cgroup)
    except OSError:  # a kernel before 5.7, or a filter
        if (pid := os.fork()) == 0:
            with contextlib.suppress(OSError):  # the group was removed: limits are not enforced then
                write(f"{plan.cgroup}/cgroup.procs", b"0")
        return pid

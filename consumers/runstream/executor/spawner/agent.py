"""The agent of one task: starts its commands, one after the other, and says how they end.

    socket ->  a command (a sealed file of memory)        one packet
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
import json
import os
import resource
import select
import signal
import socket
import struct
import termios
from typing import NoReturn

from runstream.executor.spawner import kernel
from runstream.executor.spawner.namespaces import Boundary, describe, join
from runstream.executor.spawner.plan import Command, Plan, command_from_json

ROWS, COLUMNS = 40, 120
_PACKET_BYTES = 1 << 16
_OUT_OF_MEMORY_SCORE = "500"
"""The task's processes go before the service does."""


def serve_task(channel: socket.socket, plan: Plan, init: int) -> NoReturn:
    """Be the agent of a task until the socket is closed; `init` is the first process of the sandbox to join, or -1."""
    group = -1
    try:
        if plan.cgroup:
            group = os.open(plan.cgroup, os.O_WRONLY | os.O_CLOEXEC)
        _enter(channel, plan, init)
    except BaseException as error:  # noqa: BLE001  (whatever it is: the task cannot run, and has to know why)
        with contextlib.suppress(OSError):
            channel.send(json.dumps({"error": describe(error)}).encode())
        os._exit(1)
    Agent(channel, group, orphans=plan.sandbox is None and plan.join is None).serve()


def _enter(channel: socket.socket, plan: Plan, init: int) -> None:
    """Be where the plan says, and tell that."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
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

    def __init__(self, channel: socket.socket, group: int, *, orphans: bool) -> None:
        """Have commands join a control group, unless it is -1; `orphans` says that this process adopts those."""
        self._channel = channel
        self._group = group
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
        with os.fdopen(descriptors[0], "rb") as file:
            command = command_from_json(file.read())
        try:
            self._start(command)
        except OSError as error:
            self._say({"failed": "start", "errno": error.errno or 0})
        return True

    def _start(self, command: Command) -> None:
        if command.tty:
            ours, theirs = _open_terminal()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        else:
            ours, theirs = os.pipe()
        failed, fail = os.pipe()
        pid = os.fork()
        if pid == 0:
            _execute(command, theirs, fail, self._group)
        os.close(fail)
        failure = os.read(failed, 4096)
        os.close(failed)
        if command.tty and not failure:
            self._terminal = theirs
        else:
            if command.tty:
                fcntl.ioctl(theirs, termios.TIOCNOTTY)
            os.close(theirs)
        if failure:
            os.waitpid(pid, 0)
            self._channel.send(failure)
        else:
            self._command = pid
            socket.send_fds(self._channel, [json.dumps({"pid": pid}).encode()], [ours])
        os.close(ours)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:  # there is none left
                return
            if pid == 0:
                return
            if pid == self._command:
                self._command = 0
                if self._terminal >= 0:
                    self._take_terminal_back()
                code = os.waitstatus_to_exitcode(status)
                self._say({"status": code if code >= 0 else 128 - code})

    def _take_terminal_back(self) -> None:
        """Part from the terminal, without a hangup for what the command left in the foreground."""
        with contextlib.suppress(OSError):  # hung up already
            os.tcsetpgrp(self._terminal, os.getpgrp())
            fcntl.ioctl(self._terminal, termios.TIOCNOTTY)
        os.close(self._terminal)
        self._terminal = -1

    def _say(self, what: dict[str, object]) -> None:
        with contextlib.suppress(OSError):  # the other side is gone: that is found out by reading
            self._channel.send(json.dumps(what).encode())

    def _end(self) -> NoReturn:
        """Kill all that is left, and go."""
        while self._orphans and (children := _children()):
            for pid in children:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
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


def _execute(command: Command, output: int, fail: int, group: int) -> NoReturn:
    """Become the command."""
    stage = "start"
    try:
        if command.tty:
            os.setpgid(0, 0)
            os.tcsetpgrp(output, os.getpid())
            source = output
        else:
            os.setsid()
            source = os.open("/dev/null", os.O_RDONLY)
        for descriptor, wanted in ((source, 0), (output, 1), (output, 2)):
            os.dup2(descriptor, wanted)
        if group >= 0:
            os.write(group, b"0")
        kernel.close_others(fail)
        _reset_signals()
        os.umask(0o022)
        with contextlib.suppress(OSError):  # it is only an advice
            _write("/proc/self/oom_score_adj", _OUT_OF_MEMORY_SCORE)
        stage = "folder"
        os.chdir(command.folder)
        stage = "program"
        os.execvpe(command.arguments[0], command.arguments, command.environment)  # noqa: S606
    except BaseException as error:  # noqa: BLE001  (this is a fork: nothing may get out of here)
        number = error.errno if isinstance(error, OSError) else 0
        os.write(fail, json.dumps({"failed": stage, "errno": number, "error": str(error)[:200]}).encode())
    os._exit(127)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in range(1, signal.NSIG):
        with contextlib.suppress(OSError, ValueError):  # KILL and STOP, and those of the C library
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _nothing(_number: int, _frame: object) -> None:
    """Be called, so that the wake-up is written."""


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)

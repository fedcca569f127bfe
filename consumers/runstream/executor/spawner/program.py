"""The spawner: forks an agent for each task. `main` is its whole life.

    socket ->  a plan, the agent's end of its socket, perhaps the first process of a sandbox: descriptors

A task that needs a sandbox and no control group gets the spare agent, which was forked before, so that the task does
not wait for the fork. It has nothing of any task: it enters the namespaces once it has its plan.

It ends when the executor's end of its socket is closed, and so do the sandboxes.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
from typing import NoReturn

from runstream.executor.spawner import kernel
from runstream.executor.spawner.agent import prepare, serve_task, write
from runstream.executor.spawner.plan import Plan, read_plan

MAX_DESCRIPTORS = 3
SPARE = b"s"
"""The request of a sandbox without a control group; any other byte asks for an agent that is forked for its plan."""


def main(descriptor: int) -> None:
    """Serve the socket that was inherited as this descriptor."""
    _reset_signals()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.disable()
    gc.collect()
    gc.freeze()
    spare: socket.socket | None = None
    with socket.socket(fileno=descriptor) as channel:
        while True:
            asked, descriptors, _, _ = socket.recv_fds(channel, 1, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            if len(descriptors) < MAX_DESCRIPTORS - 1:
                return
            if not (asked == SPARE and spare is not None and _hand_over(spare, descriptors)):
                plan = read_plan(os.dup(descriptors[0]))
                if _fork(plan) == 0:
                    _leave(channel, spare)
                    os.close(descriptors[0])
                    prepare()
                    _serve(plan, descriptors)
            for each in descriptors:
                os.close(each)
            if asked == SPARE:
                if spare is not None:
                    spare.close()
                spare = _make_spare(channel)


def _hand_over(spare: socket.socket, descriptors: list[int]) -> bool:
    """Give a task to the spare agent; return False when it is gone."""
    try:
        socket.send_fds(spare, [SPARE], descriptors)
    except OSError:
        return False
    return True


def _make_spare(channel: socket.socket) -> socket.socket | None:
    """Fork an agent that waits for its task; None where that fails. It ends with the spawner."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            pid = os.fork()
        except OSError:  # no process is left: the next task says so
            ours.close()
            return None
        if pid == 0:
            _leave(channel, ours)
            prepare()
            _, descriptors, _, _ = socket.recv_fds(theirs, 1, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            theirs.close()
            if not descriptors:
                os._exit(0)
            _serve(read_plan(descriptors[0]), descriptors)
    return ours


def _leave(*spawners: socket.socket | None) -> None:
    """Close what belongs to the spawner, in its fork."""
    for each in spawners:
        if each is not None:
            each.close()


def _serve(plan: Plan, descriptors: list[int]) -> NoReturn:
    serve_task(socket.socket(fileno=descriptors[1]), plan, descriptors[2] if descriptors[2:] else -1)


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

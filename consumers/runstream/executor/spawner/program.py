"""The spawner: forks an agent for each task. `main` is its whole life.

    socket ->  a plan, the agent's end of its socket, perhaps the first process of a sandbox: descriptors

It ends when the executor's end of its socket is closed, and so do the sandboxes.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket

from runstream.executor.spawner import kernel
from runstream.executor.spawner.agent import serve_task, write
from runstream.executor.spawner.plan import Plan, read_plan

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

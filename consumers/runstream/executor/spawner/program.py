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

from runstream.executor.spawner.agent import serve_task
from runstream.executor.spawner.plan import read_plan

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
            if os.fork() == 0:
                _become_agent(channel, descriptors)
            for each in descriptors:
                os.close(each)


def _reset_signals() -> None:
    """Give signals their defaults, whatever the service inherited: commands inherit these."""
    for number in set(range(1, signal.NSIG)) - {signal.SIGPIPE, signal.SIGXFSZ}:  # a command's are reset at its start
        with contextlib.suppress(OSError, ValueError):  # KILL and STOP, and those of the C library
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _become_agent(channel: socket.socket, descriptors: list[int]) -> None:
    channel.close()
    plan = read_plan(descriptors[0])
    serve_task(socket.socket(fileno=descriptors[1]), plan, descriptors[2] if descriptors[2:] else -1)

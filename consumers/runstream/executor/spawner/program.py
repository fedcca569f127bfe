"""The spawner: forks an agent for each task. `main` is its whole life.

    socket ->  a plan, the agent's end of its socket, perhaps the first process of a sandbox: descriptors

It ends when the executor's end of its socket is closed, and so do the sandboxes.
"""

from __future__ import annotations

import gc
import os
import signal
import socket

from runstream.executor.spawner.agent import serve_task
from runstream.executor.spawner.plan import plan_from_json

MAX_DESCRIPTORS = 3


def main(descriptor: int) -> None:
    """Serve the socket that was inherited as this descriptor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the executor's to answer
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
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


def _become_agent(channel: socket.socket, descriptors: list[int]) -> None:
    channel.close()
    with os.fdopen(descriptors[0], "rb") as file:
        plan = plan_from_json(file.read())
    serve_task(socket.socket(fileno=descriptors[1]), plan, descriptors[2] if descriptors[2:] else -1)

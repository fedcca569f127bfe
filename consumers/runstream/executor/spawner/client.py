"""The executor's side of the spawner: starts it, opens an agent for each task, and starts commands there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from runstream.errors import InternalError
from runstream.executor.process_tree import readable
from runstream.executor.spawner.plan import Command, Plan, packed

_ROOTS = Path(__file__).parents[3]
"""What the spawner needs on its path to import its own package."""
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from runstream.executor.spawner.agent import main; main(int(sys.argv[2]))"
)
_PACKET_BYTES = 1 << 16
_OPEN_SECONDS = 30.0


class StartError(Exception):
    """A command could not be started: its folder or its program is not there, or cannot be used."""

    def __init__(self, stage: str, number: int, error: str) -> None:
        super().__init__(os.strerror(number) if number else error)
        self.stage = stage
        """`folder`, `program` or `start`."""
        self.number = number
        """The error number; 0 for none."""


class Agent:
    """The process that starts the commands of one task."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self.pid = 0
        self.init = 0
        """The first process of the sandbox; 0 without one."""
        self.scoped = False
        """Whether the machine's abstract sockets are out of reach."""
        self.root = -1
        """A descriptor of the sandbox's root; -1 without a sandbox. It belongs to the caller."""

    async def opened(self) -> None:
        """Wait until it is ready. Raises InternalError with the reason when it cannot be."""
        said, descriptor = await _receive(self._channel)
        if "error" in said:
            raise InternalError(f"the sandbox cannot be made: {said['error']}", code="sandboxUnavailable")
        self.pid, self.init, self.scoped = said["pid"], said.get("init", 0), said.get("scoped", False)
        self.root = descriptor

    async def start(self, command: Command) -> tuple[int, int]:
        """Start a command; return its process id and the end from which its output is read.

        The id is that of the machine only without a sandbox. Raises StartError.
        """
        descriptor = _file(packed(command))
        try:
            socket.send_fds(self._channel, [b"+"], [descriptor])
        except OSError as error:
            raise _gone() from error
        finally:
            os.close(descriptor)
        said, output = await _receive(self._channel)
        if "failed" in said:
            raise StartError(said["failed"], said["errno"], said.get("error", ""))
        return said["pid"], output

    async def ended(self) -> int:
        """Wait until the started command has ended; its exit status."""
        said, _ = await _receive(self._channel)
        return int(said["status"])

    def close(self) -> None:
        """Let the agent go, and with it everything that it started; a second close does nothing."""
        self._channel.close()


class Spawner:
    """The spawner's process; started again when it has ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._starting = asyncio.Lock()

    async def open(self, plan: Plan, init: int = -1) -> Agent:
        """Make an agent, `init` being the first process of the sandbox that it joins (a pidfd).

        Raises InternalError that says why there cannot be one.
        """
        spawner = await self._running()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        agent = Agent(ours)
        descriptor = _file(packed(plan))
        try:
            socket.send_fds(spawner, [b"+"], [descriptor, theirs.fileno(), *([init] if init >= 0 else [])])
            theirs.close()
            async with asyncio.timeout(_OPEN_SECONDS):
                await agent.opened()
        except BaseException as error:
            agent.close()
            if isinstance(error, OSError):
                raise _gone() from error
            raise
        finally:
            os.close(descriptor)
            theirs.close()
        return agent

    async def _running(self) -> socket.socket:
        """Return the socket of the spawner, which is started where it does not run."""
        async with self._starting:
            if self._channel is None or self._process is None or self._process.poll() is not None:
                self._channel = await asyncio.to_thread(self._start)
            return self._channel

    def close(self) -> None:
        """End the spawner; the agents end with their own sockets."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _start(self) -> socket.socket:
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, str(_ROOTS), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                cwd="/",
                start_new_session=True,
            )
        return ours


async def _receive(channel: socket.socket) -> tuple[dict[str, Any], int]:
    """Wait for a packet; return it, with the descriptor that came along, or -1."""
    channel.setblocking(False)
    while True:
        with contextlib.suppress(BlockingIOError):
            try:
                content, descriptors, _, _ = socket.recv_fds(channel, _PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            except ConnectionError:
                content, descriptors = b"", []
            if not content:
                raise _gone()
            return json.loads(content), descriptors[0] if descriptors else -1
        await readable(channel.fileno())


def _gone() -> InternalError:
    return InternalError("the processes of the task were ended from outside", code="taskProcessesGone")


def _file(content: bytes) -> int:
    """A file of memory with this content, to be read from its beginning."""
    descriptor = os.memfd_create("runstream", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor

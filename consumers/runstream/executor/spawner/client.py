"""The executor's side of the spawner: starts it, opens an agent for each task, and starts commands there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runstream.errors import InternalError
from runstream.executor.spawner.namespaces import NAMESPACES
from runstream.executor.spawner.plan import (
    COMMAND,
    CONNECTION,
    LARGE,
    NAMESPACES_WANTED,
    NEXT_TASK,
    PACKET_BYTES,
    AgentCommand,
    Plan,
    packed,
)
from runstream.executor.spawner.trust import new_trust, write_trust
from runstream.executor.task_root import TaskUser
from runstream.open_files import OpenFilesError, out_of_files

_ROOTS = Path(__file__).parents[3]
"""The folder on the spawner's import path."""
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from runstream.executor.spawner.agent import main; main(*map(int, sys.argv[2:]))"
)
_MAX_PACKETS = 4
"""Maximum number of unread answers; an agent answers one request at a time."""
_OPEN_SECONDS = 30.0


class StartError(Exception):
    """A command that could not be started: its working directory or program is missing or unusable."""

    def __init__(self, stage: str, number: int, error: str) -> None:
        super().__init__(os.strerror(number) if number else error)
        self.stage = stage
        """`folder`, `program` or `start`."""
        self.number = number
        """The error number; 0 for none."""


class AgentProxy:
    """The process that starts the commands of one task at a time. All methods are called by one event loop."""

    def __init__(self, channel: socket.socket, gone: Callable[[], None]) -> None:
        """`gone` is called when the agent has ended by itself."""
        self._channel = channel
        self._gone = gone
        self._packets: deque[tuple[dict[str, Any], list[int]]] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._open = True
        self._loop = asyncio.get_running_loop()
        self.pid = 0
        self.scoped = False
        """True if the machine's abstract sockets are out of reach."""
        self.root = -1
        """A descriptor of the sandbox's root; -1 without a sandbox."""
        self._owns_root = True
        self._fault: InternalError | None = None
        """Why it cannot be used any more; None if it has ended."""
        channel.setblocking(False)
        self._loop.add_reader(channel.fileno(), self._read)

    @property
    def alive(self) -> bool:
        """False once the agent has ended, or was closed."""
        if not self._open:
            return False
        try:
            return bool(self._channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:  # nothing to read: both sides are open
            return True
        except OSError:
            return False

    async def opened(self) -> None:
        """Wait until the agent is ready. Raises InternalError with the reason if it could not be set up."""
        answer, descriptors = await self._receive()
        if "error" in answer:
            raise InternalError(f"the sandbox cannot be made: {answer['error']}", code="sandboxUnavailable")
        self.pid, self.scoped = answer["pid"], answer["scoped"]
        self.root = descriptors[0] if descriptors else -1

    def take_root(self) -> int:
        """Return the descriptor of the sandbox's root, which the caller closes from now on."""
        self._owns_root = False
        return self.root

    async def start(self, command: AgentCommand, user: TaskUser | None) -> int:
        """Start a command; return the descriptor from which to read its output.

        The pipe belongs to `user` if that is not the executor's own, so that the command can open /dev/stdout. Raises
        StartError if a command with a terminal cannot be started; for other commands `ended` raises it.
        """
        if command.tty:
            self._send(packed(command), [])
            answer, descriptors = await self._receive()
            _require_started(answer)
            return descriptors[0]
        ours, theirs = os.pipe()
        try:
            if user is not None:
                os.chown(theirs, user.uid, user.gid)
            self._send(packed(command), [theirs])
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return ours

    async def ended(self) -> int:
        """Wait until the command has ended; return its exit status. Raises StartError."""
        answer, _ = await self._receive()
        _require_started(answer)
        return int(answer["status"])

    async def namespaces(self) -> list[int]:
        """Return descriptors of the sandbox's namespaces; the caller closes them."""
        try:
            self._channel.send(NAMESPACES_WANTED)
        except OSError as error:
            raise _gone() from error
        descriptors = (await self._receive())[1]
        if len(descriptors) < len(NAMESPACES):  # the agent could not open them all
            close_all(descriptors)
            raise OpenFilesError
        return descriptors

    def cut_at_end(self, connection: int) -> None:
        """Have the agent shut down this connection when it ends. Raises InternalError."""
        try:
            socket.send_fds(self._channel, [CONNECTION], [connection])
        except OSError as error:
            raise _failure(error) from error

    def next_task(self) -> None:
        """Announce that the following commands belong to another task."""
        with contextlib.suppress(OSError):  # the agent has ended: the first command notices it
            self._channel.send(NEXT_TASK)

    def close(self) -> None:
        """Close the agent, which ends everything that it started; a second close does nothing."""
        self._lose()
        while self._packets:
            close_all(self._packets.popleft()[1])
        if self._owns_root and self.root >= 0:
            os.close(self.take_root())
        self._channel.close()

    def _send(self, content: bytes, descriptors: list[int]) -> None:
        try:
            send(self._channel, COMMAND, content, descriptors)
        except OSError as error:
            self._gone()
            raise _failure(error) from error

    async def _receive(self) -> tuple[dict[str, Any], list[int]]:
        """Wait for a packet; return it with its descriptors."""
        while not self._packets:
            if not self._open:
                raise self._fault or _gone()
            self._waiting = self._loop.create_future()
            await self._waiting
        return self._packets.popleft()

    def _read(self) -> None:
        try:
            packet, descriptors, flags, _ = socket.recv_fds(
                self._channel, PACKET_BYTES, len(NAMESPACES), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return  # nothing to read; the loop calls again with the next packet
        except ConnectionError:
            packet, descriptors, flags = b"", [], 0
        if flags & socket.MSG_CTRUNC:  # the kernel has dropped what this process could not open
            self._fault = OpenFilesError()
            packet = b""
        if packet and len(self._packets) < _MAX_PACKETS:
            self._packets.append((json.loads(packet), descriptors))
        else:
            close_all(descriptors)
            self._lose()
            self._gone()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _lose(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._channel.fileno())


def send(channel: socket.socket, kind: bytes, content: bytes, descriptors: list[int]) -> None:
    """Send a packet; large content goes in a file in memory. Raises OSError."""
    if len(content) < PACKET_BYTES:
        socket.send_fds(channel, [kind, content], descriptors)
        return
    file = os.memfd_create("runstream", os.MFD_CLOEXEC)
    try:
        with os.fdopen(file, "wb", closefd=False) as writer:
            writer.write(content)
        socket.send_fds(channel, [LARGE], [*descriptors, file])
    finally:
        os.close(file)


def _require_started(answer: dict[str, Any]) -> None:
    if "failed" in answer:
        raise StartError(answer["failed"], answer["errno"], answer.get("error", ""))


def close_all(descriptors: list[int]) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)


class Spawner:
    """The spawner's process, which is restarted when it has ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._starting = asyncio.Lock()
        self._trust = -1
        """A descriptor of the file in memory with the time below; -1 before the first start."""
        self._until = float("inf")
        self._lapsed: Callable[[], None] = lambda: None

    def act_until(self, until: float, lapsed: Callable[[], None]) -> None:
        """Let tasks run until this time of the monotonic clock, even if this process stands still.

        Then their agents end them; `lapsed` is called once this process notices. Called first before the first task,
        then at each renewal of the lease.
        """
        self._until, self._lapsed = until, lapsed
        if self._trust >= 0:
            write_trust(self._trust, until)

    def _agent_gone(self) -> None:
        if time.monotonic() >= self._until:
            self._lapsed()

    async def open(self, plan: Plan, namespaces: list[int] | None = None) -> AgentProxy:
        """Open an agent; it joins the sandbox of these namespaces if the plan says so.

        Raises InternalError with the reason if that fails.
        """
        spawner = await self._running()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            with theirs:
                agent = AgentProxy(ours, self._agent_gone)
                undo.callback(agent.close)
                try:
                    send(spawner, COMMAND, packed(plan), [theirs.fileno(), *(namespaces or [])])
                except OSError as error:
                    raise _failure(error) from error
            try:
                async with asyncio.timeout(_OPEN_SECONDS):
                    await agent.opened()
            except TimeoutError as error:
                raise _gone() from error
            undo.pop_all()
        return agent

    async def _running(self) -> socket.socket:
        """Return the socket of the spawner; start the spawner if it is not running."""
        async with self._starting:
            if self._channel is None or self._process is None or self._process.poll() is not None:
                if self._trust < 0:
                    self._trust = new_trust()
                    write_trust(self._trust, self._until)
                self._channel = await asyncio.to_thread(self._start)
            return self._channel

    def close(self) -> None:
        """End the spawner; agents end with their own sockets."""
        self._end_process()
        if self._trust >= 0:
            os.close(self._trust)
            self._trust = -1

    def _end_process(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _start(self) -> socket.socket:
        self._end_process()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as undo, theirs:
            undo.callback(ours.close)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, str(_ROOTS), str(theirs.fileno()), str(self._trust)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), self._trust],
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                cwd="/",
                start_new_session=True,
            )
            undo.pop_all()
        return ours


def _failure(error: OSError) -> InternalError:
    return OpenFilesError() if out_of_files(error) else _gone()


def _gone() -> InternalError:
    return InternalError("the processes of the task were ended from outside", code="taskProcessesGone")

"""A pod of containers that share a network: steps run in the first one, the others are services."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

import structlog
from aiodocker.containers import DockerContainer
from aiodocker.stream import Stream

from runstream.backoff import Backoff
from runstream.errors import BadRequestError
from runstream.executor.drivers.container_files import ContainerCommand, Sink, read_fed
from runstream.executor.drivers.container_pod import KILLED, ContainerPod
from runstream.executor.drivers.containers import EngineRefusedError, EngineUnreachableError
from runstream.executor.drivers.docker.engine import Engine
from runstream.executor.drivers.port import Exec, NotStartedError, Output
from runstream.executor.drivers.shell import FED, KILLER, SHELL, in_pieces
from runstream.executor.limits import FILE_TOO_LARGE, TAIL_BYTES, TOO_LARGE, probable_limit
from runstream.executor.sandbox import Visible
from runstream.lifecycle import StrictTaskGroup

END_SECONDS = 5.0
"""Maximum duration of a call that ends containers or their processes, in seconds: a task does not wait for a slower
engine, which removes its containers later."""
_SERVICE_GRACE_SECONDS = 1
_POLL = Backoff(0.005, 0.5)
"""Waits for the status of a command whose output has ended."""
_END_SEEN_SECONDS = 1.0
"""Maximum time between the end of a container's commands and the engine's event of its own end, in seconds."""
_CONFLICT, _GONE = 409, 404
_NOT_RUNNING = ("is not running", "exec sessions on running containers")
"""What Docker and Podman say of a command for a container that has ended."""
_ERRORS = 2
"""The stream of errors."""

log = structlog.get_logger()


@dataclass(slots=True)
class PodContainer:
    """A container of a pod."""

    index: int
    """0 for the main container."""
    image: str
    handle: DockerContainer
    memory: int
    """Its memory limit in bytes; 0 for none."""
    memory_setting: str = ""
    """The setting that its memory limit is from; empty for the container's own."""
    disk_limited: bool = False
    """Whether the engine limits what it writes to its root file system."""
    ended: int | None = None
    """Its exit status, once it has ended."""
    out_of_memory: bool = False

    @property
    def name(self) -> str:
        """What users call it."""
        return f"service {self.index}" if self.index else "the main container"


@dataclass(slots=True)
class PodState:
    """What is known of a pod before, while and after it runs."""

    id: str
    task: str
    containers: list[PodContainer] = field(default_factory=list)
    creating: set[asyncio.Future[DockerContainer]] = field(default_factory=set)
    """Calls that make a container; they are waited for before containers are removed."""
    readers: list[asyncio.Task[None]] = field(default_factory=list)
    """The task that keeps the sleeper's input open."""
    services: list[asyncio.Task[None]] = field(default_factory=list)
    """Readers of the output of services."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def find(self, container: str) -> PodContainer | None:
        """Return the container with this id."""
        return next((each for each in self.containers if each.handle.id == container), None)

    def let_go(self) -> None:
        """Close the connections to its containers: nothing is read any more, and the sleeper's input ends."""
        for reader in (*self.readers, *self.services):
            reader.cancel()


class DockerPod(ContainerPod):
    """A running pod."""

    def __init__(
        self,
        engine: Engine,
        state: PodState,
        user: str,
        environment: Mapping[str, str],
        visible: Visible,
        setup_log: Output,
        removed: Callable[[], Awaitable[None]],
    ) -> None:
        """`environment` is that of all commands. `removed` removes the pod's containers, some time."""
        self._engine = engine
        self._state = state
        self._main = state.containers[0]
        self._user = user
        super().__init__(state.task, self._main.image, environment, visible, setup_log, removed)

    async def require_running(self) -> None:
        """Raise BadRequestError with the reason if the main container has ended."""
        async with self._engine.asked():
            running = bool((await self._main.handle.show())["State"]["Running"])
        if not running:
            raise await self.ended_early()

    async def report_services(self) -> None:
        """Write the services that have ended already to the setup's log, with the last lines that they wrote."""
        for service in self._state.containers[1:]:
            async with self._engine.asked():
                state = (await service.handle.show())["State"]
                if state["Running"]:
                    continue
                tail = "".join(await service.handle.log(stdout=True, stderr=True, tail=10)).strip()
            self.report_end(service.name, service.image, state["ExitCode"], tail)

    async def exec(self, command: Exec, output: Output) -> int:
        """Run a command in the main container; say so if a process of it was killed for want of memory."""
        self._main.out_of_memory = False
        tail = b""

        def write(chunk: bytes) -> None:
            nonlocal tail
            tail = (tail + chunk)[-TAIL_BYTES:]
            output(chunk)

        status = await super().exec(command, write)
        if status and self._main.out_of_memory:
            limit = f" of {self._main.memory} bytes" if self._main.memory else ""
            setting = f" ({self._main.memory_setting})" if self._main.memory_setting else ""
            output(f"A process was killed: out of memory, the container reached its limit{limit}{setting}.\n".encode())
        if status == FILE_TOO_LARGE:
            output(TOO_LARGE)
        if status and (said := probable_limit(tail, disk=self._main.disk_limited)):
            output(said)
        return status

    async def run_command(self, command: ContainerCommand) -> int:
        """Run a command in the main container as the task's user; return its exit status."""
        try:
            return await self._command(command)
        except EngineRefusedError as error:
            if self.is_ending():
                return KILLED
            if error.status in (_CONFLICT, _GONE) or any(sign in error.reason for sign in _NOT_RUNNING):
                raise await self.ended_early() from error
            raise NotStartedError(error.reason) from error

    async def _command(self, command: ContainerCommand) -> int:
        if command.source is not None and self._engine.with_tls:
            # TLS cannot end one direction alone, and `tar` of busybox reads to the end of its input.
            arguments = (SHELL, "-c", FED, SHELL, *command.arguments)
            command = replace(command, arguments=arguments, source=in_pieces(command.source))
        async with self._engine.asked():
            started = await self._main.handle.exec(
                list(command.arguments),
                tty=command.tty,
                stdin=command.source is not None,
                user=self._user,
                environment=command.environment,
            )
        async with self._engine.asked(None), started.start(detach=False) as stream:
            reading = _read(stream, command.output, command.errors)
            await (reading if command.source is None else read_fed(reading, _feed(stream, command.source)))
        for wait in _POLL.delays():
            async with self._engine.asked():
                found = await started.inspect()
            if not found["Running"] and found["ExitCode"] is not None:
                break
            await asyncio.sleep(wait)
        status = int(found["ExitCode"])
        if not self.is_ending() and (self._main.ended is not None or (status == KILLED and await self._ends())):
            raise await self.ended_early()
        return status

    async def _ends(self) -> bool:
        """Return whether the main container is ending: the engine may report the end of its commands before its own."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SEEN_SECONDS):
                while self._main.ended is None:
                    self._state.changed.clear()
                    await self._state.changed.wait()
        return self._main.ended is not None

    async def ended_early(self) -> BadRequestError:
        """Return the error for a main container that ended by itself, with the last lines that it wrote."""
        status, tail = self._main.ended, ""
        with contextlib.suppress(EngineUnreachableError, EngineRefusedError):
            async with self._engine.asked():
                status = (await self._main.handle.show())["State"]["ExitCode"]
                tail = "".join(await self._main.handle.log(stdout=True, stderr=True, tail=5)).strip()
        return BadRequestError(
            f"the container of image {self._main.image} ended by itself, with exit status {status}"
            f"{f': {tail[-500:]}' if tail else ''}",
            code="containerEnded",
            hint="the image of the first container needs /bin/sh; an `entrypoint` given for it must keep running",
        )

    async def terminate(self) -> None:
        """Send TERM to all processes of the main container, if it still runs."""
        if self._main.ended is not None:
            return
        # A container that has ended takes no command; one without a shell is killed after the grace period.
        with contextlib.suppress(EngineRefusedError, BadRequestError):
            async with self._engine.asked(END_SECONDS):
                killer = await self._main.handle.exec([SHELL, "-c", KILLER], user="0")
            async with self._engine.asked(None), killer.start(detach=False) as stream:
                while await stream.read_out() is not None:
                    pass

    async def stop(self, grace_seconds: float) -> None:
        """End the containers: services have a part of the grace period."""
        async with StrictTaskGroup() as group:
            for container in self._state.containers:
                group.create_task(self._stop(container, grace_seconds))
        if self._state.services:
            await asyncio.wait(self._state.services, timeout=_SERVICE_GRACE_SECONDS)  # the last lines are read

    async def _stop(self, container: PodContainer, grace_seconds: float) -> None:
        with contextlib.suppress(EngineRefusedError):  # it has ended
            async with self._engine.asked(END_SECONDS):
                if container.index and grace_seconds > 0:
                    await container.handle.stop(t=_SERVICE_GRACE_SECONDS)
                else:
                    await container.handle.kill()


async def _read(stream: Stream, output: Sink, errors: Sink | None) -> None:
    while (message := await stream.read_out()) is not None:
        sink = errors if errors is not None and message.stream == _ERRORS else output
        if (room := sink(message.data)) is not None:
            await room


async def _feed(stream: Stream, source: AsyncIterator[bytes]) -> None:
    """Write the input of a command, and end it if the connection can."""
    connection = stream._resp.connection if stream._resp is not None else None  # noqa: SLF001
    transport = connection.transport if connection is not None else None
    if connection is not None and connection.protocol is not None and transport is not None:
        # A command may end before its input, such as `tar` on a full disk. The engine then closes its side and reads no
        # more, so a transport that first writes what is left would never say that the output has ended.
        connection.protocol.eof_received = transport.abort  # type: ignore[method-assign]
    async for chunk in source:
        await stream.write_in(chunk)
    if transport is not None and transport.can_write_eof():
        transport.write_eof()

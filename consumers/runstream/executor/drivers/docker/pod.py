"""A pod of containers that share a network: steps run in the first one, the others are services."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from aiodocker.containers import DockerContainer
from aiodocker.stream import Stream

from runstream.errors import BadRequestError, InternalError
from runstream.executor.drivers.container_files import ContainerFiles, Sink, read_fed
from runstream.executor.drivers.docker.engine import Engine, EngineRefusedError, EngineUnreachableError
from runstream.executor.drivers.port import Exec, NotStartedError, Output
from runstream.executor.drivers.shell import KILLER, MAX_TEXT_BYTES, PROBE, SHELL, in_variables, to_run, to_write
from runstream.executor.sandbox import Visible
from runstream.executor.spec import for_terminal
from runstream.lifecycle import StrictTaskGroup

_KILLED = 137
_SERVICE_GRACE_SECONDS = 1
_POLL_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Waits for the status of a command whose output has ended, in seconds; the last one is repeated."""
_CONFLICT, _GONE = 409, 404
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
    """Readers of the logs of services, and the task that keeps the sleeper's input open."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def find(self, container: str) -> PodContainer | None:
        """Return the container with this id."""
        return next((each for each in self.containers if each.handle.id == container), None)


class DockerPod:
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
        self._setup_log = setup_log
        self._engine = engine
        self._state = state
        self._main = state.containers[0]
        self._user = user
        self._environment = dict(environment)
        self._visible = visible
        self._removed = removed
        self._scripts = "/tmp"  # noqa: S108
        self._pending: tuple[str, str] | None = None
        """A script to be written with the next command: its path and text."""
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._ending: asyncio.Task[None] | None = None
        self.files = ContainerFiles(self)

    async def make_working_dir(self, path: str) -> None:
        """Create the task's working directory, and find out where things are in the container."""
        if path.startswith("~") and path != "~" and not path.startswith("~/"):
            raise BadRequestError(f"{path!r}: the home of another user is not available", code="invalidPath")
        printed = bytearray()
        status = await self.command([SHELL, "-c", PROBE, SHELL, path], {}, printed.extend)
        lines = printed.decode(errors="replace").split("\n")
        if status or len(lines) < 3:
            if not await self._is_running():
                raise await self.ended_early()
            raise self._no_probe(status, printed.decode(errors="replace").strip(), path)
        await self._report_services()
        self.files.home = lines[0].rstrip("/") or "/"
        self._scripts = lines[1]

    async def _report_services(self) -> None:
        """Write the services that have ended already to the setup's log, with the last lines that they wrote."""
        for service in self._state.containers[1:]:
            async with self._engine.asked():
                state = (await service.handle.show())["State"]
                if state["Running"]:
                    continue
                tail = "".join(await service.handle.log(stdout=True, stderr=True, tail=10)).strip()
            ended = f"{service.name} (image {service.image}) has ended already, with exit status {state['ExitCode']}"
            self._setup_log(f"{ended}{f':{chr(10)}{tail}' if tail else ''}\n".encode())

    async def _is_running(self) -> bool:
        async with self._engine.asked():
            return bool((await self._main.handle.show())["State"]["Running"])

    def _no_probe(self, status: int, printed: str, path: str) -> BadRequestError:
        image = self._main.image
        if "runtime exec failed" in printed or status in (126, 127):
            return BadRequestError(
                f"image {image} cannot run steps: {printed[:300] or 'it has no /bin/sh'}",
                code="imageUnfit",
                hint="steps need /bin/sh in the image of the first container",
            )
        return BadRequestError(
            f"the working directory {path} cannot be created in {image}: {printed[:300]}",
            code="workingDirNotMade",
            hint="the container's user must be allowed to make it",
        )

    async def exec(self, command: Exec, output: Output) -> int:
        """Run a command in the main container."""
        if command.visible:
            raise InternalError("a container sees no folder of the machine", code="folderNotVisible")
        environment = {name: value for name, value in self._environment.items() if command.keeps(name)}
        environment.update(command.environment)
        if command.tty:
            environment = for_terminal(environment)
        script, text = self._pending or ("", "")
        self._pending = None
        texts = in_variables(text) if script else {}
        folder = self.files.path(command.folder)
        arguments = to_run(folder, command.folder, command.arguments, script, texts)
        sink = _WithoutReturns(output) if command.tty else output
        self._main.out_of_memory = False
        status = await self.command(arguments, {**environment, **texts}, sink, tty=command.tty)
        if isinstance(sink, _WithoutReturns):
            sink.finish()
        if status and self._main.out_of_memory:
            limit = f" of {self._main.memory} bytes" if self._main.memory else ""
            output(f"A process was killed: out of memory, the container reached its limit{limit}.\n".encode())
        return status

    async def command(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        output: Sink,
        *,
        tty: bool = False,
        errors: Sink | None = None,
        source: AsyncIterator[bytes] | None = None,
    ) -> int:
        """Run a command in the main container as the task's user; return its exit status.

        `output` gets its output, and its errors too unless `errors` is given. `source` is its input.
        """
        if self._is_ending():
            raise InternalError("the task has ended", code="taskEnded")
        self._running += 1
        self._idle.clear()
        try:
            return await self._command(arguments, environment, output, tty=tty, errors=errors, source=source)
        except EngineRefusedError as error:
            if self._is_ending():
                return _KILLED
            if error.status in (_CONFLICT, _GONE) or "is not running" in error.reason:
                raise await self.ended_early() from error
            raise NotStartedError(error.reason) from error
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _command(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        output: Sink,
        *,
        tty: bool,
        errors: Sink | None,
        source: AsyncIterator[bytes] | None,
    ) -> int:
        async with self._engine.asked():
            started = await self._main.handle.exec(
                list(arguments), tty=tty, stdin=source is not None, user=self._user, environment=environment
            )
        async with self._engine.asked(None), started.start(detach=False) as stream:
            if source is None:
                await _read(stream, output, errors)
            else:
                await read_fed(_read(stream, output, errors), _feed(stream, source))
        waits = iter(_POLL_SECONDS)
        wait = 0.0
        while True:
            async with self._engine.asked():
                found = await started.inspect()
            if not found["Running"] and found["ExitCode"] is not None:
                break
            wait = next(waits, wait)
            await asyncio.sleep(wait)
        if self._main.ended is not None and not self._is_ending():
            raise await self.ended_early()
        return int(found["ExitCode"])

    def _is_ending(self) -> bool:
        return self._ending is not None

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

    async def write_script(self, text: str) -> str:
        """Schedule a script to be written with the next command, mode 0600; return its path."""
        if len(text.encode()) > MAX_TEXT_BYTES:
            raise BadRequestError(
                f"the command has more than {MAX_TEXT_BYTES} bytes", code="commandTooLong", hint="put it into a file"
            )
        path = f"{self._scripts}/.runstream-{secrets.token_hex(6)}"
        self._pending = (path, f"{text}\n")
        return path

    async def write_file(self, path: str, content: bytes, mode: int) -> None:
        """Write a whole file that has text."""
        printed = bytearray()
        texts = in_variables(content.decode())
        if await self.command(to_write(path, mode, texts), texts, printed.extend):
            raise BadRequestError(
                f"{path!r} cannot be written: {printed.decode(errors='replace').strip()[:300]}", code="fileNotWritten"
            )

    def require_visible(self, path: Path) -> None:
        """Raise BadRequestError if a path of the machine lies in, or contains, a place hidden from tasks."""
        self._visible.require_visible(path)

    def sees(self, path: Path) -> bool:
        """Return False: a container sees no folder of the machine."""
        return False

    def may_read(self, path: Path) -> bool:
        """Return whether the executor may hand out a place of the machine: as root, only what everyone may read."""
        return os.geteuid() != 0 or path.stat().st_mode & 0o005 == 0o005

    async def find_in(self, folder: Path) -> str:
        """Copy a folder of the machine into the task's home; return its path there."""
        if not self.may_read(folder):
            raise BadRequestError(
                f"not everyone may read {folder}: make it readable (chmod -R o+rX), or clone it by another URL",
                code="repositoryNotReadable",
            )
        path = self.files.path(f"~/.runstream-{secrets.token_hex(6)}")
        await self.files.copy_folder(folder, path)
        return path

    async def end(self, grace_seconds: float) -> None:
        """End all processes of the pod."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(grace_seconds))
        await asyncio.shield(self._ending)

    async def _end(self, grace_seconds: float) -> None:
        try:
            if self._running and grace_seconds > 0 and self._main.ended is None:
                with contextlib.suppress(TimeoutError):  # then the containers are killed
                    async with asyncio.timeout(grace_seconds):
                        await self._terminate()
                        await self._idle.wait()
            async with StrictTaskGroup() as group:
                for container in self._state.containers:
                    group.create_task(self._stop(container, grace_seconds))
        except* EngineUnreachableError as unreachable:
            log.warning(
                f"the containers of a task are removed when the engine is back: {unreachable.exceptions[0]}",
                action="containers_left",
                task=self._state.task,
            )

    async def _terminate(self) -> None:
        # A container that has ended takes no command; one without a shell is killed after the grace period.
        with contextlib.suppress(EngineRefusedError, BadRequestError):
            async with self._engine.asked():
                killer = await self._main.handle.exec([SHELL, "-c", KILLER], user="0")
                async with killer.start(detach=False) as stream:
                    while await stream.read_out() is not None:
                        pass

    async def _stop(self, container: PodContainer, grace_seconds: float) -> None:
        with contextlib.suppress(EngineRefusedError):  # it has ended
            async with self._engine.asked():
                if container.index and grace_seconds > 0:
                    await container.handle.stop(t=_SERVICE_GRACE_SECONDS)
                else:
                    await container.handle.kill()

    async def close(self) -> None:
        """Remove the pod's containers, in the background."""
        await self._removed()


async def _read(stream: Stream, output: Sink, errors: Sink | None) -> None:
    while (message := await stream.read_out()) is not None:
        sink = errors if errors is not None and message.stream == _ERRORS else output
        if (room := sink(message.data)) is not None:
            await room


async def _feed(stream: Stream, source: AsyncIterator[bytes]) -> None:
    """Write the input of a command, and end it: `tar` of busybox waits for that."""
    async for chunk in source:
        await stream.write_in(chunk)
    connection = stream._resp.connection if stream._resp is not None else None  # noqa: SLF001
    transport = connection.transport if connection is not None else None
    if transport is not None and transport.can_write_eof():
        transport.write_eof()
    # With TLS only the whole connection could be ended: `tar` of GNU needs no end.


class _WithoutReturns:
    """An output without the carriage return that a terminal puts before each line feed."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._held = b""

    def __call__(self, chunk: bytes) -> None:
        chunk = self._held + chunk
        self._held = b"\r" if chunk.endswith(b"\r") else b""
        chunk = chunk[: len(chunk) - len(self._held)].replace(b"\r\n", b"\n")
        if chunk:
            self._output(chunk)

    def finish(self) -> None:
        """Write what was held back."""
        if self._held:
            self._output(self._held)

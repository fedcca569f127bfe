"""What a pod of containers does in the same way whichever engine it is of: steps run in its first container.

A step is a command of the image's own shell. `ContainerPod` needs from an engine's pod only how a command runs, what
ended the pod, and how it is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import structlog

from runstream.errors import BadRequestError, InternalError
from runstream.executor.drivers.container_files import ContainerCommand, ContainerFiles
from runstream.executor.drivers.containers import EngineUnreachableError
from runstream.executor.drivers.port import Exec, Output
from runstream.executor.drivers.shell import MAX_TEXT_BYTES, PROBE, SHELL, in_variables, to_run, to_write
from runstream.executor.sandbox import Visible
from runstream.executor.spec import for_terminal

KILLED = 137
"""The exit status of a command that was killed."""

log = structlog.get_logger()


class ContainerPod(ABC):
    """A running pod of containers."""

    def __init__(
        self,
        task: str,
        image: str,
        environment: Mapping[str, str],
        visible: Visible,
        setup_log: Output,
        removed: Callable[[], Awaitable[None]],
    ) -> None:
        """`image` is that of the first container, `environment` that of all commands. `removed` removes the pod, some
        time."""
        self.task = task
        self.image = image
        self.scripts = "/tmp"  # noqa: S108
        """A folder of the container that the user can write to."""
        self.setup_log = setup_log
        self.running = 0
        """Number of commands that have not ended."""
        self._environment = dict(environment)
        self._visible = visible
        self._removed = removed
        self._pending: tuple[str, str] | None = None
        """A script to be written with the next command: its path and text."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._ending: asyncio.Task[None] | None = None
        self.files = ContainerFiles(self)

    @abstractmethod
    async def run_command(self, command: ContainerCommand) -> int:
        """Run a command in the main container as the task's user; return its exit status."""

    @abstractmethod
    async def require_running(self) -> None:
        """Raise BadRequestError with the reason if the main container has ended."""

    @abstractmethod
    async def report_services(self) -> None:
        """Write the services that have ended already to the setup's log, with the last lines that they wrote."""

    @abstractmethod
    async def terminate(self) -> None:
        """Send TERM to all processes of the main container, if it still runs."""

    @abstractmethod
    async def stop(self, grace_seconds: float) -> None:
        """End the containers: services have a part of the grace period."""

    def report_end(self, name: str, image: str, status: int, tail: str) -> None:
        """Write to the setup's log that a service has ended."""
        ended = f"{name} (image {image}) has ended already, with exit status {status}"
        self.setup_log(f"{ended}{f':{chr(10)}{tail}' if tail else ''}\n".encode())

    async def make_working_dir(self, path: str) -> None:
        """Create the task's working directory, and find out where things are in the container."""
        if path.startswith("~") and path != "~" and not path.startswith("~/"):
            raise BadRequestError(f"{path!r}: the home of another user is not available", code="invalidPath")
        printed = bytearray()
        status = await self.command(ContainerCommand([SHELL, "-c", PROBE, SHELL, path], {}, printed.extend))
        text = printed.decode(errors="replace")
        lines = text.split("\n")
        if status or len(lines) < 3:
            await self.require_running()
            raise self._no_probe(status, text.strip(), path)
        await self.report_services()
        self.files.home = lines[0].rstrip("/") or "/"
        self.scripts = lines[1]

    def _no_probe(self, status: int, printed: str, path: str) -> BadRequestError:
        if "runtime exec failed" in printed or status in (126, 127):
            return BadRequestError(
                f"image {self.image} cannot run steps: {printed[:300] or 'it has no /bin/sh'}",
                code="imageUnfit",
                hint="steps need /bin/sh in the image of the first container",
            )
        return BadRequestError(
            f"the working directory {path} cannot be created in {self.image}: {printed[:300]}",
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
        status = await self.command(ContainerCommand(arguments, {**environment, **texts}, sink, command.tty))
        if isinstance(sink, _WithoutReturns):
            sink.finish()
        return status

    async def command(self, command: ContainerCommand) -> int:
        """Run a command in the main container as the task's user; return its exit status."""
        if self.is_ending():
            raise InternalError("the task has ended", code="taskEnded")
        self.running += 1
        self._idle.clear()
        try:
            return await self.run_command(command)
        finally:
            self.running -= 1
            if not self.running:
                self._idle.set()

    def is_ending(self) -> bool:
        """Return whether the pod is being ended."""
        return self._ending is not None

    async def write_script(self, text: str) -> str:
        """Schedule a script to be written with the next command, mode 0600; return its path."""
        if len(text.encode()) > MAX_TEXT_BYTES:
            raise BadRequestError(
                f"the command has more than {MAX_TEXT_BYTES} bytes", code="commandTooLong", hint="put it into a file"
            )
        path = self.script_path()
        self._pending = (path, f"{text}\n")
        return path

    def script_path(self) -> str:
        """Return a path for a new script."""
        return f"{self.scripts}/.runstream-{secrets.token_hex(6)}"

    async def write_file(self, path: str, content: bytes, mode: int) -> None:
        """Write a whole file that has text."""
        printed = bytearray()
        texts = in_variables(content.decode())
        if await self.command(ContainerCommand(to_write(path, mode, texts), texts, printed.extend)):
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
            if self.running and grace_seconds > 0:
                with contextlib.suppress(TimeoutError):  # then the containers are killed
                    async with asyncio.timeout(grace_seconds):
                        await self.terminate()
                        await self._idle.wait()
            await self.stop(grace_seconds)
        except* EngineUnreachableError as unreachable:
            log.warning(
                f"the containers of a task are removed later: {unreachable.exceptions[0]}",
                action="containers_left",
                task=self.task,
            )

    async def close(self) -> None:
        """Remove the containers, in the background."""
        await self._removed()


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

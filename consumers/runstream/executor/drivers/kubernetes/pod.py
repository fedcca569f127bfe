"""A task's pod in a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from lightkube.resources.core_v1 import Pod as PodObject

from runstream.errors import BadRequestError, InternalError
from runstream.executor.drivers.container_files import ContainerFiles, Sink
from runstream.executor.drivers.docker.engine import EngineRefusedError, EngineUnreachableError
from runstream.executor.drivers.docker.pod import _WithoutReturns
from runstream.executor.drivers.kubernetes.cluster import NOT_FOUND, Cluster, ConnectionLostError
from runstream.executor.drivers.kubernetes.entering import FROM_INPUT, file_script, input_script
from runstream.executor.drivers.kubernetes.manifests import MAIN, pod_name
from runstream.executor.drivers.kubernetes.startup import startup_of, why_gone
from runstream.executor.drivers.port import Exec, NotStartedError, Output
from runstream.executor.drivers.shell import KILLER, MAX_TEXT_BYTES, PROBE, SHELL, in_variables, to_run, to_write
from runstream.executor.sandbox import Visible
from runstream.executor.spec import for_terminal

_KILLED = 137
_HINT = "the image of the first container needs /bin/sh; an `entrypoint` given for it must keep running"
_REASON_SECONDS = 5.0
"""Time to wait for the reason why a pod ended, in seconds."""

_KILLED_SECONDS = 2.0
"""The same after a command that was killed or did not run, which may have another reason, in seconds."""

log = structlog.get_logger()


@dataclass(slots=True)
class PodState:
    """What is known of a pod before, while and after it runs."""

    id: str
    task: str
    image: str
    """Of its first container."""
    object: PodObject | None = None
    """Its last known state; None before it was seen, and after it is gone."""
    gone: bool = False
    pull_error: str = ""
    """The error of the last pull of an image; a later state only says that it is tried again."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    creating: set[asyncio.Task[None]] = field(default_factory=set)
    """Calls that make it; they are waited for before it is removed."""

    @property
    def name(self) -> str:
        """Its name, and that of its secret."""
        return pod_name(self.id)

    def heard(self, found: PodObject | None) -> None:
        """Take its new state; None if it is gone."""
        self.object, self.gone = found, found is None
        if found is not None:
            self.pull_error = startup_of(found).pull_error or self.pull_error
        self.changed.set()

    def why_gone(self) -> str:
        """Return why no command can run in it any more; empty if one can, or if nothing is known."""
        return why_gone(None) if self.gone else why_gone(self.object) if self.object is not None else ""

    def ended_error(self, reason: str) -> BadRequestError:
        """Return the error for commands that cannot run any more."""
        return BadRequestError(f"{reason} (image {self.image})", code="containerEnded", hint=_HINT)


class KubernetesPod:
    """A running pod."""

    def __init__(
        self,
        cluster: Cluster,
        state: PodState,
        environment: Mapping[str, str],
        visible: Visible,
        removed: Callable[[], Awaitable[None]],
    ) -> None:
        """`environment` is that of all commands. `removed` removes the pod, some time."""
        self._cluster = cluster
        self._state = state
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
        text = printed.decode(errors="replace")
        lines = text.split("\n")
        if status or len(lines) < 3:
            raise BadRequestError(
                f"the working directory {path} cannot be created in {self._state.image}: {text.strip()[:300]}",
                code="workingDirNotMade",
                hint="the container's user must be allowed to make it",
            )
        self.files.home = lines[0].rstrip("/") or "/"
        self._scripts = lines[1]

    async def exec(self, command: Exec, output: Output) -> int:
        """Run a command in the main container."""
        if command.visible:
            raise InternalError("a container sees no folder of the machine", code="folderNotVisible")
        environment = {name: value for name, value in self._environment.items() if command.keeps(name)}
        environment.update(command.environment)
        if command.tty:
            environment = for_terminal(environment)
        path, text = self._pending or ("", "")
        self._pending = None
        texts = in_variables(text) if path else {}
        folder = self.files.path(command.folder)
        arguments = to_run(folder, command.folder, command.arguments, path, texts)
        sink = _WithoutReturns(output) if command.tty else output
        status = await self.command(arguments, {**environment, **texts}, sink, tty=command.tty)
        if isinstance(sink, _WithoutReturns):
            sink.finish()
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
        """Run a command in the main container; return its exit status.

        `output` gets its output, and its errors too unless `errors` is given. `source` is its input.
        """
        if self._has_ended():
            raise InternalError("the task has ended", code="taskEnded")
        self._running += 1
        self._idle.clear()
        try:
            if not environment:
                return await self._run(arguments, output, errors, source=source, tty=tty)
            if source is None and not tty:
                return await self._run(FROM_INPUT, output, errors, text=input_script(arguments, environment))
            path = f"{self._scripts}/.runstream-{secrets.token_hex(6)}"
            await self.write_file(path, file_script(arguments, environment).encode(), 0o600)
            return await self._run((SHELL, path), output, errors, source=source, tty=tty)
        except (ConnectionLostError, EngineRefusedError) as error:
            if self._has_ended():
                return _KILLED
            raise await self._broken(error) from error
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    def _has_ended(self) -> bool:
        return self._ending is not None

    async def _run(
        self,
        command: Sequence[str],
        output: Sink,
        errors: Sink | None,
        *,
        text: bytes = b"",
        source: AsyncIterator[bytes] | None = None,
        tty: bool = False,
    ) -> int:
        result = await self._cluster.run(
            self._state.name, MAIN, command, output, text=text, source=source, errors=errors, tty=tty
        )
        if self._has_ended():
            return _KILLED if result.reason else result.status
        if (result.reason or result.status == _KILLED) and (reason := await self._reason(_KILLED_SECONDS)):
            raise self._state.ended_error(reason)
        if not result.reason:
            return result.status
        raise NotStartedError(f"image {self._state.image} cannot run steps, which need /bin/sh in it: {result.reason}")

    async def _broken(self, error: ConnectionLostError | EngineRefusedError) -> BadRequestError | InternalError:
        """Return the error for a command whose connection broke: the end of its pod, if that was the reason."""
        try:
            reason = await self._reason(_REASON_SECONDS)
        except EngineUnreachableError as unreachable:
            return ConnectionLostError(unreachable.reason)
        return self._state.ended_error(reason) if reason else error

    async def _reason(self, seconds: float) -> str:
        """Return why the pod ended, which the cluster may tell somewhat later; empty if it did not."""
        reason = ""
        await self._look()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (reason := self._state.why_gone()):
                    self._state.changed.clear()
                    await self._state.changed.wait()
        return reason

    async def _look(self) -> None:
        """Ask for the pod's state now, which the watch may tell later."""
        try:
            async with self._cluster.asked() as client:
                self._state.heard(await client.get(PodObject, self._state.name))
        except EngineRefusedError as error:
            if error.status == NOT_FOUND:
                self._state.heard(None)

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
        """End all processes of the pod: the steps with the grace period, the containers with the pod."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(grace_seconds))
        await asyncio.shield(self._ending)

    async def _end(self, grace_seconds: float) -> None:
        if self._running and grace_seconds > 0 and not self._state.why_gone():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self._terminate()
                    await self._idle.wait()
        await self._removed()

    async def _terminate(self) -> None:
        with contextlib.suppress(EngineRefusedError, EngineUnreachableError, ConnectionLostError):
            await self._cluster.run(self._state.name, MAIN, [SHELL, "-c", KILLER], lambda _chunk: None)

    async def close(self) -> None:
        """Remove the pod, in the background."""
        await self._removed()

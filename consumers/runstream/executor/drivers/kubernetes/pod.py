"""A task's pod in a cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

import structlog
from lightkube.resources.core_v1 import Pod as PodObject

from runstream.errors import BadRequestError, InternalError
from runstream.executor.drivers.container_files import ContainerCommand
from runstream.executor.drivers.container_pod import KILLED, ContainerPod
from runstream.executor.drivers.containers import EngineRefusedError, EngineUnreachableError
from runstream.executor.drivers.kubernetes.cluster import NOT_FOUND, Cluster, ConnectionLostError
from runstream.executor.drivers.kubernetes.entering import FROM_INPUT, file_script, input_script
from runstream.executor.drivers.kubernetes.manifests import MAIN, pod_name
from runstream.executor.drivers.kubernetes.startup import BY_ITSELF, ended_containers, startup_of, why_gone
from runstream.executor.drivers.port import NotStartedError, Output
from runstream.executor.drivers.shell import KILLER, SHELL
from runstream.executor.sandbox import Visible

_HINT = "the image of the first container needs /bin/sh; an `entrypoint` given for it must keep running"
_REASON_SECONDS = 5.0
"""Time to wait for the reason why a pod ended, in seconds."""

_KILLED_SECONDS = 2.0
"""The same after a command that was killed or did not run, which may have another reason, in seconds."""

log = structlog.get_logger()


@dataclass(slots=True)
class KubernetesPodState:
    """What is known of a pod before, while and after it runs."""

    id: str
    task: str
    image: str
    """The image of its first container."""
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
        return BadRequestError(
            f"{reason} (image {self.image})", code="containerEnded", hint=_HINT if reason.startswith(BY_ITSELF) else ""
        )


class KubernetesPod(ContainerPod):
    """A running pod."""

    def __init__(
        self,
        cluster: Cluster,
        state: KubernetesPodState,
        environment: Mapping[str, str],
        visible: Visible,
        setup_log: Output,
        removed: Callable[[], Awaitable[None]],
    ) -> None:
        """`environment` is that of all commands. `removed` removes the pod, some time."""
        self._cluster = cluster
        self._state = state
        super().__init__(state.task, state.image, environment, visible, setup_log, removed)

    async def require_running(self) -> None:
        """Raise BadRequestError with the reason if the main container has ended."""
        if reason := self._state.why_gone():
            raise self._state.ended_error(reason)

    async def report_services(self) -> None:
        """Write the services that have ended already to the setup's log, with the last lines that they wrote."""
        known = self._state.object
        for name, ended in ended_containers(known).items() if known is not None else ():
            tail = await self._cluster.tail(self._state.name, name)
            self.report_end(name.replace("service", "service "), ended.image, ended.status, tail)

    async def run_command(self, command: ContainerCommand) -> int:
        """Run a command in the main container; return its exit status."""
        try:
            if not command.environment:
                return await self._run(command)
            if command.source is None and not command.tty:
                return await self._run(
                    replace(command, arguments=FROM_INPUT), input_script(command.arguments, command.environment)
                )
            path = self.script_path()
            script = file_script(command.arguments, command.environment)
            await self.write_file(path, script.encode(), 0o600)
            return await self._run(replace(command, arguments=(SHELL, path)))
        except (ConnectionLostError, EngineRefusedError) as error:
            if self.is_ending():
                return KILLED
            raise await self._broken(error) from error

    async def _run(self, command: ContainerCommand, text: bytes = b"") -> int:
        result = await self._cluster.run(self._state.name, MAIN, command, text)
        if self.is_ending():
            return KILLED if result.reason else result.status
        if (result.reason or result.status == KILLED) and (reason := await self._reason(_KILLED_SECONDS)):
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

    async def terminate(self) -> None:
        """Send TERM to all processes of the main container, if it still runs."""
        if not self._state.why_gone():
            with contextlib.suppress(EngineRefusedError, EngineUnreachableError, ConnectionLostError):
                await self._cluster.run(
                    self._state.name, MAIN, ContainerCommand([SHELL, "-c", KILLER], {}, lambda _chunk: None)
                )

    async def stop(self, grace_seconds: float) -> None:
        """Remove the pod, in the background."""
        await self.close()

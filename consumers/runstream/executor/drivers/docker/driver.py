"""A driver that runs tasks in containers of an engine.

All containers of this executor have its id in a label, and those of a pod the pod's. What is removed is found by these
labels alone, so nothing of others is touched. Containers of no living pod are removed when the executor starts, and
when the engine has come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog
from aiodocker.containers import DockerContainer
from aiodocker.stream import Stream

from runstream.backoff import Backoff, retry
from runstream.errors import BadRequestError, RunstreamError
from runstream.events.run_config import Container
from runstream.executor.drivers.containers import (
    CAPABILITIES,
    EXECUTOR,
    INDEX,
    OWN,
    POD,
    TASK,
    EngineRefusedError,
    EngineUnreachableError,
    hint_when_full,
    require_allowed,
)
from runstream.executor.drivers.docker.engine import Engine, EngineEvent
from runstream.executor.drivers.docker.images import Images
from runstream.executor.drivers.docker.pod import DockerPod, PodContainer, PodState
from runstream.executor.drivers.port import Output, Pod, ServiceOutput
from runstream.executor.drivers.registries import PullPolicy
from runstream.executor.drivers.shell import SHELL, SLEEPER
from runstream.executor.limits import Limits
from runstream.executor.sandbox import Visible
from runstream.executor.spawner.client import AgentProxy, Spawner
from runstream.executor.spawner.plan import Plan
from runstream.executor.spec import ExecutorTaskSpec
from runstream.executor.workdir import TaskFolder
from runstream.ids import new_id

REMOVAL = Backoff(1.0, 30.0)
"""Attempts to remove the containers of an ended task: the engine may be away, or this process out of descriptors."""
_CLOSE_SECONDS = 30.0
"""Maximum time for removing containers when the executor stops, in seconds."""

_LIMITED = {"nofile": "open files a process", "fsize": "bytes a file"}
_OUTPUT_KEPT = {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
"""What the engine keeps of a container's output: the executor reads all of it as it comes, and the last lines later."""
_NO_QUOTA = "the engine's storage has no quotas"
_SIGNS_OF_LIMITS = {"nofile": ("type 7:", "NOFILE"), "fsize": ("type 1:", "FSIZE")}
"""How a runtime names the resource limit that it may not set."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DockerRules:
    """The rules for containers on an executor."""

    engine: str
    """`unix:///PATH` or `tcp://HOST:PORT`."""
    tls: Path | None = None
    pull_policy: PullPolicy = "always"
    network: str = ""
    """`none`, `host`, or the name of a network; empty for the engine's default."""
    allow_privileged: bool = False
    visible: Visible = field(default_factory=Visible)
    limits: Limits = field(default_factory=Limits)
    """The limits of each container."""
    disk_bytes: int = 0
    """The maximum size of what a container writes to its root file system; 0 for none. Few engines can enforce it."""


class DockerDriver:
    """A driver for pods."""

    allow_host = False
    allow_pod = True
    sandbox = ""
    archs: tuple[str, ...] = ()

    def __init__(self, executor_id: str, rules: DockerRules) -> None:
        self._executor_id = executor_id
        self._rules = rules
        self._engine = Engine(rules.engine, rules.tls)
        self._images = Images(self._engine, rules.pull_policy)
        self._pods: dict[str, PodState] = {}
        """The pods whose containers may exist, by their ids."""
        self._lower: frozenset[str] = frozenset()
        """Resource limits that the engine cannot raise: those that it has itself are lower, and hold."""
        self._limits_disk = bool(rules.disk_bytes)
        """False once the engine has refused to limit the disk of a container."""
        self._removing: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._changed: Callable[[], None] = lambda: None
        self._spawner = Spawner()

    @property
    def engine(self) -> str:
        """The engine's name and version."""
        return self._engine.version

    @property
    def engine_away(self) -> str:
        """Why the engine cannot be used now."""
        return self._engine.away

    @property
    def engine_cpu(self) -> int:
        """Thousandths of a processor of the engine's machine."""
        return self._engine.cpu

    @property
    def engine_memory(self) -> int:
        """Bytes of memory of the engine's machine."""
        return self._engine.memory

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call `changed` when the engine comes or goes."""
        self._changed = changed

    def act_until(self, until: float, lapsed: Callable[[], None]) -> None:
        """Let agents cut the inputs of sleepers then, which ends their containers."""
        self._spawner.act_until(until, lapsed)

    def expect_tasks(self, expected: bool) -> None:
        """Do nothing: a pod belongs to its task from the beginning."""

    async def setup(self) -> None:
        """Begin to watch the engine, and wait a moment for it."""
        if self._watching is None:
            label = f"{EXECUTOR}={self._executor_id}"
            self._watching = asyncio.create_task(
                self._engine.watch(label, self.sweep, lambda: self._changed(), self._heard)
            )
        await self._engine.reached()

    async def new_pod(
        self, task_id: str, spec: ExecutorTaskSpec, folder: TaskFolder, output: Output, services: ServiceOutput
    ) -> Pod:
        """Pull the images, then create and start the containers."""
        containers = spec.task.runtime.containers
        require_allowed(containers, allow_privileged=self._rules.allow_privileged)
        if self._engine.away:
            raise EngineUnreachableError(self._engine.away)
        for image in dict.fromkeys(container.image for container in containers):
            await self._images.require(image, spec.task.runtime.arch, spec.registries, output)
        output(b"Starting the pod.\n")
        state = PodState(new_id(), task_id)
        self._pods[state.id] = state
        try:
            for index, container in enumerate(containers):
                service = services(index) if index else None
                await self._start(state, index, container, spec.container_environments[index], service)
            if said := self._described():
                output(f"{said}\n".encode())
        except BaseException:
            self._remove_later(state)
            raise
        main = containers[0]
        return DockerPod(
            self._engine,
            state,
            spec.task.user or main.user,
            {**spec.container_environments[0], **spec.environment},
            self._rules.visible,
            output,
            lambda: self._closed(state),
        )

    async def _start(
        self, state: PodState, index: int, container: Container, environment: Mapping[str, str], service: Output | None
    ) -> None:
        config, lower = self._config(state, index, container, environment), self._lower

        async def create() -> DockerContainer:
            async with self._engine.tried() as docker:
                return await docker.containers.create(config)

        # A call that was begun may make the container, also when the task has ended or the engine is back.
        creating = asyncio.ensure_future(create())
        state.creating.add(creating)
        try:
            async with self._engine.asked(None):
                handle = await asyncio.shield(creating)
        except EngineRefusedError as error:
            if "StorageOpt" not in config["HostConfig"] or not _refuses_quota(error.reason):
                raise
            self._limits_disk = False
            state.creating.discard(creating)
            await self._start(state, index, container, environment, service)
            return
        state.creating.discard(creating)
        memory = config["HostConfig"].get("Memory", 0)
        named = "" if memory == container.resources.memory else "executor.task_memory_bytes"
        one = PodContainer(index, container.image, handle, memory, named, "StorageOpt" in config["HostConfig"])
        state.containers.append(one)
        if service is not None or config.get("OpenStdin"):
            await self._hold(state, handle, service)
        try:
            async with self._engine.asked():
                await handle.start()
        except EngineRefusedError as error:
            refused = _refused_limits(error.reason) - lower  # another start may have learnt it meanwhile
            if not refused:
                raise _not_started(container, error.reason) from error
            self._lower |= refused
            state.containers.remove(one)
            await self._delete(handle.id)
            await self._start(state, index, container, environment, service)

    async def _hold(self, state: PodState, handle: DockerContainer, service: Output | None) -> None:
        """Attach to a container that is not started yet: to the output of a service, else to the sleeper's input.

        The input is held open for as long as this process lives: its end ends the container. While this process stands
        still, an agent ends it.
        """
        out = service is not None
        held = asyncio.Event()

        async def hold() -> None:
            with contextlib.suppress(EngineUnreachableError, EngineRefusedError), contextlib.ExitStack() as closing:
                agent: AgentProxy | None = None
                if service is None:
                    agent = await self._spawner.open(Plan(None, None, (), "", ""))
                    closing.callback(agent.close)
                async with (
                    self._engine.asked(None),
                    handle.attach(stdin=service is None, stdout=out, stderr=out) as stream,
                ):
                    if agent is not None:
                        agent.cut_at_end(_connection(stream))
                    held.set()
                    while (message := await stream.read_out()) is not None:
                        if service is not None:
                            service(message.data)

        holding = asyncio.create_task(hold())
        (state.readers if service is None else state.services).append(holding)
        waiting = asyncio.ensure_future(held.wait())
        await asyncio.wait({holding, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if holding.done() and not holding.cancelled():
            holding.result()  # there is no agent; what the engine refuses, it refuses at the start, too

    def _config(
        self, state: PodState, index: int, container: Container, environment: Mapping[str, str]
    ) -> dict[str, Any]:
        network = f"container:{state.containers[0].handle.id}" if index else self._rules.network
        host: dict[str, Any] = {
            "Init": True,
            "Privileged": container.privileged,
            "Tmpfs": {
                volume.path: f"exec,size={volume.tmpfs_size}" if volume.tmpfs_size else "exec"
                for volume in container.volumes
            },
            "LogConfig": _OUTPUT_KEPT,
        }
        if network:
            host["NetworkMode"] = network
        if container.resources.cpu:
            host["NanoCpus"] = container.resources.cpu * 1_000_000
        limits = self._rules.limits
        if memory := limits.memory_of(container.resources.memory):
            host |= {"Memory": memory, "MemorySwap": memory}
        if limits.processes:
            host["PidsLimit"] = limits.processes
        if self._limits_disk:
            host["StorageOpt"] = {"size": str(self._rules.disk_bytes)}
        host["Ulimits"] = [
            {"Name": name, "Soft": value, "Hard": value}
            for name, value in (("nofile", limits.open_files), ("fsize", limits.file_bytes))
            if value and name not in self._lower
        ]
        if not container.privileged:
            host |= {
                "SecurityOpt": ["no-new-privileges"],
                "CapDrop": ["ALL"],
                "CapAdd": list(CAPABILITIES),
            }
        config: dict[str, Any] = {
            "Image": container.image,
            "User": container.user,
            "Labels": {
                OWN: "true",
                EXECUTOR: self._executor_id,
                POD: state.id,
                TASK: state.task,
                INDEX: str(index),
            },
            "HostConfig": host,
        }
        if container.entrypoint:
            config |= {"Entrypoint": [part for part in container.entrypoint.split(" ") if part], "Cmd": []}
        elif not index:
            config |= {"Entrypoint": [SHELL, "-c", SLEEPER], "Cmd": [], "OpenStdin": True, "StdinOnce": True}
        if index or container.entrypoint:
            # Of the main container, commands get it, so that the engine does not show it.
            config["Env"] = [f"{name}={value}" for name, value in environment.items()]
        return config

    def _described(self) -> str:
        """Return the line of the setup log with the limits that each container has, and those that it has not."""
        limits, disk_bytes = self._rules.limits, self._rules.disk_bytes
        if "nofile" in self._lower:
            limits = replace(limits, open_files=0)
        if "fsize" in self._lower:
            limits = replace(limits, file_bytes=0)
        held = [limits.listed()] if limits.listed() else []
        held += [f"{disk_bytes} bytes of disk"] * self._limits_disk
        held += [f"{text} up to the engine's own lower limit" for name, text in _LIMITED.items() if name in self._lower]
        return " ".join(
            [f"Limits of each container: {'; '.join(held)}."] * bool(held)
            + [f"Not enforced in containers: {disk_bytes} bytes of disk: {_NO_QUOTA}."]
            * bool(disk_bytes and not self._limits_disk)
        )

    def _heard(self, event: EngineEvent) -> None:
        state = self._pods.get(event.attributes.get(POD, ""))
        container = state.find(event.container) if state is not None else None
        if state is None or container is None:
            return
        if event.action == "oom":
            container.out_of_memory = True
        elif event.action == "die":
            status = event.attributes.get("exitCode", "")
            container.ended = int(status) if status.isdigit() else 0
            state.changed.set()

    async def _closed(self, state: PodState) -> None:
        self._remove_later(state)

    def _remove_later(self, state: PodState) -> None:
        removing = asyncio.create_task(self._remove(state))
        self._removing.add(removing)
        removing.add_done_callback(self._removing.discard)

    async def _remove(self, state: PodState) -> None:
        def left(error: RunstreamError, _delay: float) -> None:
            log.warning(f"containers of a task are left for now: {error}", action="containers_left", task=state.task)
            state.let_go()  # which ends a sleeper
            self._pods.pop(state.id, None)  # the sweep of an engine that is back removes them, too

        try:
            if state.creating:
                await asyncio.wait(state.creating)
            await retry(lambda: self._delete_all(state), RunstreamError, REMOVAL, left)
        finally:
            self._pods.pop(state.id, None)
            state.let_go()

    async def _delete_all(self, state: PodState) -> None:
        known = [container.handle.id for container in reversed(state.containers)]
        made = [each.result().id for each in state.creating if not each.cancelled() and each.exception() is None]
        for container in dict.fromkeys((*known, *made)):
            await self._delete(container)

    async def _delete(self, container: str) -> None:
        """Kill and remove a container with its anonymous volumes."""
        try:
            async with self._engine.tried() as docker:
                await docker.containers.container(container).delete(force=True, v=True)
        except EngineRefusedError as error:
            if error.status not in (404, 409):  # it is gone, or going
                raise

    async def sweep(self) -> None:
        """Remove the containers of this executor that belong to no living pod."""
        await self._remove_labelled(f"{EXECUTOR}={self._executor_id}", frozenset(self._pods))

    async def end_leftover(self, task_id: str, folder: TaskFolder) -> None:
        """Remove the containers that an earlier process left of a task."""
        alive = frozenset(pod.id for pod in self._pods.values() if pod.task != task_id)
        if not self._engine.away:
            await self._remove_labelled(f"{TASK}={task_id}", alive)

    async def _remove_labelled(self, label: str, kept: frozenset[str]) -> None:
        try:
            async with self._engine.tried() as docker:
                found = await docker.containers.list(all=1, filters=json.dumps({"label": [label, f"{OWN}=true"]}))
        except (EngineUnreachableError, EngineRefusedError) as error:
            log.warning(f"containers may be left until the engine answers: {error}", action="containers_left")
            return
        for container in found:
            labels = container["Labels"]
            if labels.get(EXECUTOR) == self._executor_id and labels.get(POD) not in kept:
                with contextlib.suppress(EngineUnreachableError):  # the next sweep removes it
                    await self._delete(container.id)
                    log.info("removed a leftover container", action="container_removed", container=container.id)

    async def close(self) -> None:
        """Remove the containers that are left, and close the connection."""
        if self._removing:
            await asyncio.wait(self._removing, timeout=0 if self._engine.away else _CLOSE_SECONDS)
        for removing in self._removing:
            removing.cancel()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
            self._watching = None
        await self._engine.close()
        await asyncio.to_thread(self._spawner.close)


def _connection(stream: Stream) -> int:
    """Return the descriptor of a stream's connection; the library gives no other access to it."""
    response = stream._resp  # noqa: SLF001
    if response is None or response.connection is None or response.connection.transport is None:
        raise EngineUnreachableError("the engine has closed the connection to a container")
    return int(response.connection.transport.get_extra_info("socket").fileno())


def _refused_limits(reason: str) -> frozenset[str]:
    """Return the resource limits of a container that the engine may not set, because its own are lower."""
    if "rlimit" not in reason or "not permitted" not in reason:
        return frozenset()
    named = {name for name, signs in _SIGNS_OF_LIMITS.items() if any(sign in reason for sign in signs)}
    return frozenset(named or _SIGNS_OF_LIMITS)


def _refuses_quota(reason: str) -> bool:
    """Return whether a container was refused because the engine's storage cannot limit its disk."""
    return "storage-opt" in reason or ("quota" in reason and "not support" in reason)


def _not_started(container: Container, reason: str) -> BadRequestError:
    hint = hint_when_full(reason)
    if "executable file not found" in reason or "no such file or directory" in reason:
        hint = "check its entrypoint; the image of the first container needs /bin/sh"
    elif "unable to find user" in reason:
        hint = "check the container's `user`"
    elif "esource temporarily unavailable" in reason:
        hint = "executor.task_processes is too low to start a container: set at least 64"
    return BadRequestError(
        f"the container of image {container.image} cannot be started: {reason}", code="containerNotStarted", hint=hint
    )

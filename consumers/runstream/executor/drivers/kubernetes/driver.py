"""A driver that runs tasks in pods of a Kubernetes cluster.

All objects of this executor carry its id and its group's as labels, and those of a task the pod's id. What is removed
is found by these labels alone, so nothing of others is touched. Pods of no living task are removed when the executor
starts and when the API server has come back, and those of executors that are gone by the others of the group.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import structlog
from lightkube import ApiError, AsyncClient
from lightkube.resources.core_v1 import Node, Pod, Secret
from lightkube.types import CascadeType

from runstream.backoff import Backoff, retry
from runstream.errors import BadRequestError, RunstreamError
from runstream.executor.drivers.containers import EXECUTOR, OWN, POD, TASK, EngineRefusedError, EngineUnreachableError
from runstream.executor.drivers.kubernetes.cluster import CONFLICT, FORBIDDEN, GONE, NOT_FOUND, Cluster
from runstream.executor.drivers.kubernetes.group import RENEW_SECONDS, Group
from runstream.executor.drivers.kubernetes.manifests import GROUP, Owner, PodRules, label_value, manifests
from runstream.executor.drivers.kubernetes.pod import KubernetesPod, KubernetesPodState
from runstream.executor.drivers.kubernetes.startup import startup_of
from runstream.executor.drivers.port import Output, ServiceOutput
from runstream.executor.drivers.port import Pod as RunningPod
from runstream.executor.sandbox import Visible
from runstream.executor.spec import ExecutorTaskSpec
from runstream.executor.workdir import TaskFolder
from runstream.ids import new_id
from runstream.lifecycle import StrictTaskGroup

_FIRST_SECONDS = 10.0
"""Time in which the cluster is to answer when the executor starts, in seconds."""
_WATCH_SECONDS = 240
"""Duration of one watch, in seconds."""
_WATCH_AGAIN_SECONDS = 0.1
"""Time between the end of a watch and the next one, in seconds."""
_CLOSE_SECONDS = 30.0
"""Maximum time for removing pods when the executor stops, in seconds."""
_BACKOFF = Backoff(0.1, 2.0, jitter=True)
REMOVAL = Backoff(0.5, 30.0, jitter=True)
"""Attempts to remove the pod of an ended task: the cluster may be away, or this process out of descriptors."""

log = structlog.get_logger()


class KubernetesDriver:
    """A driver for pods."""

    allow_host = False
    allow_pod = True
    sandbox = ""
    engine_cpu = 0
    engine_memory = 0

    def __init__(self, executor_id: str, namespace: str, rules: PodRules, visible: Visible) -> None:
        self.engine = ""
        """`kubernetes` and the version of the API server; empty before it was reached."""
        self.engine_away = "not reached yet"
        """Why the cluster cannot be used now; empty if it can."""
        self.archs: tuple[str, ...] = ()
        """The architectures of the cluster's nodes; empty if they are unknown."""
        self._executor_id = executor_id
        self._rules = rules
        self._visible = visible
        self._cluster = Cluster(namespace)
        self._group = Group(self._cluster, executor_id)
        self._pods: dict[str, KubernetesPodState] = {}
        """The pods that may exist, by their ids."""
        self._removing: dict[str, asyncio.Task[None]] = {}
        self._watching: asyncio.Task[None] | None = None
        self._first = asyncio.Event()
        """Set once the cluster was tried for the first time."""
        self._changed: Callable[[], None] = lambda: None

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call `changed` when the cluster comes or goes."""
        self._changed = changed

    def act_until(self, until: float, lapsed: Callable[[], None]) -> None:
        """Do nothing: a pod lives on while its executor stands still."""

    def expect_tasks(self, expected: bool) -> None:
        """Do nothing: a pod belongs to its task from the beginning."""

    async def setup(self) -> None:
        """Begin to watch the cluster, and wait a moment for it."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_SECONDS):
                await self._first.wait()

    async def new_pod(
        self, task_id: str, spec: ExecutorTaskSpec, folder: TaskFolder, output: Output, services: ServiceOutput
    ) -> RunningPod:
        """Create the pod, and wait until its containers were started."""
        if self.engine_away:
            raise EngineUnreachableError(self.engine_away)
        owner = Owner(self._executor_id, self._group.id)
        pod_id = new_id()
        secret, pod = manifests(owner, pod_id, task_id, spec, self._rules)
        output(b"Starting the pod.\n")
        state = self._pods[pod_id] = KubernetesPodState(pod_id, task_id, spec.task.runtime.containers[0].image)
        try:
            # A call that was begun may have made the pod, whatever becomes of the task.
            creating = asyncio.create_task(self._create(secret, pod))
            state.creating.add(creating)
            await asyncio.shield(creating)
            await self._started(state, output)
        except EngineRefusedError as error:
            self._remove_later(state)
            raise BadRequestError(f"the cluster refused the pod: {error.reason}", code="podRefused") from error
        except BaseException:
            self._remove_later(state)
            raise

        async def removed() -> None:
            self._remove_later(state)

        environment = {**spec.container_environments[0], **spec.environment}
        return KubernetesPod(self._cluster, state, environment, self._visible, output, removed)

    async def _create(self, secret: Secret | None, pod: Pod) -> None:
        for each in (secret, pod):
            if each is None:
                continue

            async def create(client: AsyncClient, wanted: Secret | Pod = each) -> None:
                try:
                    await client.create(wanted)
                except ApiError as error:
                    # An earlier call may have made it, without an answer; its name is of this task alone.
                    if error.status.code != CONFLICT or error.status.reason != "AlreadyExists":
                        raise

            await self._cluster.patiently(create)

    async def _started(self, state: KubernetesPodState, output: Output) -> None:
        """Wait until the containers were started; write what they wait for to the setup log."""
        said, node = "", ""
        while True:
            state.changed.clear()
            if state.gone:
                raise BadRequestError("the pod was removed from the cluster while it started", code="podEnded")
            if state.object is not None:
                startup = startup_of(state.object, state.pull_error)
                chosen = str(state.object.spec.nodeName or "") if state.object.spec is not None else ""
                if chosen != node:
                    node = chosen
                    output(f"The pod is on node {node}.\n".encode())
                if startup.waiting and startup.waiting != said:
                    said = startup.waiting
                    output(f"Waiting: {said}.\n".encode())
                if startup.failed:
                    raise BadRequestError(startup.failed, code=startup.code)
                if startup.started and (reason := state.why_gone()):
                    raise state.ended_error(reason)
                if startup.started:
                    return
            await state.changed.wait()

    async def _watch(self) -> None:
        """Keep `engine` and `engine_away` right, and what is known of the pods, until cancelled."""
        delays = _BACKOFF.delays()
        while True:
            try:
                await self._reach()
                await self.sweep()
                self._set_away("")
                delays = _BACKOFF.delays()
                async with StrictTaskGroup() as group:
                    group.create_task(self._watch_pods())
                    group.create_task(self._keep_lease())
            except* (EngineUnreachableError, EngineRefusedError) as errors:
                self._set_away(str(getattr(errors.exceptions[0], "reason", errors.exceptions[0])))
            except* Exception as errors:  # an answer that no API server gives must not end the watch
                log.exception("the cluster cannot be watched", action="engine_failed")
                self._set_away(str(errors.exceptions[0]) or type(errors.exceptions[0]).__name__)
            await asyncio.sleep(next(delays))

    async def _reach(self) -> None:
        version = await self._cluster.version()
        await self._group.join()
        self.archs = await self._architectures()
        self.engine = f"kubernetes {version}".strip()

    async def _architectures(self) -> tuple[str, ...]:
        """Return the architectures of the nodes; none if this executor may not list them."""
        found = set()
        try:
            async with self._cluster.asked() as client:
                async for node in client.list(Node):
                    if node.status is not None and node.status.nodeInfo is not None:
                        found.add(node.status.nodeInfo.architecture)
        except EngineRefusedError as error:
            if error.status != FORBIDDEN:
                raise
        return tuple(sorted(found))

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            await self._group.renew()
            await self._clean_up()

    async def _watch_pods(self) -> None:
        """Take in the states of this executor's pods. A watch that ends is begun anew, from a list."""
        labels: dict[str, Any] = {OWN: "true", EXECUTOR: label_value(self._executor_id)}
        while True:
            async with self._cluster.asked() as client:
                listing = client.list(Pod, labels=labels)
                found = {_labels(pod).get(POD, ""): pod async for pod in listing}
                version = listing.resourceVersion
            for pod_id, state in self._pods.items():
                if pod_id in found or state.object is not None:
                    state.heard(found.get(pod_id))
            try:
                async with self._cluster.asked(None) as client:
                    watch = client.watch(Pod, labels=labels, resource_version=version, server_timeout=_WATCH_SECONDS)
                    async with contextlib.aclosing(watch) as events:  # type: ignore[type-var]
                        async for change, pod in events:
                            if (known := self._pods.get(_labels(pod).get(POD, ""))) is not None:
                                known.heard(None if change == "DELETED" else pod)
            except EngineRefusedError as error:
                if error.status != GONE:  # the version is too old
                    raise
            except EngineUnreachableError as error:
                log.debug(f"the watch of pods ended: {error}", action="pods_watch_ended")
            await asyncio.sleep(_WATCH_AGAIN_SECONDS)

    def _set_away(self, reason: str) -> None:
        known, self.engine_away = self.engine_away, reason
        first = not self._first.is_set()
        self._first.set()
        if bool(known) != bool(reason) or first:
            if reason:
                log.warning(f"the cluster is unreachable: {reason}", action="engine_away")
            else:
                log.info(f"the cluster is there: {self.engine}", action="engine_there")
            self._changed()

    def _remove_later(self, state: KubernetesPodState) -> None:
        if state.id not in self._removing and state.id in self._pods:
            removing = self._removing[state.id] = asyncio.create_task(self._remove(state))
            removing.add_done_callback(lambda _done: self._removing.pop(state.id, None))

    async def _remove(self, state: KubernetesPodState) -> None:
        def left(error: RunstreamError, _delay: float) -> None:
            log.warning(f"the pod of a task is left for now: {error}", action="pod_left", task=state.task)
            self._pods.pop(state.id, None)  # the sweep of a cluster that is back removes it, too

        async def remove() -> None:
            for kind in (Pod, Secret):
                async with self._cluster.asked() as client:
                    await _deleted(client, kind, state.name)

        try:
            if state.creating:
                await asyncio.wait(state.creating)
            await retry(remove, RunstreamError, REMOVAL, left)
        finally:
            self._pods.pop(state.id, None)

    async def sweep(self) -> None:
        """Remove the objects of this executor that belong to no living task."""
        if not self._group.id:  # the cluster was never reached; it is swept when it is
            return
        try:
            await self._sweep(lambda labels: labels.get(EXECUTOR) == label_value(self._executor_id))
        except EngineUnreachableError as error:
            log.warning(f"pods may be left until the cluster is back: {error}", action="pods_left")

    async def end_leftover(self, task_id: str, folder: TaskFolder) -> None:
        """Remove the objects that an earlier process left of a task."""
        own = label_value(self._executor_id)
        if not self.engine_away:
            with contextlib.suppress(EngineUnreachableError):
                await self._sweep(
                    lambda labels: labels.get(EXECUTOR) == own and labels.get(TASK) == task_id,
                    frozenset(state.id for state in self._pods.values() if state.task == task_id),
                )

    async def _clean_up(self) -> None:
        """Remove the objects of executors of the group that hold no lease."""
        living = await self._group.living()
        await self._sweep(lambda labels: labels.get(EXECUTOR, "") not in living)

    async def _sweep(self, chosen: Callable[[dict[str, str]], bool], ended: frozenset[str] = frozenset()) -> None:
        """Remove the group's pods and secrets that are chosen by their labels, but for those of living pods.

        Pods `ended` are removed though they are known.
        """
        selector: dict[str, Any] = {GROUP: self._group.id, OWN: "true"}
        async with self._cluster.asked() as client:
            found: list[Pod | Secret] = [pod async for pod in client.list(Pod, labels=selector)]
            found += [secret async for secret in client.list(Secret, labels=selector)]
        for each in found:
            pod_id = _labels(each).get(POD, "")
            if not pod_id or (pod_id in self._pods and pod_id not in ended) or not chosen(_labels(each)):
                continue
            name = str(each.metadata.name if each.metadata is not None else "")
            async with self._cluster.asked() as client:
                await _deleted(client, type(each), name)
            log.info("removed what was left of a task", action="pod_removed", object=name)

    async def close(self) -> None:
        """Remove the pods that are left, give the lease back, and close the connection."""
        if self._removing:
            await asyncio.wait(self._removing.values(), timeout=_CLOSE_SECONDS)
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
            self._watching = None
        for removing in self._removing.values():
            removing.cancel()
        if not self.engine_away:
            with contextlib.suppress(EngineUnreachableError, EngineRefusedError):
                await self._group.leave()
        await self._cluster.close()


async def _deleted(client: AsyncClient, kind: type[Pod | Secret], name: str) -> None:
    """Delete an object at once, if it is there."""
    try:
        await client.delete(kind, name, grace_period=0, cascade=CascadeType.BACKGROUND)
    except ApiError as error:
        if error.status.code != NOT_FOUND:
            raise


def _labels(found: Pod | Secret) -> dict[str, str]:
    return (found.metadata.labels or {}) if found.metadata is not None else {}

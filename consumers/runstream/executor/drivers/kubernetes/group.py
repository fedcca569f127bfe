"""The executors of a namespace that clean up after each other.

The id of their group is in a config map. Each holds a lease in the cluster, and renews it. An executor deletes a lease
that it has not seen renewed for a minute, by its own clock, and then removes the pods of executors without a lease. So
the pods of an executor that never comes back do not stay.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import structlog
from lightkube import ApiError, AsyncClient
from lightkube.models.coordination_v1 import LeaseSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.coordination_v1 import Lease
from lightkube.resources.core_v1 import ConfigMap
from lightkube.types import PatchType

from runstream.executor.drivers.containers import EXECUTOR, OWN
from runstream.executor.drivers.kubernetes.cluster import CONFLICT, NOT_FOUND, Cluster
from runstream.executor.drivers.kubernetes.manifests import GROUP, label_value, object_name
from runstream.ids import new_id

CONFIG_MAP, KEY = "runstream-executors-group", "executorsgroupid"
RENEW_SECONDS = 10.0
"""Interval between renewals, in seconds."""
LOST_SECONDS = 60.0
"""Time without a renewal after which a lease is deleted by others, in seconds."""

log = structlog.get_logger()


class Group:
    """The group of an executor, and its lease there."""

    def __init__(self, cluster: Cluster, executor_id: str) -> None:
        self.id = ""
        """Known once it has joined."""
        self._cluster = cluster
        self._executor_id = executor_id
        self._name = f"runstream-executor-{object_name(executor_id)}"
        self._seen: dict[str, tuple[str, float]] = {}
        """Of each lease: its last renewal as written there, and when this was first seen, by the event loop's clock."""

    async def join(self) -> None:
        """Find or make the group, and take the lease."""
        async with self._cluster.asked() as client:
            self.id = await self._found(client) or await self._made(client)
        await self.renew()

    async def renew(self) -> None:
        """Renew the lease; take it anew if another executor has deleted it."""
        async with self._cluster.asked() as client:
            try:
                renewal = {"metadata": {"labels": self._labels()}, "spec": {"renewTime": _now()}}
                await client.patch(Lease, self._name, renewal, patch_type=PatchType.MERGE)
            except ApiError as error:
                if error.status.code != NOT_FOUND:
                    raise
                await client.create(self._lease())

    async def leave(self) -> None:
        """Delete the lease."""
        async with self._cluster.asked() as client:
            await client.delete(Lease, self._name)

    async def living(self) -> frozenset[str]:
        """Return the executors of the group that hold a lease, as their labels say; delete leases that were lost."""
        now = asyncio.get_running_loop().time()
        alive, seen = {label_value(self._executor_id)}, {}
        async with self._cluster.asked() as client:
            async for lease in client.list(Lease, labels={GROUP: self.id, OWN: "true"}):
                name, labels = _name_and_labels(lease)
                renewed = str(lease.spec.renewTime if lease.spec is not None else "")
                before = self._seen.get(name, ("", now))
                seen[name] = before if before[0] == renewed else (renewed, now)
                if name == self._name or now - seen[name][1] < LOST_SECONDS:
                    alive.add(labels.get(EXECUTOR, ""))
                    continue
                log.warning("an executor of the group has not renewed its lease", action="group_lease_lost", lease=name)
                await _deleted(client, name)
                del seen[name]
        self._seen = seen
        return frozenset(alive)

    async def _found(self, client: AsyncClient) -> str:
        try:
            found = await client.get(ConfigMap, CONFIG_MAP)
        except ApiError as error:
            if error.status.code == NOT_FOUND:
                return ""
            raise
        return str((found.data or {}).get(KEY, ""))

    async def _made(self, client: AsyncClient) -> str:
        """Make the group's config map; another executor may be first."""
        group = new_id()
        wanted = ConfigMap(
            apiVersion="v1",
            kind="ConfigMap",
            metadata=ObjectMeta(name=CONFIG_MAP, labels={OWN: "true"}),
            data={KEY: group},
        )
        try:
            await client.create(wanted)
        except ApiError as error:
            if error.status.code == CONFLICT and (found := await self._found(client)):
                return found
            raise
        return group

    def _labels(self) -> dict[str, str]:
        return {OWN: "true", GROUP: self.id, EXECUTOR: label_value(self._executor_id)}

    def _lease(self) -> Lease:
        now = _now()
        return Lease(
            apiVersion="coordination.k8s.io/v1",
            kind="Lease",
            metadata=ObjectMeta(name=self._name, labels=self._labels()),
            spec=LeaseSpec(
                holderIdentity=self._executor_id,
                leaseDurationSeconds=int(LOST_SECONDS),
                acquireTime=now,  # type: ignore[arg-type]  # lightkube has no type for microseconds
                renewTime=now,  # type: ignore[arg-type]
            ),
        )


def _name_and_labels(lease: Lease) -> tuple[str, dict[str, str]]:
    return (str(lease.metadata.name), lease.metadata.labels or {}) if lease.metadata is not None else ("", {})


async def _deleted(client: AsyncClient, name: str) -> None:
    try:
        await client.delete(Lease, name)
    except ApiError as error:
        if error.status.code != NOT_FOUND:
            raise


def _now() -> str:
    """Return the time as the API writes it, in microseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

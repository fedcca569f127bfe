"""Maintenance mode: ask for it, end it, and see how far every process is."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote

import msgspec

from runstream.client.wire import Wire

WAIT_SECONDS = 20.0
"""How long one request waits for a change."""


class Part(msgspec.Struct, frozen=True):
    """One component of a process."""

    doing: str
    """starting, running, draining, parked or stopping."""
    under_way: int
    """How many tasks or requests have to end before it is parked."""


class Instance(msgspec.Struct, frozen=True):
    """One process of the deployment."""

    id: str
    components: tuple[str, ...]
    host: str
    pid: int
    version: str
    state: str
    """running, requested, draining, parked, resumed or lost."""
    last_state: str
    since: datetime | None
    parked: bool
    epoch: int
    parts: dict[str, Part]
    positions: dict[str, int]


class ModeChange(msgspec.Struct, frozen=True):
    """One time that maintenance was enabled or disabled."""

    enabled: bool
    by: str
    why: str
    at: datetime


class Maintenance(msgspec.Struct, frozen=True, rename={"requested": "RequestedStatus", "current": "CurrentStatus"}):
    """One service: what is asked for, and how far everybody is."""

    requested: bool
    current: bool
    """Whether the process that answered is parked."""
    service: str
    parked: bool
    """Whether everybody who is not lost is parked."""
    by: str
    reason: str
    since: datetime | None
    deadline: datetime | None
    instances: tuple[Instance, ...]
    history: tuple[ModeChange, ...]
    tag: str

    @property
    def resumed(self) -> bool:
        """Whether everybody who is not lost works."""
        return not self.requested and all(one.state in ("running", "lost") for one in self.instances)


class _Order(msgspec.Struct, omit_defaults=True):
    by: str = ""
    reason: str = ""
    deadline: str = ""


class MaintenanceMode:
    """What can be asked about maintenance. `service` is `runs`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def status(self, service: str = "runs", *, unlike: str = "") -> Maintenance:
        """How it is. With the tag of an answer as `unlike`: when it is another, or after some time anyway."""
        params = {"unlike": unlike, "seconds": WAIT_SECONDS} if unlike else {}
        return await self._wire.read(_path(service), Maintenance, params)

    async def enable(self, service: str = "runs", *, by: str = "", reason: str = "", deadline: str = "") -> Maintenance:
        """Ask for maintenance; answered at once. `deadline` is a duration such as `10m`, after which running tasks
        are stopped. Raises ClientError (bad-request) when it is enabled already."""
        return await self._wire.write("PUT", _path(service), _Order(by, reason, deadline), Maintenance)

    async def disable(self, service: str = "runs", *, by: str = "", reason: str = "") -> Maintenance:
        """Ask for its end. Raises ClientError: bad-request when it is disabled, conflict while an import runs."""
        return await self._wire.write("DELETE", _path(service), _Order(by, reason), Maintenance)

    async def forget(self, instance_id: str, service: str = "runs") -> None:
        """Forget a lost process. Raises ClientError: not-exist, bad-request for one that is not lost."""
        path = f"{_path(service)}/instances/{quote(instance_id, safe='')}"
        await self._wire.write("DELETE", path, None, type(None))


def _path(service: str) -> str:
    return f"/maintenance/{quote(service, safe='')}"

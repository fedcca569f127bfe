"""The request for maintenance: what the key `maintenance.<service>` holds, and how it changes.

The key stays once it exists. Each change has an id, which an instance repeats when it reports that it is parked, so a
report about an earlier maintenance is never taken for this one. The last changes, with author and reason, are part of
the value: a change and its record are one write. A change is a compare-and-set, so a kill leaves the old value or the
new one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec
import structlog
from nats.aio.client import Client

from runstream.errors import BadRequestError, ConflictError, InternalError, NotExistError
from runstream.jetstream.api import WRONG_SEQUENCE, ApiError, UnavailableError, last_message, publish

SERVICE = "runs"
SERVICES = (SERVICE,)
"""The services that can be in maintenance."""
_LATER = frozenset({"config"})
HISTORY = 20
"""How many changes are kept."""
_MAX_BY = 200
_MAX_WHY = 1000


@dataclass(frozen=True, slots=True)
class Change:
    """One time that maintenance was enabled or disabled."""

    enabled: bool
    by: str
    why: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Requested:
    """What is asked for now."""

    id: str
    """Of the last change."""
    enabled: bool
    by: str
    why: str
    since: datetime
    deadline: datetime | None = None
    """When executors stop the tasks that still run; None lets them end."""
    occupied: str = ""
    """Which work needs the service to stay in maintenance; only its lease says whether it still goes on."""
    history: tuple[Change, ...] = ()
    """The last changes with this one, the oldest first."""


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants to change."""

    id: str
    by: str
    why: str
    at: datetime
    deadline: datetime | None = None


def enabled(before: Requested | None, order: Order) -> Requested:
    """What the key says after maintenance was enabled. Raises BadRequestError when it was before."""
    if before is not None and before.enabled:
        raise BadRequestError(
            "maintenance mode already enabled",
            code="maintenanceAlreadyEnabled",
            details={"by": before.by, "why": before.why, "since": before.since.isoformat()},
            hint="`runstream maintenance status` shows who asked for it, and how far it is",
        )
    return _changed(before, order, enabled=True)


def disabled(before: Requested | None, order: Order) -> Requested:
    """What the key says after maintenance was disabled. Raises BadRequestError when it was not enabled."""
    if before is None or not before.enabled:
        raise BadRequestError("maintenance mode already disabled", code="maintenanceAlreadyDisabled")
    return _changed(before, replace(order, deadline=None), enabled=False)


def _changed(before: Requested | None, order: Order, *, enabled: bool) -> Requested:
    change = Change(enabled, order.by, order.why, order.at)
    history = (*(before.history if before is not None else ()), change)[-HISTORY:]
    return Requested(order.id, enabled, order.by, order.why, order.at, order.deadline, "", history)


def require_service(name: str) -> str:
    """The name, if a service of this name can be in maintenance.

    Raises NotExistError for one that this version does not have, BadRequestError for what is no service.
    """
    if name in SERVICES:
        return name
    if name in _LATER:
        raise NotExistError(
            f"service {name!r} doesn't exist", code="serviceDoesNotExist", hint=f"there is {', '.join(SERVICES)}"
        )
    raise BadRequestError(
        f"{name[:80]!r} is not the name of a service", code="unknownService", hint=f"there is {', '.join(SERVICES)}"
    )


def require_said(by: str, why: str) -> None:
    """Raises BadRequestError unless who and why are short texts of one line."""
    for what, text, limit in (("by", by, _MAX_BY), ("reason", why, _MAX_WHY)):
        if len(text) > limit or not text.isprintable():
            raise BadRequestError(
                f"{what} is not a text of one line with at most {limit} characters", code="invalidMaintenanceRecord"
            )


def encode_requested(requested: Requested) -> bytes:
    """The key's value."""
    return msgspec.json.encode(requested)


def decode_requested(value: bytes, stored_at: datetime) -> Requested:
    """What the value says; one that cannot be read asks for maintenance, because that harms nothing."""
    try:
        return msgspec.json.decode(value, type=Requested)
    except (ValueError, RecursionError) as error:
        why = f"the key of maintenance cannot be read: {error}"
        return Requested("unreadable", enabled=True, by="", why=why, since=stored_at)


_ATTEMPTS = 10
log = structlog.get_logger()


class MaintenanceControl:
    """Reads and changes what is asked for, in the KV bucket `<namespace>_control`."""

    def __init__(
        self, nc: Client, namespace: str, *, before_disabling: Callable[[str], Awaitable[None]] | None = None
    ) -> None:
        """`before_disabling` is called with the service: what has to be in order before instances go on."""
        self._nc = nc
        self._namespace = namespace
        self._before_disabling = before_disabling

    async def requested(self, service: str) -> Requested | None:
        """What the leader of the bucket has; None when nobody ever asked. Raises UnavailableError."""
        return (await self._read(service))[0]

    async def enable(self, service: str, order: Order) -> Requested:
        """Ask for maintenance. Raises BadRequestError when it is enabled already, UnavailableError."""
        done = await self.change(service, order.id, lambda before: enabled(before, order))
        log.info(
            f"Maintenance of {service} is enabled",
            action="maintenance_enabled",
            service=service,
            by=done.by,
            why=done.why,
        )
        return done

    async def disable(self, service: str, order: Order) -> Requested:
        """Ask for its end. Raises BadRequestError when it is disabled already, ConflictError while work goes on
        that needs it, UnavailableError."""
        before, _ = await self._read(service)
        disabled(before, order)
        if self._before_disabling is not None:
            await self._before_disabling(service)
        done = await self.change(service, order.id, lambda before: disabled(before, order), free=True)
        log.info(
            f"Maintenance of {service} is disabled",
            action="maintenance_disabled",
            service=service,
            by=done.by,
            why=done.why,
        )
        return done

    async def change(
        self,
        service: str,
        change_id: str,
        change: Callable[[Requested | None], Requested],
        *,
        free: bool = False,
    ) -> Requested:
        """Change the key from what it says now; again when somebody else was first.

        With `free` only while nothing needs the maintenance. Raises what `change` raises, ConflictError, and
        UnavailableError.
        """
        for _ in range(_ATTEMPTS):
            before, sequence = await self._read(service)
            if before is not None and change_id in (before.id, before.occupied):
                return before  # An earlier attempt of this change was stored, and its answer was lost.
            after = change(before)
            if free and before is not None:
                await self._require_free(service, before)
            headers = {"Nats-Expected-Last-Subject-Sequence": str(sequence)}
            try:
                await publish(self._nc, self._subject(service), encode_requested(after), headers)
            except ApiError as error:
                if error.number not in WRONG_SEQUENCE:
                    raise
            except UnavailableError as error:
                log.debug("whether maintenance changed is looked up", action="maintenance_unsure", why=error.message)
            else:
                return after
        raise InternalError(
            f"maintenance of {service} could not be changed: others change it all the time, or NATS does not answer",
            code="maintenanceUnchanged",
            hint="`runstream maintenance status` shows what holds; then try again",
        )

    async def _read(self, service: str) -> tuple[Requested | None, int]:
        found = await last_message(self._nc, f"KV_{self._namespace}_control", self._subject(service))
        if found is None:
            return None, 0
        return (decode_requested(found.data, found.time) if found.data else None), found.sequence

    async def _require_free(self, service: str, before: Requested) -> None:
        if not before.occupied:
            return
        bucket = f"{self._namespace}_instances"
        found = await last_message(self._nc, f"KV_{bucket}", f"$KV.{bucket}.{occupied_key(service)}")
        if found is not None and found.data:
            raise ConflictError(
                f"maintenance of {service} cannot end now: {found.data.decode()} needs it",
                code="maintenanceOccupied",
                hint="wait for its end, or stop it; if it is dead, this works within seconds",
            )

    def _subject(self, service: str) -> str:
        return f"$KV.{self._namespace}_control.{maintenance_key(service)}"


def maintenance_key(service: str) -> str:
    """The key in the bucket `<namespace>_control`."""
    return f"maintenance.{service}"


def occupied_key(service: str) -> str:
    """The key of the lease, in the bucket `<namespace>_instances`, of work that needs a service in maintenance."""
    return f"occupied.{service}"

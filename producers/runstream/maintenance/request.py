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

from runstream.api import ModeChange
from runstream.errors import BadRequestError, ConflictError, InternalError
from runstream.jetstream.api import WRONG_SEQUENCE, ApiError, UnavailableError, last_message, publish

SERVICE = "runs"
SERVICES = (SERVICE, "config")
"""The services that can be in maintenance, each by itself."""
_ALIASES = {"runservice": "runs", "configstore": "config"}
"""The names that clients of the model have for them."""
HISTORY = 20
"""Number of changes that the key keeps."""
_MAX_BY = 200
_MAX_WHY = 1000
_ATTEMPTS = 10
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Requested:
    """The current request: whether maintenance is enabled, since when, by whom and why."""

    id: str
    """The id of the last change."""
    enabled: bool
    by: str
    why: str
    since: datetime
    deadline: datetime | None = None
    """Time at which executors stop the tasks that still run; None lets the tasks end."""
    occupied: str = ""
    """The id of the lock that needs the maintenance; only its lease says whether it still lasts."""
    history: tuple[ModeChange, ...] = ()
    """The last changes, this one included, oldest first."""


@dataclass(frozen=True, slots=True)
class Order:
    """A user's order to enable or disable maintenance."""

    id: str
    by: str
    why: str
    at: datetime
    deadline: datetime | None = None


def enabled(before: Requested | None, order: Order) -> Requested:
    """Return the request after enabling maintenance. Raise BadRequestError when it is enabled already."""
    if before is not None and before.enabled:
        raise BadRequestError(
            "maintenance mode already enabled",
            code="maintenanceAlreadyEnabled",
            details={"by": before.by, "why": before.why, "since": before.since.isoformat()},
            hint="`runstream maintenance status` shows who asked for it, and how far it is",
        )
    return _changed(before, order, enabled=True)


def disabled(before: Requested | None, order: Order) -> Requested:
    """Return the request after disabling maintenance. Raise BadRequestError when it is disabled already."""
    if before is None or not before.enabled:
        raise BadRequestError("maintenance mode already disabled", code="maintenanceAlreadyDisabled")
    return _changed(before, replace(order, deadline=None), enabled=False)


def _changed(before: Requested | None, order: Order, *, enabled: bool) -> Requested:
    change = ModeChange(enabled, order.by, order.why, order.at)
    history = (*(before.history if before is not None else ()), change)[-HISTORY:]
    return Requested(order.id, enabled, order.by, order.why, order.at, order.deadline, "", history)


def require_service(name: str) -> str:
    """Return the name of a service; `runservice` and `configstore`, as the model names them, are accepted.

    Raise BadRequestError for any other name.
    """
    name = _ALIASES.get(name, name)
    if name in SERVICES:
        return name
    raise BadRequestError(
        f"{name[:80]!r} is not the name of a service", code="unknownService", hint=f"there is {' and '.join(SERVICES)}"
    )


def require_author_and_reason(by: str, why: str) -> None:
    """Raise BadRequestError unless author and reason are short texts of one line."""
    for what, text, limit in (("by", by, _MAX_BY), ("reason", why, _MAX_WHY)):
        if len(text) > limit or not text.isprintable():
            raise BadRequestError(
                f"{what} is not a text of one line with at most {limit} characters", code="invalidMaintenanceRecord"
            )


def encode_requested(requested: Requested) -> bytes:
    """Return the key's value."""
    return msgspec.json.encode(requested)


def decode_requested(value: bytes, stored_at: datetime) -> Requested:
    """Return the request in a value. An unreadable value requests maintenance, which is the safe side."""
    try:
        return msgspec.json.decode(value, type=Requested)
    except (ValueError, RecursionError) as error:
        why = f"the key of maintenance cannot be read: {error}"
        return Requested("unreadable", enabled=True, by="", why=why, since=stored_at)


class MaintenanceControl:
    """The reader and writer of the request, in the KV bucket `<namespace>_control`."""

    def __init__(
        self, nc: Client, namespace: str, *, before_disabling: Callable[[str], Awaitable[None]] | None = None
    ) -> None:
        """`before_disabling` is called with the service, and repairs what instances need before they resume."""
        self._nc = nc
        self._namespace = namespace
        self._before_disabling = before_disabling

    async def requested(self, service: str) -> Requested | None:
        """Return the request from the bucket's leader; None before the first one. Raise UnavailableError."""
        return (await self._read(service))[0]

    async def enable(self, service: str, order: Order) -> Requested:
        """Enable maintenance. Raise BadRequestError when it is enabled already, UnavailableError."""
        done = await self.change(service, order.id, lambda before: enabled(before, order))
        action = "maintenance_enabled"
        log.info(f"Maintenance of {service} is enabled", action=action, service=service, by=done.by, why=done.why)
        return done

    async def disable(self, service: str, order: Order) -> Requested:
        """Disable maintenance.

        Raise BadRequestError when it is disabled already, ConflictError while a lock needs it, UnavailableError.
        """
        before, _ = await self._read(service)
        disabled(before, order)
        if self._before_disabling is not None:
            await self._before_disabling(service)
        done = await self.change(service, order.id, lambda before: disabled(before, order), free=True)
        action = "maintenance_disabled"
        log.info(f"Maintenance of {service} is disabled", action=action, service=service, by=done.by, why=done.why)
        return done

    async def change(
        self,
        service: str,
        change_id: str,
        change: Callable[[Requested | None], Requested],
        *,
        free: bool = False,
    ) -> Requested:
        """Change the key from its current value; try again when another writer won.

        With `free`, only while no lock needs the maintenance. Raise what `change` raises, ConflictError, and
        UnavailableError.
        """
        for _ in range(_ATTEMPTS):
            before, sequence = await self._read(service)
            if before is not None and change_id in (before.id, before.occupied):
                return before  # an earlier attempt was stored, and its acknowledgement was lost
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
                log.debug(
                    "the answer to a change of maintenance was lost: reading the key again",
                    action="maintenance_unsure",
                    why=error.message,
                )
            else:
                return after
        raise InternalError(
            f"cannot change maintenance of {service}: other changes won {_ATTEMPTS} times, or NATS does not answer",
            code="maintenanceUnchanged",
            hint="see `runstream maintenance status`, then try again",
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
        found = await last_message(self._nc, f"KV_{bucket}", f"$KV.{bucket}.{lock_key(service)}")
        if found is not None and found.data:
            raise ConflictError(
                f"cannot disable maintenance of {service}: {found.data.decode()} needs it",
                code="maintenanceOccupied",
                hint="wait until it ends, or stop it; after a kill its lease expires within seconds",
            )

    def _subject(self, service: str) -> str:
        return f"$KV.{self._namespace}_control.{maintenance_key(service)}"


def maintenance_key(service: str) -> str:
    """Return the request's key in the bucket `<namespace>_control`."""
    return f"maintenance.{service}"


def lock_key(service: str) -> str:
    """Return the key of a lock's lease in the bucket `<namespace>_instances`."""
    return f"occupied.{service}"

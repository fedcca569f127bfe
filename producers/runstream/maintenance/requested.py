"""Whether maintenance of a service is asked for: what the key `maintenance.<service>` says, and how it changes.

The key is there from the first time on. Each change has an id, which an instance repeats when it says that it is
parked: nobody takes what it said about an earlier maintenance for this one. Who changed it and why stays in the
key for the last changes, so that a change and its record are one write.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from runstream.errors import BadRequestError, NotExistError

SERVICES = ("runs",)
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

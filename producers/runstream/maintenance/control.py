"""Enabling and disabling maintenance: one compare-and-set of the key; a kill leaves the old state or the new."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from nats.aio.client import Client

from runstream.errors import ConflictError, InternalError
from runstream.jetstream.api import WRONG_SEQUENCE, ApiError, UnavailableError, last_message, publish
from runstream.maintenance.requested import (
    Order,
    Requested,
    decode_requested,
    disabled,
    enabled,
    encode_requested,
)

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

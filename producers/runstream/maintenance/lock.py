"""The exclusive right to work on a service while every instance is parked.

    all parked -> lease on `maintenance_lock.<service>` -> the key names the lock -> still all parked -> work

Disabling maintenance looks for that lease and then changes the key from the value it read, so whichever of the two
comes second finds the other. Killed work blocks for no longer than its lease.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace

from nats.aio.client import Client

from runstream.errors import BadRequestError, ConflictError, first_of
from runstream.ids import new_id
from runstream.leases import Lease, LeaseBucket
from runstream.lifecycle import StrictTaskGroup
from runstream.log.streams import create_control_bucket
from runstream.maintenance.instances import KnownInstance, open_instance_leases, read_instances
from runstream.maintenance.request import SERVICE, MaintenanceControl, Requested, lock_key
from runstream.settings import Settings


async def require_parked(
    control: MaintenanceControl, board: LeaseBucket, service: str = "runs", *, without_lost: bool = False
) -> Requested:
    """Return the current request, read from NATS, if every instance is parked for it.

    An instance that was lost before it parked counts as not parked, because it may only be unreachable;
    `without_lost` ignores lost instances. Raise BadRequestError when maintenance is not enabled, ConflictError that
    names each instance that is not parked, UnavailableError.
    """
    requested = await control.requested(service)
    if requested is None or not requested.enabled:
        raise BadRequestError(
            f"the service {service} is not in maintenance mode",
            code="notInMaintenance",
            hint="enable it first: runstream maintenance enable --service all --wait",
        )
    missing = [
        known
        for known in await read_instances(board)
        if not known.is_parked(service, requested.id) and not (known.lost and without_lost)
    ]
    if missing:
        raise _not_parked(service, missing)
    return requested


def _not_parked(service: str, missing: Iterable[KnownInstance]) -> ConflictError:
    states = [f"{known.title} is {_word(known, service)}" for known in missing]
    lost = [known.record.id for known in missing if known.lost]
    hint = "wait for all with `runstream maintenance enable --wait`; `runstream maintenance status` shows each"
    if lost:
        hint = f"make sure that the lost process has ended, then: runstream maintenance forget {lost[0]}"
    return ConflictError(
        f"not every instance is parked: {'; '.join(states)}",
        code="notParked",
        details={"instances": [known.record.id for known in missing], "lost": lost},
        hint=hint,
    )


def _word(known: KnownInstance, service: str) -> str:
    state = known.state(service)
    return state.value if state is not None else "of another version"


@dataclass(frozen=True, slots=True)
class MaintenanceLock:
    """The right to work while all instances are parked; call `require` before each irreversible step."""

    _control: MaintenanceControl
    _lease: Lease
    _id: str
    service: str
    requested: Requested

    async def require(self) -> None:
        """Raise ConflictError when the maintenance may have ended meanwhile, UnavailableError."""
        now = await self._control.requested(self.service)
        if not self._lease.trusted or now is None or not now.enabled or now.occupied != self._id:
            raise ConflictError(
                f"maintenance of {self.service} has ended meanwhile, or this process was cut off",
                code="occupationLost",
                hint="nothing was switched; start again",
            )


@asynccontextmanager
async def maintenance_lock(
    nc: Client,
    control: MaintenanceControl,
    board: LeaseBucket,
    what: str,
    service: str = "runs",
    *,
    without_lost: bool = False,
) -> AsyncIterator[MaintenanceLock]:
    """Keep the service in maintenance while the block lasts; `what` names the work to users who try to end it.

    Raise what `require_parked` raises, and ConflictError while other work holds it. When the lease is
    lost, the block is cancelled and InternalError is raised.
    """
    await require_parked(control, board, service, without_lost=without_lost)
    await _require_free(board, service)
    lease = Lease(nc, board.bucket, lock_key(service), what.encode, board.seconds)
    lock_id = new_id()
    try:
        async with StrictTaskGroup() as tasks:
            holding = tasks.create_task(lease.run())
            await lease.held.wait()
            await control.change(service, lock_id, lambda before: _locked(before, lock_id))
            requested = await require_parked(control, board, service, without_lost=without_lost)
            yield MaintenanceLock(control, lease, lock_id, service, requested)
            holding.cancel()
    except BaseExceptionGroup as group:
        raise first_of(group) from group


def _locked(before: Requested | None, lock_id: str) -> Requested:
    if before is None or not before.enabled:
        raise BadRequestError("not in maintenance mode", code="notInMaintenance")
    return replace(before, occupied=lock_id)


async def _require_free(board: LeaseBucket, service: str) -> None:
    async with board.watching(lock_key(service)) as watch:
        for what in watch.held.values():
            raise ConflictError(
                f"{what.decode()} is already in progress",
                code="maintenanceOccupied",
                hint=f"wait until it ends, or stop it; after a kill its lease expires within {board.seconds} seconds",
            )


@dataclass(frozen=True, slots=True)
class MaintainedService:
    """A service that can be in maintenance, for work that needs all of it parked."""

    nats: Client
    control: MaintenanceControl
    board: LeaseBucket
    service: str = SERVICE

    def hold(self, what: str) -> AbstractAsyncContextManager[MaintenanceLock]:
        """Keep every instance parked while the block lasts; raise as `maintenance_lock` does."""
        return maintenance_lock(self.nats, self.control, self.board, what, self.service)

    async def require_parked(self) -> None:
        """Raise BadRequestError outside maintenance, ConflictError that names each instance that is not parked."""
        await require_parked(self.control, self.board, self.service)


async def maintained_service(client: Client, settings: Settings, service: str = SERVICE) -> MaintainedService:
    """Return the service of these settings; create its buckets where they are missing."""
    await create_control_bucket(client, settings.namespace, settings.replicas)
    control, board = MaintenanceControl(client, settings.namespace), await open_instance_leases(client, settings)
    return MaintainedService(client, control, board, service)

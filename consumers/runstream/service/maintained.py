"""What work on a whole service rests on: that everybody is parked, as a command and as the gateway ask for it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from nats.aio.client import Client

from runstream.leases import LeaseBucket, open_leases
from runstream.log import streams
from runstream.maintenance import MaintenanceControl, Occupation, occupied, require_parked
from runstream.settings import Settings

INSTANCE_SECONDS = 3
"""How long a process that says nothing counts as alive; partitions are free when its database session ends."""
SERVICE = "runs"


@dataclass(frozen=True, slots=True)
class Maintained:
    """A service that can be in maintenance."""

    nats: Client
    control: MaintenanceControl
    board: LeaseBucket

    def occupy(self, what: str) -> AbstractAsyncContextManager[Occupation]:
        """Keep everybody parked while the block lasts. Raises when somebody is not."""
        return occupied(self.nats, self.control, self.board, what, SERVICE)

    async def require_parked(self) -> None:
        """Raises BadRequestError outside maintenance, ConflictError that names who is not parked."""
        await require_parked(self.control, self.board, SERVICE)


async def maintained_service(client: Client, settings: Settings) -> Maintained:
    """The service of these settings."""
    await streams.create_control_bucket(client, settings.namespace, settings.replicas)
    board = await open_leases(
        client, f"{settings.namespace}_instances", seconds=INSTANCE_SECONDS, replicas=settings.replicas
    )
    return Maintained(client, MaintenanceControl(client, settings.namespace), board)

"""How much of its store a JetStream account uses, and what it may use."""

from __future__ import annotations

from dataclasses import dataclass

from nats.aio.client import Client

from runstream.jetstream.api import REQUEST_SECONDS, request


@dataclass(frozen=True, slots=True)
class StoreUse:
    """Bytes on disk, as the account sees them."""

    used: int
    limit: int | None
    """None: the account has none. The server's own limit is known to its system account alone."""

    @property
    def left(self) -> int | None:
        """What the account may still store; None where it has no limit."""
        return None if self.limit is None else max(self.limit - self.used, 0)

    def __str__(self) -> str:
        if self.limit is None:
            return f"{self.used >> 20} MiB used, no limit"
        return f"{self.used >> 20} of {self.limit >> 20} MiB used, {(self.left or 0) >> 20} MiB left"


async def store_use(nc: Client, *, seconds: float = REQUEST_SECONDS) -> StoreUse:
    """Return what the account of this connection uses. Raises UnavailableError."""
    account = await request(nc, "INFO", seconds=seconds)
    limit = int(account["limits"]["max_storage"])
    return StoreUse(int(account["storage"]), limit if limit >= 0 else None)

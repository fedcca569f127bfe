"""How much of its store a JetStream account uses, and what it may use."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from nats.aio.client import Client

from runstream.jetstream.api import REQUEST_SECONDS, request

FULL_BYTES = 1 << 20
"""A store with less left is full: a commit may be that large."""


@dataclass(frozen=True, slots=True)
class StoreUse:
    """Bytes on disk, as the account sees them."""

    used: int
    limit: int | None
    """None: the account has none. The server's own limit is known to its system account alone."""
    free: int | None = None
    """Free on the disk of the store; None where that is the disk of another machine."""

    @property
    def left(self) -> int | None:
        """What can still be stored, by limit and disk; None where neither is known."""
        known = [] if self.limit is None else [max(self.limit - self.used, 0)]
        return min([*known, *([] if self.free is None else [self.free])], default=None)

    @property
    def full(self) -> bool:
        """Whether less is left than a commit may take."""
        return self.left is not None and self.left < FULL_BYTES

    def __str__(self) -> str:
        limit = "" if self.limit is None else f" of {self.limit >> 20}"
        left = "no limit" if self.left is None else f"{self.left >> 20} MiB left"
        return f"{self.used >> 20}{limit} MiB used, {left}{' on its disk' if self._short_of_disk else ''}"

    @property
    def _short_of_disk(self) -> bool:
        return self.free is not None and self.left == self.free


async def store_use(nc: Client, folder: Path | None = None, *, seconds: float = REQUEST_SECONDS) -> StoreUse:
    """Return what the account of this connection uses. Raises UnavailableError.

    `folder` is the server's, where it is on this machine.
    """
    account = await request(nc, "INFO", seconds=seconds)
    limit = int(account["limits"]["max_storage"])
    free = None if folder is None else shutil.disk_usage(folder).free
    return StoreUse(int(account["storage"]), limit if limit >= 0 else None, free)

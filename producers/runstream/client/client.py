"""The client itself: one connection pool, and what can be asked for, by subject."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from runstream.client.events import Events
from runstream.client.executors import Executors
from runstream.client.local import default_data_dir, local_service
from runstream.client.logs import Logs
from runstream.client.maintenance import MaintenanceMode
from runstream.client.retrying import WAIT_SECONDS, Waiting, silent
from runstream.client.runs import Runs
from runstream.client.snapshots import Snapshots
from runstream.client.types import Readiness, Service
from runstream.client.wire import Wire


class Client:
    """One service, reached at `url` with `token`. Used as `async with Client(…) as client:`.

    A service that answers that it waits for NATS or Postgres is asked again for `wait_seconds`, and so is one whose
    stream broke off; `waiting` is called with the reason. Requests that create something are only sent again with an
    idempotency key. `detailed_errors` asks the service for the chain of causes of each error; `transport` replaces the
    network in tests.
    """

    runs: Runs
    """Create, restart, read, list, stop, approve … runs."""
    logs: Logs
    """Read and follow what tasks wrote."""
    events: Events
    """Follow the log, from any place."""
    executors: Executors
    """List and remove executors."""
    snapshots: Snapshots
    """Export the log, import a snapshot."""
    maintenance: MaintenanceMode
    """Enable and disable maintenance mode, and read how far it is."""

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        detailed_errors: bool = False,
        transport: httpx2.AsyncBaseTransport | None = None,
        wait_seconds: float = WAIT_SECONDS,
        waiting: Waiting = silent,
    ) -> None:
        self._wire = Wire(
            url,
            token,
            detailed_errors=detailed_errors,
            transport=transport,
            wait_seconds=wait_seconds,
            waiting=waiting,
        )
        self.runs = Runs(self._wire)
        self.logs = Logs(self._wire)
        self.events = Events(self._wire)
        self.executors = Executors(self._wire)
        self.snapshots = Snapshots(self._wire)
        self.maintenance = MaintenanceMode(self._wire)

    @classmethod
    def local(cls, data_dir: str | Path | None = None, *, detailed_errors: bool = False) -> Self:
        """Return a client of the service that the command line would use in the same environment.

        Without `data_dir` that is RUNSTREAM_URL with RUNSTREAM_TOKEN, where it is set; else the service of
        RUNSTREAM_DATA_DIR, else of the user's data folder. Raises ClientError (not-exist) where none is running.
        """
        url = os.environ.get("RUNSTREAM_URL", "")
        if data_dir is None and url:
            return cls(url, token=os.environ.get("RUNSTREAM_TOKEN", ""), detailed_errors=detailed_errors)
        service = local_service(default_data_dir() if data_dir is None else Path(data_dir).expanduser())
        return cls(service.url, token=service.token, detailed_errors=detailed_errors)

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._wire.url

    async def version(self) -> Service:
        """What answers, and in which version. Needs no token."""
        return await self._wire.read("/version", Service)

    async def readiness(self) -> Readiness:
        """Return what the service is waiting for, if anything. Needs no token."""
        return await self._wire.readiness()

    async def close(self) -> None:
        """Close all connections."""
        await self._wire.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

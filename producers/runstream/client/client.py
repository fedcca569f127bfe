"""The client itself: one connection pool, and what can be asked for, by subject."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import httpx2

from runstream.client.events import Events
from runstream.client.executors import Executors
from runstream.client.logs import Logs
from runstream.client.maintenance import MaintenanceMode
from runstream.client.runs import Runs
from runstream.client.snapshots import Snapshots
from runstream.client.types import Service
from runstream.client.wire import Wire


class Client:
    """One service, reached at `url` with `token`. Used as `async with Client(…) as client:`.

    `detailed_errors` asks the service for the chain of causes of each error; `transport` replaces the network
    in tests.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        detailed_errors: bool = False,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._wire = Wire(url, token, detailed_errors=detailed_errors, transport=transport)
        self.runs = Runs(self._wire)
        self.logs = Logs(self._wire)
        self.events = Events(self._wire)
        self.executors = Executors(self._wire)
        self.snapshots = Snapshots(self._wire)
        self.maintenance = MaintenanceMode(self._wire)

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._wire.url

    async def version(self) -> Service:
        """What answers, and in which version. Needs no token."""
        return await self._wire.read("/version", Service)

    async def close(self) -> None:
        """Close all connections."""
        await self._wire.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

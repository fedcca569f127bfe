"""The embedded servers that this process needs: those for which no URL was given."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import structlog

from runstream.embedded import NatsServer, PostgresServer
from runstream.errors import InternalError
from runstream.settings import Settings

_RESTART_SECONDS = 0.1
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Servers:
    """What is embedded in this process; None is somebody else's, reached by URL."""

    nats: NatsServer | None
    postgres: PostgresServer | None

    async def first_death(self) -> InternalError:
        """Wait until one of them ends by itself, and say so."""
        if not self._all():
            await asyncio.Event().wait()
        waiting = [asyncio.create_task(_death(server)) for server in self._all()]
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for task in waiting:
                task.cancel()

    async def stop(self, seconds: float) -> None:
        """Stop them; after these seconds, kill them."""
        async with asyncio.TaskGroup() as group:
            for server in self._all():
                group.create_task(server.stop(seconds))

    def _all(self) -> list[NatsServer | PostgresServer]:
        return [server for server in (self.nats, self.postgres) if server is not None]


@contextlib.asynccontextmanager
async def embedded_servers(
    settings: Settings, *, database: bool, stop_seconds: Callable[[], float]
) -> AsyncIterator[tuple[Servers, Settings]]:
    """Start what has no URL; gives the servers and the settings with all URLs in place.

    `database`: whether any component of this process needs Postgres at all. `stop_seconds` is asked at the end:
    how long the servers may take to stop.
    """
    nats = NatsServer(settings.data_dir / "nats") if not settings.nats_url else None
    postgres = PostgresServer(settings.data_dir / "postgres") if database and not settings.database_url else None
    servers = Servers(nats, postgres)
    try:
        try:
            async with asyncio.TaskGroup() as group:
                for server in (nats, postgres):
                    if server is not None:
                        group.create_task(server.start())
        except* InternalError as errors:
            raise errors.exceptions[0] from errors
        if nats is not None:
            settings = replace(settings, nats_url=nats.url)
        if postgres is not None:
            settings = replace(settings, database_url=postgres.url)
        yield servers, settings
    finally:
        await servers.stop(stop_seconds())


async def _death(server: NatsServer | PostgresServer) -> InternalError:
    if server.process is None:
        raise RuntimeError("the server was not started")
    while True:
        process = server.process
        await process.ended.wait()
        if not (isinstance(server, NatsServer) and server.restarting) and server.process is process:
            break
        await asyncio.sleep(_RESTART_SECONDS)
    return server.process.failure(f"the embedded {server.process.command.name} has ended")

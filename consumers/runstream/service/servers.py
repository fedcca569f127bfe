"""NATS and Postgres for a process or a command: embedded servers where no URL is given.

nats-server fixes the limit of its store when it starts, and after a disk error it writes nothing more to the stream of
the error, while it may write to others. In both cases it refuses writes even when there is room again, so `keep_room`
restarts a full embedded server once there is.

`reached` gives commands that work on the data itself the same servers, whether the service runs or not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import structlog
from nats.aio.client import Client

from runstream.embedded import NatsServer, PostgresServer
from runstream.embedded.process import free_port
from runstream.errors import ConflictError, InternalError, NotExistError
from runstream.jetstream.failover import answers_of
from runstream.lifecycle import StrictTaskGroup, for_each, wait_for_first
from runstream.service.data_dir import DataDir, holder
from runstream.settings import Settings
from runstream.telemetry import setup_logging

_RESTART_SECONDS = 0.1
log = structlog.get_logger()
LOOK_SECONDS = 2.0
ROOM_BYTES = 16 << 20
"""Minimum bytes that a restart must make available beyond the stored ones to be worth it."""
MAX_PAUSE_SECONDS = 300.0


def require_port(host: str, port: int) -> None:
    """Raise ConflictError unless a server can listen on this address now; port 0 is any free port."""
    try:
        found = free_port(host, port)
    except OSError as error:
        raise ConflictError(
            f"cannot listen on {host}: {error.strerror or error}",
            code="hostNotAvailable",
            details={"host": host},
            hint="give an address of this machine with --host, such as 127.0.0.1 or 0.0.0.0",
        ) from error
    if port and found != port:
        raise ConflictError(
            f"cannot listen on {host}:{port}: the port is in use",
            code="portNotAvailable",
            details={"host": host, "port": port},
            hint="choose another port, or 0 for any free one",
        )


@dataclass(frozen=True, slots=True)
class Servers:
    """The embedded servers of this process; None where a URL is given."""

    nats: NatsServer | None
    postgres: PostgresServer | None

    async def first_death(self) -> InternalError:
        """Wait until one of them ends by itself; return the error that says so."""
        if not self.all():
            await asyncio.Event().wait()
        return await wait_for_first(*map(_death, self.all()))

    async def stop(self, seconds: float) -> None:
        """Stop them; kill them after this many seconds."""
        async with StrictTaskGroup() as group:
            for server in self.all():
                group.create_task(server.stop(seconds))

    def all(self) -> list[NatsServer | PostgresServer]:
        """Return the servers that there are."""
        return [server for server in (self.nats, self.postgres) if server is not None]


@contextlib.asynccontextmanager
async def embedded_servers(
    settings: Settings, *, database: bool, stop_seconds: Callable[[], float]
) -> AsyncIterator[tuple[Servers, Settings]]:
    """Start a server for each missing URL; yield the servers, and the settings with all URLs.

    `database`: whether a component of this process uses Postgres. `stop_seconds` is called at the end and bounds the
    stop of the servers.
    """
    nats = NatsServer(settings.data_dir / "nats") if not settings.nats_url else None
    postgres = PostgresServer(settings.data_dir / "postgres") if database and not settings.database_url else None
    servers = Servers(nats, postgres)
    try:
        await for_each(servers.all(), lambda server: server.start(), at_once=2)
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


async def keep_room(
    server: NatsServer, nc: Client, *, room: int = ROOM_BYTES, look_seconds: float = LOOK_SECONDS
) -> None:
    """Restart the server whenever it refuses writes although there is room, until cancelled."""
    pause = look_seconds
    while True:
        await asyncio.sleep(pause)
        report = await asyncio.to_thread(server.refused_write)
        why = answers_of(nc).full or report
        answers_of(nc).full = why
        if not why:
            pause = look_seconds
            continue
        left = await asyncio.to_thread(lambda: server.possible_limit() - server.stored_bytes())
        if left < room:
            log.warning(
                f"the store of NATS is full: {why}; {left >> 20} MiB are left for it",
                action="nats_store_full",
                why=why,
                left=left,
            )
            continue
        log.warning(
            f"the store of NATS refuses to write ({why}), and {left >> 20} MiB are free: restarting the server",
            action="nats_restarted",
            left=left,
        )
        answers_of(nc).full = ""
        await server.restart()
        pause = min(max(pause, 1.0) * 2, MAX_PAUSE_SECONDS)


@contextlib.asynccontextmanager
async def reached(settings: Settings) -> AsyncIterator[tuple[Settings, str | None]]:
    """Yield the settings with all URLs, and the URL of a user of NATS's system account where one is known.

    Embedded servers that are not running run while the block lasts. Raise NotExistError when the data directory is
    empty.
    """
    setup_logging("warning")  # on stderr, because programs may read stdout
    if settings.nats_url and settings.database_url:
        yield settings, None
    elif holder(settings.data_dir) is not None:
        yield _of_running(settings)
    elif not (settings.data_dir / "runstream.json").exists():
        raise NotExistError(
            f"there is no service in {settings.data_dir}",
            code="noService",
            details={"data_dir": str(settings.data_dir)},
            hint="start one with `runstream serve`, name its folder with --data-dir, or give --nats-url and "
            "--database-url",
        )
    else:
        with DataDir.hold(settings.data_dir):
            async with embedded_servers(settings, database=True, stop_seconds=lambda: 5.0) as (servers, complete):
                yield complete, servers.nats.admin_url if servers.nats is not None else None


def _of_running(settings: Settings) -> tuple[Settings, str | None]:
    """Return the URLs of the servers that the holder of the data directory has started."""
    admin_url = None
    try:
        if not settings.nats_url:
            nats = NatsServer(settings.data_dir / "nats")
            settings, admin_url = replace(settings, nats_url=nats.url), nats.admin_url
        if not settings.database_url:
            settings = replace(settings, database_url=PostgresServer(settings.data_dir / "postgres").url)
    except FileNotFoundError as error:
        raise NotExistError(
            f"the process that uses {settings.data_dir} has no servers of its own, or is about to start them",
            code="noService",
            hint="give --nats-url and --database-url as that process has them, or try again in a moment",
        ) from error
    return settings, admin_url

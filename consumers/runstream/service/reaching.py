"""How a command that works on the data itself reaches the servers, whether the service runs or not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from runstream.embedded import NatsServer, PostgresServer
from runstream.errors import NotExistError
from runstream.service.data_dir import DataDir, holder
from runstream.service.servers import embedded_servers
from runstream.settings import Settings
from runstream.telemetry import setup_logging


@contextlib.asynccontextmanager
async def reached(settings: Settings) -> AsyncIterator[tuple[Settings, str | None]]:
    """The settings with all URLs in place, and the URL of a user of NATS's system account where we have one.

    Servers that are embedded and do not run are started for as long as the block lasts. Raises NotExistError when
    there is nothing in the data directory.
    """
    setup_logging("warning")  # on stderr: what a command prints may be read by a program
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
    """What the process that holds the data directory has started."""
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

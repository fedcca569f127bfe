"""How a connection is made: from a `postgresql://` URL, with the schema as its search_path, clear when it fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import asyncpg

from runstream.database.failures import connect_failure
from runstream.errors import BadRequestError

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 1.0

_SETTINGS = {"TimeZone": "UTC", "jit": "off"}
_WATCHFUL = {
    "tcp_keepalives_idle": "2",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "2",
    "client_connection_check_interval": "2s",
    "idle_session_timeout": "0",
    "lock_timeout": "0",
    "statement_timeout": "0",
}


async def connect(
    url: str,
    schema: str,
    *,
    application: str = "runstream",
    watchful: bool = False,
    timeout: float = CONNECT_SECONDS,
) -> asyncpg.Connection[asyncpg.Record]:
    """A connection of its own, outside any pool.

    `watchful` is for one that is held and waited on: the server notices within seconds that this process or its
    machine is gone, and never ends it for being idle. Raises
    InternalError that says whether the server, the database or the credentials are wrong.
    """
    settings: Mapping[str, str] = {
        **_SETTINGS,
        **(_WATCHFUL if watchful else {}),
        "search_path": quoted(schema),
        "application_name": application,
    }
    try:
        async with asyncio.timeout(timeout):
            return await asyncpg.connect(dsn=plain_url(url), server_settings=dict(settings))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise connect_failure(error, url) from error
    except ValueError as error:
        raise BadRequestError(
            f"the database URL is not valid: {error}",
            code="invalidDatabaseURL",
            hint="it is postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
        ) from error


async def hang_up(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Close the connection, in order where the server still answers."""
    with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        # Whatever goes wrong here, the connection is gone afterwards: that is what was asked for.
        await connection.close(timeout=CLOSE_SECONDS)


def plain_url(url: str) -> str:
    """The URL without SQLAlchemy's `+asyncpg`. Raises BadRequestError for one of another database."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.split("+")[0] not in ("postgresql", "postgres"):
        raise BadRequestError(
            f"a database URL begins with postgresql://, not with {scheme[:20]!r}",
            code="invalidDatabaseURL",
            hint="it is postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
        )
    return f"postgresql://{rest}"


def quoted(identifier: str) -> str:
    """The identifier as it is written in SQL. Raises BadRequestError for one that Postgres cannot have."""
    if not identifier or "\0" in identifier or len(identifier.encode()) > 63:
        raise BadRequestError(
            f"{identifier[:80]!r} cannot be the name of a schema",
            code="invalidSchema",
            hint="use 1 to 63 letters, digits and '_'",
        )
    doubled = identifier.replace('"', '""')
    return f'"{doubled}"'

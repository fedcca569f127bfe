"""Connections from a `postgresql://` URL, with the schema as search_path and clear errors; named advisory locks."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Mapping
from typing import TypeAlias

import asyncpg

from runstream.database.failures import connect_failure
from runstream.errors import BadRequestError

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 1.0

_IDLE_SECONDS, _INTERVAL_SECONDS, _PROBES = 2, 1, 2
_UNANSWERED_SECONDS = 5
"""Maximum time that sent bytes stay unacknowledged before either side drops the connection, in seconds."""
_SETTINGS = {
    "TimeZone": "UTC",
    "jit": "off",
    "tcp_keepalives_idle": str(_IDLE_SECONDS),
    "tcp_keepalives_interval": str(_INTERVAL_SECONDS),
    "tcp_keepalives_count": str(_PROBES),
    "tcp_user_timeout": f"{_UNANSWERED_SECONDS}s",
}
_WATCHFUL = {
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
) -> Connection:
    """Open a connection outside any pool.

    Both sides notice within seconds that the other's machine is gone. `watchful` is for a connection that is held and
    waited on: the server also looks for the end of this process while it runs a statement, and never ends the
    connection for being idle. Raises InternalError that says whether the server, the database or the credentials are
    wrong.
    """
    settings: Mapping[str, str] = {
        **_SETTINGS,
        **(_WATCHFUL if watchful else {}),
        "search_path": quoted(schema),
        "application_name": application,
    }
    try:
        async with asyncio.timeout(timeout):
            connection = await asyncpg.connect(dsn=plain_url(url), server_settings=dict(settings))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise connect_failure(error, url) from error
    except ValueError as error:
        raise BadRequestError(
            f"the database URL is not valid: {error}",
            code="invalidDatabaseURL",
            hint="it is postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
        ) from error
    _keep_alive(connection)
    return connection


def _keep_alive(connection: Connection) -> None:
    """Set keepalive on our side, to notice a server that is gone; a Unix socket needs none."""
    # Not public: asyncpg has no option for it. Where it is named otherwise, the server's side and our pings remain.
    transport = getattr(connection, "_transport", None)
    ours = transport.get_extra_info("socket") if transport is not None else None
    if ours is None or ours.family not in (socket.AF_INET, socket.AF_INET6):
        return
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _IDLE_SECONDS),
        ("TCP_KEEPINTVL", _INTERVAL_SECONDS),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", _UNANSWERED_SECONDS * 1000),
    ):
        if hasattr(socket, option):
            ours.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


async def hang_up(connection: Connection) -> None:
    """Close the connection, in order where the server still answers."""
    with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        # An error here means that the connection is gone already.
        await connection.close(timeout=CLOSE_SECONDS)


@contextlib.asynccontextmanager
async def hung_up(connection: Connection) -> AsyncIterator[Connection]:
    """Yield the connection, and hang up at the end of the block."""
    try:
        yield connection
    finally:
        await hang_up(connection)


def plain_url(url: str) -> str:
    """Return the URL without SQLAlchemy's `+asyncpg`. Raises BadRequestError for another kind of database."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.split("+")[0] not in ("postgresql", "postgres"):
        raise BadRequestError(
            f"a database URL begins with postgresql://, not with {scheme[:20]!r}",
            code="invalidDatabaseURL",
            hint="it is postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
        )
    return f"postgresql://{rest}"


def quoted(identifier: str) -> str:
    """Quote an SQL identifier. Raises BadRequestError for one that Postgres does not allow."""
    if not identifier or "\0" in identifier or len(identifier.encode()) > 63:
        raise BadRequestError(
            f"{identifier[:80]!r} cannot be the name of a schema",
            code="invalidSchema",
            hint="use 1 to 63 letters, digits and '_'",
        )
    doubled = identifier.replace('"', '""')
    return f'"{doubled}"'


def lock_key(name: str) -> int:
    """Return the number of a named advisory lock, as signed 64 bits. All schemas of a database share its locks."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def partition_lock_key(schema: str, namespace: str, service: str, partition: int) -> int:
    """Return the number of the lock that the owner of a partition holds."""
    return lock_key(f"{schema}/{namespace}/{service}/{partition}")


HOLDERS = """
SELECT pid, application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid <> pg_backend_pid()
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32) | objid::bigint = $1
"""
"""Selects the sessions that hold the lock with this number."""

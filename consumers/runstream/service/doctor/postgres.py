"""What Postgres is and does: version, durability, connections, migrations, its clock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

from runstream.database.connection import connect
from runstream.database.migrating import migration_state
from runstream.service.doctor.finding import Finding, judged
from runstream.service.doctor.nats import clock
from runstream.settings import Settings

OLDEST = 140000
FEWEST_CONNECTIONS = 40
_DURABLE = {
    "fsync": "a power cut may destroy the database (it can be made again from the log, but that takes time)",
    "full_page_writes": "a power cut may destroy the database (it can be made again from the log)",
    "synchronous_commit": "migrations and parked commits may be lost in a power cut",
}


async def postgres(settings: Settings) -> AsyncIterator[Finding]:
    """What was found at the Postgres of the settings."""
    connection = await connect(settings.database_url, settings.database_schema, application="runstream doctor")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(connection.close)
        number = int(await connection.fetchval("SHOW server_version_num"))
        yield judged(
            "Postgres version",
            str(await connection.fetchval("SHOW server_version")),
            good=number >= OLDEST,
            todo="install Postgres 14 or later",
        )
        for name, consequence in _DURABLE.items():
            value = str(await connection.fetchval("SELECT current_setting($1)", name))
            yield judged(
                f"Postgres {name}",
                value,
                good=value != "off",
                todo=f"set {name} = on in postgresql.conf: {consequence}",
                otherwise="warning",
            )
        most = int(await connection.fetchval("SHOW max_connections"))
        yield judged(
            "Postgres connections",
            f"at most {most}",
            good=most >= FEWEST_CONNECTIONS,
            todo=f"set max_connections to at least {FEWEST_CONNECTIONS}",
            otherwise="warning",
        )
        asked = time.time()
        theirs = float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8"))
        yield clock("Postgres clock", theirs - (asked + time.time()) / 2)
    yield await _migrations(settings)


async def _migrations(settings: Settings) -> Finding:
    state = await migration_state(settings.database_url, settings.database_schema)
    if state.up_to_date:
        return Finding("migrations", "ok", f"at {state.current}")
    if not state.known:
        return Finding(
            "migrations",
            "problem",
            f"at {state.current}, which this version does not know",
            "use the version of Runstream that migrated it, or a later one",
        )
    return Finding(
        "migrations",
        "problem",
        f"at {state.current or 'none'}, this version needs {state.wanted}",
        "start `runstream serve`: it migrates before anything else",
    )

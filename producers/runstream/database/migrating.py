"""Migrations: Alembic's scripts, run online, by one process at a time.

Each migration is a transaction of its own that waits at most `LOCK_MILLISECONDS` for a table in use, so that it never
holds up a running service for longer. A database that a newer version has migrated is refused: its tables may mean
something that this version does not know. Most starts find a database that is up to date: they read the revisions from
the scripts and do not load Alembic.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from runstream.database.connection import connect, lock_key, quoted
from runstream.database.failures import failure, sqlstate
from runstream.errors import InternalError

HEAD = "head"
"""Alembic's name for the last migration."""
_IN_WHEEL = Path(__file__).with_name("migrations")
_IN_SOURCE = Path(__file__).resolve().parents[3] / "migrations"
_REVISION = re.compile(r'^revision(?:: \w+)? = "(\w+)"$', re.MULTILINE)
_DOWN_REVISION = re.compile(r'^down_revision(?:: [\w |]+)? = (?:"(\w+)"|None)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Revisions:
    """The migrations of this version, by their ids."""

    head: str
    """The last migration."""
    known: frozenset[str]


def revisions(folder: Path) -> Revisions:
    """Read the revisions of a folder of scripts. Raises InternalError unless they form a single line."""
    below: dict[str, str | None] = {}
    for script in sorted((folder / "versions").glob("*.py")):
        text = script.read_text()
        revision, down = _REVISION.search(text), _DOWN_REVISION.search(text)
        if revision is None or down is None:
            raise _incomplete(f"the migration script {script} does not say which one it is")
        below[revision[1]] = down[1]
    heads = set(below) - set(below.values())
    if len(heads) != 1:
        raise _incomplete(f"the migration scripts in {folder} have {len(heads)} ends: {', '.join(sorted(heads))}")
    return Revisions(heads.pop(), frozenset(below))


def script_location() -> Path:
    """Return the folder of scripts: in the installed package or at the top of the source tree. Raises InternalError."""
    for path in (_IN_WHEEL, _IN_SOURCE):
        if (path / "env.py").is_file():
            return path
    raise _incomplete(f"the migration scripts are neither in {_IN_WHEEL} nor in {_IN_SOURCE}")


def _incomplete(why: str) -> InternalError:
    return InternalError(why, code="migrationsMissing", hint="the installation is incomplete: install Runstream again")


log = structlog.get_logger()

MIGRATION_SECONDS = 600.0
LOCK_MILLISECONDS = 5000
POLL_SECONDS = 0.1
"""Pause between attempts to get the lock of migrations."""

_LOCK_NOT_AVAILABLE = "55P03"


@dataclass(frozen=True, slots=True)
class MigrationState:
    """The migration of a schema, and the one that this version needs."""

    current: str | None
    """None for a schema without tables."""
    wanted: str
    known: bool
    """False when a newer version migrated the schema."""

    @property
    def up_to_date(self) -> bool:
        """True when the schema has the tables of this version."""
        return self.current == self.wanted


async def migrate(database_url: str, schema: str, *, timeout: float = MIGRATION_SECONDS) -> None:
    """Bring the schema to this version's tables, and create it if it does not exist.

    Processes that start at once take turns; the later ones find an up-to-date schema. Raises InternalError.
    """
    await _bounded(database_url, schema, HEAD, timeout)


async def migrate_down(
    database_url: str, schema: str, target: str = "base", *, timeout: float = MIGRATION_SECONDS
) -> None:
    """Bring the schema back to an older revision; `base` removes all tables. Raises InternalError."""
    await _bounded(database_url, schema, target, timeout)


async def migration_state(database_url: str, schema: str) -> MigrationState:
    """Return the migration state of the schema, without changing it. Raises InternalError when the database fails."""
    async with _connection(database_url, schema) as connection:
        return await _state(connection, schema)


async def require_migrated(database_url: str, schema: str) -> None:
    """Raise InternalError unless the schema has exactly the tables of this version."""
    state = await migration_state(database_url, schema)
    if not state.up_to_date:
        _refuse_newer(state)
        raise InternalError(
            f"schema {schema!r} is at migration {state.current or 'none'}, this version needs {state.wanted}",
            code="databaseNotMigrated",
            hint="start `runstream serve` of this version once on this database: it makes the tables",
        )


def _refuse_newer(state: MigrationState) -> None:
    if state.known:
        return
    raise InternalError(
        f"the database is at migration {state.current}, which this version of Runstream (up to {state.wanted}) "
        "does not know: a newer version has migrated it",
        code="databaseNewer",
        details={"current": state.current, "wanted": state.wanted},
        hint="upgrade Runstream to at least the version that migrated this database, or name another schema",
    )


async def _bounded(database_url: str, schema: str, target: str, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout), _connection(database_url, schema) as connection:
            await _locked(connection, schema, target)
    except TimeoutError as error:
        raise InternalError(
            f"the migration of schema {schema!r} did not end within {timeout:g} s",
            code="migrationTimeout",
            hint="another process may be migrating, or hold a lock on a table: see pg_stat_activity",
        ) from error


async def _locked(connection: AsyncConnection, schema: str, target: str) -> None:
    """Migrate under a session lock, which ends with the connection however this process ends.

    The lock is polled: a process that waits for it has a snapshot, and an index that is built concurrently waits for
    all older snapshots, so the two would wait for each other.
    """
    lock = {"key": lock_key(f"runstream migrate {schema}")}
    while not await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), lock):
        await connection.rollback()
        await asyncio.sleep(POLL_SECONDS)
    await connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}"))
    await connection.execute(text(f"SET lock_timeout = '{LOCK_MILLISECONDS}ms'"))
    await connection.commit()
    state = await _state(connection, schema)
    _refuse_newer(state)
    await connection.commit()
    if target == HEAD and state.up_to_date:
        return
    while not await _moved(connection, target):
        log.warning("a table is in use, the migration tries again", action="migration_waits", schema=schema)


async def _moved(connection: AsyncConnection, target: str) -> bool:
    """Return whether the migration went through; False when a table stayed locked for `LOCK_MILLISECONDS`."""
    try:
        await connection.run_sync(_move, target)
    except SQLAlchemyError as error:
        await connection.rollback()
        if sqlstate(error) != _LOCK_NOT_AVAILABLE:
            raise
        return False
    await connection.commit()
    return True


@asynccontextmanager
async def _connection(database_url: str, schema: str) -> AsyncIterator[AsyncConnection]:
    async def create() -> asyncpg.Connection[asyncpg.Record]:
        return await connect(database_url, schema, application="runstream migrate")

    engine = create_async_engine("postgresql+asyncpg://", async_creator=create, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            yield connection
    except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise failure(error) or error from error
    finally:
        await engine.dispose()


async def _state(connection: AsyncConnection, schema: str) -> MigrationState:
    found = revisions(script_location())
    table = f"{quoted(schema)}.alembic_version"
    current: str | None = None
    if await connection.scalar(text("SELECT to_regclass(:table)::text"), {"table": table}) is not None:
        current = await connection.scalar(text(f"SELECT version_num FROM {table}"))  # noqa: S608
    return MigrationState(current, found.head, current is None or current in found.known)


def _move(connection: Connection, target: str) -> None:
    """Bring the schema of the connection up to `head`, or down to any other target."""
    # Alembic takes a while to load, and nearly every start finds a database that is up to date.
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if target == HEAD:
        command.upgrade(config, HEAD)
    else:
        command.downgrade(config, target)

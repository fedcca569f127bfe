from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from runstream import tables
from runstream.database import Database, Transaction
from runstream.database.migrating import (
    migrate,
    migrate_down,
    migration_state,
    require_migrated,
    revisions,
    script_location,
)
from runstream.errors import InternalError
from runstream.projections.store import ProjectionStore, load_partition

from .playing import played, project


@asynccontextmanager
async def migrated(url: str, schema: str) -> AsyncIterator[Database]:
    """A database whose schema was migrated now."""
    await migrate(url, schema)
    async with migrated_as_is(url, schema) as database:
        yield database


@asynccontextmanager
async def migrated_as_is(url: str, schema: str) -> AsyncIterator[Database]:
    """A database whose schema stays as it is."""
    database = Database(url, schema)
    try:
        yield database
    finally:
        await database.close()


async def test_processes_that_start_at_once_take_turns(database_url: str, database_schema: str) -> None:
    await asyncio.gather(*(migrate(database_url, database_schema) for _ in range(4)))
    assert (await migration_state(database_url, database_schema)).up_to_date
    await require_migrated(database_url, database_schema)


async def test_the_scripts_make_the_tables_that_the_code_knows(database_url: str, database_schema: str) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, tables.metadata))

    async with migrated(database_url, database_schema) as database, database.snapshot() as transaction:
        assert await transaction.run(differences) == []


async def test_up_keeps_the_data_and_down_removes_it(database_url: str, database_schema: str) -> None:
    world = played(2)
    async with migrated(database_url, database_schema) as database:
        fold = await load_partition(database, 0, 1)
        await project(ProjectionStore(database), fold, world.log)
        await migrate(database_url, database_schema)
        assert (await load_partition(database, 0, 1)).after == len(world.log)

    await migrate_down(database_url, database_schema)
    assert (await migration_state(database_url, database_schema)).current is None
    with pytest.raises(InternalError, match="is at migration none") as raised:
        await require_migrated(database_url, database_schema)
    assert raised.value.code == "databaseNotMigrated"

    async with migrated(database_url, database_schema) as database:
        assert (await load_partition(database, 0, 1)).after == 0


async def test_indexes_of_a_large_table_are_built_while_other_processes_wait(
    database_url: str, database_schema: str
) -> None:
    """A process that waits for its turn holds no snapshot, which such an index would wait for."""
    await migrate(database_url, database_schema)
    await migrate_down(database_url, database_schema, "0013")
    async with migrated_as_is(database_url, database_schema) as database:

        async def fill(transaction: Transaction) -> None:
            columns = ", ".join(f'"{name}"' for name in tables.RunRow._fields)
            values = ", ".join(_VALUES.get(name, "NULL") for name in tables.RunRow._fields)
            statement = f"INSERT INTO runs ({columns}) SELECT {values} FROM generate_series(1, 20001) AS n"  # noqa: S608
            await transaction.execute(text(statement))

        await database.transaction(fill)
        await asyncio.gather(*(migrate(database_url, database_schema) for _ in range(3)))
        async with database.snapshot() as transaction:
            rows = await transaction.rows(
                text(
                    "SELECT indexrelid::regclass::text AS name, indisvalid AS valid FROM pg_index "
                    "WHERE indrelid = 'runs'::regclass"
                )
            )
    assert {index.name for index in tables.runs.indexes} <= {row["name"] for row in rows}
    assert all(row["valid"] for row in rows)


_VALUES = {
    **dict.fromkeys(("id", "counter_group", "group", "name", "run_config", "reason", "request"), "'x' || n"),
    **dict.fromkeys(("partition", "version", "position", "counter", "priority", "paused_for"), "0"),
    **dict.fromkeys(("numbered", "stop", "timedout", "archived", "holds_logs", "holds_archives"), "false"),
    "sequence": "n",
    "annotations": """'{"commit_sha": "abc"}'""",
    "setup_errors": "'[]'",
    "restart": "'null'",
    "phase": "'queued'",
    "result": "'unknown'",
    "enqueue_time": "now()",
}


async def test_a_schema_may_have_any_name(database_url: str, database_schema: str) -> None:
    name = f'Odd "{database_schema}" %é'
    async with migrated(database_url, name) as database:
        assert (await load_partition(database, 0, 1)).after == 0
        quoted = name.replace('"', '""')

        async def drop(transaction: Transaction) -> None:
            await (await transaction.driver()).execute(f'DROP SCHEMA "{quoted}" CASCADE')

        await database.transaction(drop)


async def test_a_database_of_a_newer_version_is_refused(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database:
        await database.transaction(_pretend_newer)
    for check in (migrate, require_migrated):
        with pytest.raises(InternalError, match="9999, which this version of Runstream") as raised:
            await check(database_url, database_schema)
        assert raised.value.code == "databaseNewer"
        assert "upgrade Runstream" in raised.value.hint


async def _pretend_newer(transaction: Transaction) -> None:
    await transaction.execute(text("UPDATE alembic_version SET version_num = '9999'"))


async def test_a_table_in_use_holds_the_migration_up_only_until_it_is_free(
    database_url: str, database_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.database.migrating.LOCK_MILLISECONDS", 50)
    waiting = asyncio.Event()
    monkeypatch.setattr("runstream.database.migrating.log", _Signal(waiting))
    async with migrated(database_url, database_schema) as database:

        async def hold(transaction: Transaction) -> asyncio.Task[None]:
            await transaction.rows(text("SELECT 1 FROM runs"))
            down = asyncio.create_task(migrate_down(database_url, database_schema))
            await waiting.wait()
            return down

        await (await database.transaction(hold))
    assert (await migration_state(database_url, database_schema)).current is None


class _Signal:
    def __init__(self, event: asyncio.Event) -> None:
        self.event = event

    def warning(self, *_: object, **__: object) -> None:
        self.event.set()


def test_the_scripts_are_found_and_read_as_alembic_reads_them() -> None:
    assert script_location() == Path(__file__).parents[2] / "migrations"
    scripts = ScriptDirectory(str(script_location()))
    found = revisions(script_location())
    assert found.head == scripts.get_current_head()
    assert found.known == {script.revision for script in scripts.walk_revisions()}


def test_scripts_that_are_not_one_line_are_refused(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    for name, down in (("1", "None"), ("2", '"1"'), ("3", '"1"')):
        (tmp_path / f"versions/{name}.py").write_text(f'revision = "{name}"\ndown_revision = {down}\n')
    with pytest.raises(InternalError, match="have 2 ends: 2, 3"):
        revisions(tmp_path)
    (tmp_path / "versions/3.py").write_text("revision = 3\n")
    with pytest.raises(InternalError, match=r"3.py does not say which one it is"):
        revisions(tmp_path)


async def test_a_lost_database_is_a_clear_error(database_schema: str) -> None:
    with pytest.raises(InternalError) as raised:
        await migrate("postgresql://u:secret@127.0.0.1:1/x", database_schema)
    assert raised.value.code == "databaseUnreachable"
    assert "secret" not in str(raised.value)
    database = Database("postgresql://127.0.0.1:1/x", database_schema)
    with pytest.raises(InternalError):
        async with database.snapshot():
            raise AssertionError
    await database.close()

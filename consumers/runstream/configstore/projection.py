"""Writes the rows of the config service: all of them when a session begins, then those of each batch.

Rows and checkpoint change in one transaction. A session first makes the rows equal to its fold, whatever they were: so
an import, a skipped commit, a new version that reads what was parked, and a restored log need no code of their own. A
checkpoint that another process moved ends the session.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runstream import tables
from runstream.config_folding import PARTITION, ConfigFold, ParkedConfig
from runstream.configstore.rows import PROJECTION, Key, changed_rows, config_rows, parked_rows
from runstream.database.connection import Connection
from runstream.database.database import Database
from runstream.database.transaction import WriterTransaction
from runstream.errors import ConflictError
from runstream.projections.store import as_json, storable, upsert
from runstream.tables import ConfigRow, ParkedRow

WRITE_SECONDS = 60.0
_INSERT = upsert(tables.config, ConfigRow._fields)
_PARK = upsert(tables.parked, ParkedRow._fields)
_ROWS = "SELECT kind, id, version, position, name, parent, content::text AS content FROM config"
_DELETE = "DELETE FROM config WHERE (kind, id) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
_BEGIN = """
INSERT INTO checkpoints (projection, partition, epoch, sequence, run_sequence) VALUES ($1, $2, $3, $4, 0)
ON CONFLICT (projection, partition) DO UPDATE SET epoch = excluded.epoch, sequence = excluded.sequence
"""
_MOVE = """
UPDATE checkpoints SET sequence = $5
WHERE projection = $1 AND partition = $2 AND epoch = $3 AND sequence = $4
RETURNING partition
"""
_UNPARK = "DELETE FROM parked WHERE projection = $1"


class ConfigFencedError(ConflictError):
    """The checkpoint of the config service moved: another process has taken over."""

    def __init__(self, epoch: int, before: int) -> None:
        super().__init__(
            f"the checkpoint of the config service is not {epoch}:{before} any more: another process has taken over",
            code="fenced",
            details={"epoch": epoch, "before": before},
        )


class ConfigProjection:
    """The writer of the table `config`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, fold: ConfigFold, epoch: int) -> None:
        """Make rows, parked commits and checkpoint those of a fold. Raises InternalError when the database fails."""

        async def work(writing: WriterTransaction) -> None:
            await replace_rows(writing.connection, fold, epoch)

        with storable():
            await self._database.write(work, timeout=WRITE_SECONDS)

    async def apply(
        self, fold: ConfigFold, epoch: int, before: int, aggregates: Iterable[str], parked: Sequence[ParkedConfig]
    ) -> None:
        """Write the rows of changed aggregates, and move the checkpoint from `before` to that of the fold.

        Raises ConfigFencedError, InternalError when the database fails.
        """
        rows, gone = changed_rows(fold, aggregates)

        async def work(writing: WriterTransaction) -> None:
            connection = writing.connection
            if await connection.fetchrow(_MOVE, PROJECTION, PARTITION, epoch, before, fold.after) is None:
                raise ConfigFencedError(epoch, before)
            await _write(connection, rows, gone)
            if parked:
                await connection.execute(_PARK, as_json(parked_rows(parked)))

        with storable():
            await self._database.write(work, timeout=WRITE_SECONDS)


async def replace_rows(connection: Connection, fold: ConfigFold, epoch: int) -> None:
    """Make rows, parked commits and checkpoint those of a fold, in the transaction of the connection."""
    wanted, parked = config_rows(fold), parked_rows(fold.all_parked.values())
    await connection.execute(_BEGIN, PROJECTION, PARTITION, epoch, fold.after)
    found: dict[Key, ConfigRow] = {}
    for row in await connection.fetch(_ROWS):
        found[row["kind"], row["id"]] = ConfigRow(**row)
    await _write(
        connection,
        [row for key, row in wanted.items() if found.get(key) != row],
        [key for key in found if key not in wanted],
    )
    await connection.execute(_UNPARK, PROJECTION)
    await connection.execute(_PARK, as_json(parked))


async def _write(connection: Connection, rows: Sequence[ConfigRow], gone: Sequence[Key]) -> None:
    """Write rows and delete others. Rows are not updated: in one batch, a name may go from one thing to another."""
    if gone:
        await connection.execute(_DELETE, [kind for kind, _ in gone], [key for _, key in gone])
    if rows:
        await connection.execute(_DELETE, [row.kind for row in rows], [row.id for row in rows])
        await connection.execute(_INSERT, as_json(rows))

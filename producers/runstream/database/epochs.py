"""The epochs of a service's log: Postgres alone decides which one is current; and the time of the last export.

An epoch is recorded before it has a stream, so that the leftovers of a killed import are known. Its number is never
used again: a position names one commit for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import structlog
from sqlalchemy import RowMapping, func, select, update
from sqlalchemy.dialects.postgresql import insert

from runstream.database.connection import Connection
from runstream.database.database import Database
from runstream.errors import ConflictError, InternalError, NotExistError
from runstream.tables import epochs, exports

log = structlog.get_logger()

EpochState = Literal["loading", "ready", "deleted"]

_ANOTHER = "UPDATE epochs SET current = false WHERE service = $1 AND epoch = $2 AND current"
_CURRENT = "UPDATE epochs SET current = true, state = 'ready' WHERE service = $1 AND epoch = $2 AND state <> 'deleted'"
_UNMARKED = "DELETE FROM removals WHERE service = $1 AND epoch = $2"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch."""

    number: int
    partitions: int
    current: bool
    state: EpochState
    origin: str
    """The source of its commits, as text; empty for those appended here."""
    created: datetime
    """The time of its creation, in UTC."""


async def list_epochs(database: Database, service: str) -> tuple[Epoch, ...]:
    """List all epochs, deleted ones too, in order."""
    listed = select(epochs).where(epochs.c.service == service).order_by(epochs.c.epoch)
    async with database.snapshot() as transaction:
        return tuple(_epoch(row) for row in await transaction.rows(listed))


async def current_epoch(database: Database, service: str) -> Epoch:
    """Return the current epoch. Raises NotExistError when no log was ever created."""
    for epoch in await list_epochs(database, service):
        if epoch.current:
            return epoch
    raise NotExistError(
        "the database knows of no log", code="noEpoch", hint="start the service once with this database: it creates one"
    )


async def begin_epoch(database: Database, service: str, partitions: int, origin: str, after: int = 0) -> Epoch:
    """Record an epoch that is being loaded; its number is higher than all earlier ones and than `after`."""
    last = select(func.coalesce(func.max(epochs.c.epoch), 0)).where(epochs.c.service == service).scalar_subquery()
    row = insert(epochs).values(
        service=service,
        epoch=func.greatest(last, after) + 1,
        current=False,
        partitions=partitions,
        state="loading",
        origin=origin,
    )
    found = await database.transaction(lambda transaction: transaction.first(row.returning(epochs)))
    if found is None:
        raise RuntimeError("an inserted row was not returned")
    return _epoch(found)


async def mark_deleted(database: Database, service: str, epoch: int) -> None:
    """Mark an epoch deleted, before its streams go. Raises ConflictError for the current epoch."""
    change = update(epochs).where(epochs.c.service == service, epochs.c.epoch == epoch, ~epochs.c.current)
    if not await database.transaction(lambda transaction: transaction.execute(change.values(state="deleted"))):
        raise ConflictError(
            f"epoch {epoch} is the current one, or there is none of this number",
            code="epochNotDeleted",
            hint="`runstream epochs list` shows them",
        )


async def make_current(connection: Connection, service: str, epoch: int, instead: int) -> None:
    """Make this epoch current, in an open transaction. Raises ConflictError unless `instead` is current."""
    done = [await connection.execute(_ANOTHER, service, instead), await connection.execute(_CURRENT, service, epoch)]
    if done != ["UPDATE 1", "UPDATE 1"]:
        raise ConflictError(
            f"epoch {instead} is not current any more, or epoch {epoch} was deleted",
            code="epochChanged",
            hint="something else switched in between: see `runstream epochs list`, and begin again",
        )
    # Objects were removed by the log of another epoch: the cleaner begins anew (`runstream.retention.cleaner`).
    await connection.execute(_UNMARKED, service, epoch)


def _epoch(row: RowMapping) -> Epoch:
    return Epoch(row["epoch"], row["partitions"], row["current"], row["state"], row["origin"], row["created_at"])


async def remember_export(database: Database, service: str, namespace: str, created: datetime) -> None:
    """Record the time of an export, so that an import can warn of an older snapshot.

    An export succeeds without the database: an error is logged, not raised.
    """
    try:
        await note_export(database, service, namespace, created)
    except InternalError as error:
        log.warning(
            f"the export is not recorded, so an import of an older snapshot will not say so: {error.message}",
            action="export_not_remembered",
        )


async def note_export(database: Database, service: str, namespace: str, created: datetime) -> None:
    """Record the time of an export; the latest one wins."""
    row = insert(exports).values(service=service, namespace=namespace, created=created)
    later = {"created": func.greatest(exports.c.created, row.excluded.created)}
    change = row.on_conflict_do_update(index_elements=[exports.c.service, exports.c.namespace], set_=later)
    await database.transaction(lambda transaction: transaction.execute(change))


async def last_export(database: Database, service: str, namespace: str) -> datetime | None:
    """Return the time in the header of the latest export of a namespace; None when there was none."""
    wanted = select(exports.c.created).where(exports.c.service == service, exports.c.namespace == namespace)
    async with database.snapshot() as transaction:
        row = await transaction.first(wanted)
        return row["created"] if row is not None else None

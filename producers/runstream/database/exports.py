"""When the log was exported last, so that an import can say that its snapshot is older."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from runstream.database.database import Database
from runstream.tables import exports


async def note_export(database: Database, service: str, namespace: str, created: datetime) -> None:
    """Remember an export, by the time in its header; a later one stays remembered. Raises InternalError."""
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

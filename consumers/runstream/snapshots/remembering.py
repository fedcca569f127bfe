"""Finished exports are remembered in the database: a later import says when its snapshot is older than one of them."""

from __future__ import annotations

import structlog

from runstream.database.database import Database
from runstream.database.epochs import note_export
from runstream.errors import InternalError
from runstream.snapshots.manifest import SnapshotHeader

log = structlog.get_logger()


async def remember_export(database: Database, header: SnapshotHeader) -> None:
    """Remember that an export was made. An export succeeds without the database, with a warning."""
    try:
        await note_export(database, header.service, header.namespace, header.created)
    except InternalError as error:
        log.warning(
            f"the export is not remembered, so an import of an older snapshot will not say so: {error.message}",
            action="export_not_remembered",
        )

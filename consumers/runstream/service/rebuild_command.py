"""`runstream rebuild`: the rows of the database, made anew from the log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import uvloop

from runstream.cli.connection import global_options
from runstream.cli.output import say
from runstream.commits import LogPosition
from runstream.counting import counted
from runstream.database import Database
from runstream.database.migrating import require_migrated
from runstream.errors import BadRequestError
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.log.tail import resolve_position
from runstream.projections.as_of import position_at
from runstream.projections.rebuild import Rebuilt, ends_of, rebuild, rebuild_into
from runstream.service.progress import steps
from runstream.service.reaching import reached
from runstream.service.serve_options import ServerOptions, settings_of
from runstream.settings import Settings
from runstream.snapshots.export import parse_until


def rebuild_command(*, at: str | None = None, into: str | None = None, options: ServerOptions | None = None) -> None:
    """Make the rows of the database anew from the log, while everything goes on.

    They are made in a schema beside the live one, and take its place in one step. With --into they stay where they are,
    to be looked at.

    Parameters
    ----------
    at
        As of a position (EPOCH:SEQUENCE,…) or of a time such as 2026-11-23T02:16:40Z; local without a zone.
    into
        The schema to make. One that an earlier rebuild made is made anew; any other has to be dropped first.
    """
    until = parse_until(at or "", local=True)
    if until is not None and into is None:
        raise BadRequestError(
            "the live rows cannot be those of an earlier time",
            code="rebuildIntoMissing",
            hint="name a schema of its own with --into; to go back, import an export of that time (--until)",
        )
    done = uvloop.run(_rebuild(settings_of(options or ServerOptions(), global_options()), until, into))
    parked = (
        f"; {counted(done.parked, 'commit')} could not be applied, see `runstream parked list`" if done.parked else ""
    )
    say(f"made anew in schema {done.schema}, as of {done.position}{parked}")


async def _rebuild(settings: Settings, until: LogPosition | datetime | None, into: str | None) -> Rebuilt:
    async with (
        reached(settings) as (complete, _),
        nats_connection(complete.nats_url, "runstream rebuild") as client,
        await open_log(client, complete.namespace) as log,
    ):
        with steps() as tell:
            if into is None:
                return await _live(complete, log, tell)
            place = await _position(log, until)
            return await rebuild_into(complete.nats_url, log, complete.database_url, into, place, tell)


async def _live(settings: Settings, log: JetStreamLog, tell: Callable[[str, int, int], None]) -> Rebuilt:
    await require_migrated(settings.database_url, settings.database_schema)
    database = Database(settings.database_url, settings.database_schema, pool_size=2)
    try:
        return await rebuild(settings.nats_url, log, database, tell)
    finally:
        await database.close()


async def _position(log: JetStreamLog, until: LogPosition | datetime | None) -> LogPosition:
    if until is None:
        return LogPosition(log.epoch, await ends_of(log))
    return await position_at(log, until) if isinstance(until, datetime) else await resolve_position(log, str(until))

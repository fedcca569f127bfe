"""`runstream fsck`, `rebuild` and `migrate`: compare the rows of the database with the log, or rebuild them from it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import uvloop
from cyclopts import Parameter

from runstream.cli.connection import with_program
from runstream.cli.output import Output, print_json, say
from runstream.commits import LogPosition
from runstream.config_folding import PARTITION, SERVICE
from runstream.configstore.projection import ConfigProjection
from runstream.configstore.reading import fold_up_to
from runstream.counting import counted
from runstream.database.migrating import migrate, migration_state
from runstream.errors import BadRequestError
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.log.tail import resolve_position
from runstream.projections.as_of import position_at
from runstream.projections.ownership import own_all_partitions
from runstream.projections.rebuild import Rebuilt, ends_of, rebuild, rebuild_into, rebuild_lock
from runstream.service.checking import check_everything, values_of
from runstream.service.configuration import OfService, ServerOptions, StorageOptions, settings_of
from runstream.service.connections import connected, migrated_database
from runstream.service.progress import steps
from runstream.service.servers import reached
from runstream.settings import Settings
from runstream.snapshots.export import parse_until


def fsck_command(
    *,
    partition: Annotated[list[int] | None, Parameter(negative="")] = None,
    archive: bool = True,
    objects: bool | None = None,
    output: Output = "table",
    options: StorageOptions | None = None,
) -> int:
    """Compare the whole log with the database, the archive, and the objects of runs. Exits 1 when something differs.

    Folds the log up to the position of the rows, and reads every segment of the archive. An archive that ends before
    the log, parked commits, and a stalled projection or archive are reported, but are no differences.

    Parameters
    ----------
    partition
        Only this partition; repeatable.
    archive
        Also check the archive.
    objects
        Also check that logs and archives to which runs refer are stored, and no others. Default: with the archive,
        unless --partition is given.
    """
    settings = settings_of(options)
    with_objects = archive and not partition if objects is None else objects
    found = uvloop.run(check_everything(settings, partition, with_archive=archive, with_objects=with_objects))
    if output == "json":
        print_json(values_of(found))
    else:
        archived = found.archive.lines() if found.archive is not None else []
        archived += found.config_archive.lines("archive of config") if found.config_archive is not None else []
        stored = found.objects.lines() if found.objects is not None else []
        stalled = [line for stall in found.stalls for line in (str(stall), f"  {with_program(stall.todo)}")]
        say("\n".join([*found.rows.lines(), *archived, *stored, *stalled]))
    return found.exit_status


def rebuild_command(
    *,
    at: str | None = None,
    into: str | None = None,
    service: OfService = "runs",
    options: ServerOptions | None = None,
) -> None:
    """Rebuild the rows of the database from the log without downtime.

    They are made in a schema beside the live one, and take its place in one step. With --into they stay where they are,
    to be looked at.

    Parameters
    ----------
    at
        Rebuild as of a position (EPOCH:SEQUENCE,…) or a time such as 2026-11-23T02:16:40Z; local without a zone.
    into
        Schema to create. A schema from an earlier rebuild is replaced; drop any other schema first.
    """
    until = parse_until(at or "", local=True)
    if service == SERVICE:
        if until is not None or into is not None:
            raise BadRequestError(
                "the rows of users, projects and secrets are made anew only where they are, as of now",
                code="rebuildIntoMissing",
                hint="leave --at and --into out",
            )
        say(with_program(f"made anew as of {uvloop.run(_rebuild_config(settings_of(options)))}"))
        return
    if until is not None and into is None:
        raise BadRequestError(
            "the live rows cannot be those of an earlier time",
            code="rebuildIntoMissing",
            hint="name a schema of its own with --into; to go back, import an export of that time (--until)",
        )
    done = uvloop.run(_rebuild(settings_of(options), until, into))
    parked = (
        f"; {counted(done.parked, 'commit')} could not be applied, see `runstream parked list`" if done.parked else ""
    )
    say(with_program(f"made anew in schema {done.schema}, as of {done.position}{parked}"))


def migrate_command(*, service: OfService | None = None, options: ServerOptions | None = None) -> None:
    """Bring the database to the tables of this version, as `serve` does before anything else.

    Parameters
    ----------
    service
        Both services have their tables in one schema, so either name stands for all of it.
    """
    say(uvloop.run(_migrate(settings_of(options))))


async def _migrate(settings: Settings) -> str:
    async with reached(settings) as (complete, _):
        place = complete.database_url, complete.database_schema
        before = await migration_state(*place)
        await migrate(*place)
        after = await migration_state(*place)
    if before.current == after.current:
        return f"schema {complete.database_schema} is at migration {after.current}: nothing to do"
    return f"schema {complete.database_schema} is migrated from {before.current or 'nothing'} to {after.current}"


async def _rebuild(settings: Settings, until: LogPosition | datetime | None, into: str | None) -> Rebuilt:
    async with (
        reached(settings) as (complete, _),
        nats_connection(complete.nats_url, "runstream rebuild") as client,
        await open_log(client, complete.namespace) as log,
    ):
        with steps() as report:
            if into is None:
                async with migrated_database(complete, "runstream rebuild", pool_size=2) as database:
                    return await rebuild(complete.nats_url, log, database, report)
            place = await _position(log, until)
            return await rebuild_into(complete.nats_url, log, complete.database_url, into, place, report)


async def _rebuild_config(settings: Settings) -> LogPosition:
    async with connected(settings, "runstream rebuild", service=SERVICE, pool_size=2) as at, rebuild_lock(at.database):
        log = at.log
        async with own_all_partitions(at.database, log.subjects.namespace, SERVICE, log.partitions):
            fold = await fold_up_to(log, await log.end(PARTITION))
            await ConfigProjection(at.database).begin(fold, log.epoch)
        return LogPosition(log.epoch, (fold.after,))


async def _position(log: JetStreamLog, until: LogPosition | datetime | None) -> LogPosition:
    if until is None:
        return LogPosition(log.epoch, await ends_of(log))
    return await position_at(log, until) if isinstance(until, datetime) else await resolve_position(log, str(until))

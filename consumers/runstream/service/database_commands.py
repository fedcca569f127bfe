"""`runstream fsck` and `runstream rebuild`: compare the rows of the database with the log, or rebuild them from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated

import msgspec
import uvloop
from cyclopts import Parameter

from runstream.api import Stall
from runstream.cli.connection import with_program
from runstream.cli.output import Output, print_json, say
from runstream.commits import LogPosition
from runstream.config_folding import PARTITION, SERVICE
from runstream.configstore.checking import fsck_config
from runstream.configstore.projection import ConfigProjection
from runstream.configstore.reading import fold_up_to
from runstream.counting import counted
from runstream.datamanager.agreement import ArchiveReport, check_archive
from runstream.datamanager.archive import Archive
from runstream.datamanager.fence import PostgresFence
from runstream.datamanager.startup import deployment_in_nats
from runstream.errors import BadRequestError, InternalError
from runstream.jetstream.connection import nats_connection
from runstream.jetstream.messaging import Questions
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.log.streams import described
from runstream.log.tail import resolve_position
from runstream.objects import ObjectStorage
from runstream.objects.open import open_objects
from runstream.projections.as_of import position_at
from runstream.projections.fsck import FsckReport, fsck
from runstream.projections.ownership import own_all_partitions
from runstream.projections.rebuild import Rebuilt, ends_of, rebuild, rebuild_into, rebuild_lock
from runstream.retention.checking import ObjectsCheck, ObjectsReport
from runstream.service.configuration import OfService, ServerOptions, StorageOptions, settings_of
from runstream.service.connections import Connections, connected, migrated_database
from runstream.service.progress import steps
from runstream.service.servers import reached
from runstream.service.stalls import Consumed
from runstream.settings import Settings
from runstream.snapshots.export import parse_until


@dataclass(frozen=True, slots=True)
class _Found:
    rows: FsckReport
    archive: ArchiveReport | None
    """None with --no-archive."""
    objects: ObjectsReport | None
    """None with --no-objects."""
    stalls: list[Stall]
    """Stalled consumers; not a difference, because rows and archive are compared only up to their positions."""


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
    found = uvloop.run(_fsck(settings, partition, with_archive=archive, with_objects=with_objects))
    if output == "json":
        print_json(_json(found))
    else:
        archived = found.archive.lines() if found.archive is not None else []
        stored = found.objects.lines() if found.objects is not None else []
        stalled = [line for stall in found.stalls for line in (str(stall), f"  {with_program(stall.todo)}")]
        say("\n".join([*found.rows.lines(), *archived, *stored, *stalled]))
    return max(part.exit_status for part in (found.rows, found.archive, found.objects) if part is not None)


async def _fsck(settings: Settings, partitions: list[int] | None, *, with_archive: bool, with_objects: bool) -> _Found:
    async with connected(settings, "runstream fsck", pool_size=2) as at:
        storage = await _storage(at.settings) if with_archive or with_objects else None
        _require_partitions(at.log, partitions)
        rows = await fsck(at.database, at.log, partitions)
        if partitions is None and await described(at.nats, at.log.subjects.namespace, SERVICE) is not None:
            async with await open_log(at.nats, at.log.subjects.namespace, SERVICE) as config:
                await fsck_config(at.database, config, rows)
        archive = await _archive(storage, at, partitions) if storage is not None and with_archive else None
        objects: ObjectsReport | None = None
        if storage is not None and with_objects:
            objects = await ObjectsCheck(at.log, storage, at.database).run()
        return _Found(rows, archive, objects, await _stalls(at, storage))


async def _stalls(at: Connections, storage: ObjectStorage | None) -> list[Stall]:
    questions = Questions(at.nats)
    stalls = await Consumed(at.log, at.database, questions, storage).stalls()
    if await described(at.nats, at.log.subjects.namespace, SERVICE) is not None:
        async with await open_log(at.nats, at.log.subjects.namespace, SERVICE) as config:
            stalls += await Consumed(config, at.database, questions, storage).stalls()
    return stalls


async def _storage(settings: Settings) -> ObjectStorage:
    try:
        return await open_objects(settings, make=False)
    except InternalError as error:
        hint = f"{error.hint}; --no-archive leaves the archive out, and the objects"
        raise InternalError(error.message, code=error.code, details=error.details, hint=hint) from error


async def _archive(storage: ObjectStorage, at: Connections, partitions: list[int] | None) -> ArchiveReport:
    subjects = at.log.subjects
    deployment = await deployment_in_nats(at.nats, subjects.namespace)
    fence = PostgresFence(at.database, subjects.service, subjects.epoch)
    return await check_archive(Archive(storage, subjects), at.log, deployment, fence, partitions)


def _require_partitions(log: JetStreamLog, partitions: list[int] | None) -> None:
    wrong = [number for number in partitions or () if not 0 <= number < log.partitions]
    if wrong:
        raise BadRequestError(
            f"the log has no partition {wrong[0]}",
            code="invalidPartition",
            hint=f"its partitions are 0 to {log.partitions - 1}",
        )


def _json(found: _Found) -> dict[str, object]:
    rows, archive = found.rows, found.archive
    return {
        "commits": rows.commits,
        "rows": rows.rows,
        "count": rows.count,
        "differences": [str(difference) for difference in rows.differences],
        "archive": None if archive is None else asdict(archive),
        "objects": None if found.objects is None else asdict(found.objects),
        "stalls": [msgspec.structs.asdict(stall) for stall in found.stalls],
    }


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

"""`runstream export`: write the log of a deployment to one file while the service keeps running."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import Parameter

from runstream.cli.client_session import service_errors
from runstream.cli.config_inputs import Flag
from runstream.cli.connection import connect, global_options, named_url
from runstream.commits import LogPosition
from runstream.configstore.reading import parked_as_of
from runstream.counting import counted
from runstream.database import Database
from runstream.database.epochs import remember_export
from runstream.errors import BadRequestError
from runstream.garbage import collect_seldom
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import open_log
from runstream.log.port import ReadableLog
from runstream.maintenance.request import SERVICE
from runstream.objects.open import open_objects
from runstream.projections.parked import ParkedCommit, parked_at
from runstream.service.configuration import Service, StorageOptions, settings_of
from runstream.service.progress import progress
from runstream.service.servers import reached
from runstream.settings import Settings
from runstream.snapshots.container import Send
from runstream.snapshots.export import (
    ExportProgress,
    FurtherLog,
    Resumed,
    export,
    file_name,
    parse_kinds,
    parse_until,
    plan_all,
)
from runstream.snapshots.manifest import Manifest, ObjectKind
from runstream.snapshots.objects import object_writer
from runstream.snapshots.partial_file import SnapshotFile
from runstream.snapshots.reading import open_snapshot
from runstream.snapshots.signing import SigningKey
from runstream.subjects import Subjects

SERVICES: tuple[Service, ...] = ("runs", "config")
"""The services of an export, that of the projects second: its log ends later."""
STDOUT = "-"
_CLIENT = "runstream export"


@dataclass(frozen=True, slots=True)
class _Request:
    """The options of an export."""

    services: tuple[Service, ...]
    until: LogPosition | datetime | None
    kinds: tuple[ObjectKind, ...]
    key: SigningKey | None


def export_command(
    *,
    output: Annotated[str | None, Parameter(name=["--output", "-o", "--out"], allow_leading_hyphen=True)] = None,
    service: Service | None = None,
    until: str | None = None,
    include: Annotated[str, Parameter(name="--with")] = "",
    sign: Path | None = None,
    resume: Flag = False,
    options: StorageOptions | None = None,
) -> None:
    """Export all runs, users, projects and secrets as one file that can be verified, read with tar, zstd and jq, and
    imported anywhere.

    It is the log as of one position of each partition, taken at the beginning; nothing stops meanwhile. With --url
    it comes from the service's API, else from the log itself.

    Parameters
    ----------
    output
        File to write; - for stdout. Default: a name with the namespace and the time.
    service
        Export only this service: runs, or config (users, projects, secrets), whose secrets stay sealed. Default: both.
    until
        Export only up to a time such as 2026-11-23T02:16:40Z, local without a zone; or, of one service, to a position
        (EPOCH:SEQUENCE,…).
    include
        Objects to include: logs, archives, or both separated by a comma.
    sign
        Sign with this private key, made by `runstream snapshot keygen`.
    resume
        Continue an interrupted export to this file; its complete segments are kept.
    """
    collect_seldom()
    asked = _Request(
        SERVICES if service is None else (service,),
        parse_until(until or "", local=True),
        parse_kinds(include),
        SigningKey.read(sign) if sign is not None else None,
    )
    options = options or StorageOptions()
    if "nats_url" not in options.given() and named_url(global_options(), os.environ):
        if resume or sign is not None:
            raise BadRequestError(
                "an export through the API can be neither signed nor resumed",
                code="exportNotPossible",
                hint="reach the log itself, with --nats-url and --database-url or on the machine of the service",
            )
        uvloop.run(_from_service(service, output, until or "", include))
    else:
        uvloop.run(_from_log(settings_of(options), asked, output, resume=resume))


async def _from_log(settings: Settings, asked: _Request, output: str | None, *, resume: bool) -> None:
    if output == STDOUT:
        if resume:
            raise BadRequestError("stdout cannot be resumed", code="exportNotPossible", hint="name a file with -o")
        manifest = await _export(settings, asked, _stdout, None)
        _report(manifest, "stdout")
        return
    file = SnapshotFile(Path(output or _name(settings.namespace, asked.services)), resuming=resume)
    try:
        with file:
            if file.replaced:
                sys.stderr.write(f"replacing the part of an interrupted export in {file.part}\n")
            manifest = await _export(settings, asked, file.send, file.resumed)
            await file.finish()
    finally:
        if file.begun:
            sys.stderr.write(f"the partial export is in {file.part}; continue with -o {file.path} --resume\n")
    _report(manifest, str(file.path))


async def _export(settings: Settings, asked: _Request, send: Send, resumed: Resumed | None) -> Manifest:
    async with (
        reached(settings) as (complete, _),
        nats_connection(complete.nats_url, _CLIENT) as client,
        AsyncExitStack() as opened,
        Database(complete.database_url, complete.database_schema, pool_size=1, application=_CLIENT) as database,
    ):
        logs = [
            await opened.enter_async_context(await open_log(client, complete.namespace, service))
            for service in asked.services
        ]
        log, parked = logs[0], partial(_parked, logs, database)
        further: Sequence[FurtherLog] = ()
        if resumed is not None:
            _require_same(resumed, log.subjects == resumed.header.subjects, asked)
            planned = resumed.header
        else:
            planned, further = await plan_all(logs, datetime.now(UTC), asked.until, asked.kinds, parked)
        storage = await open_objects(complete, make=False) if planned.objects else None
        writer = object_writer(storage, planned.objects) if storage is not None else None
        with progress("exporting") as step:
            state = ExportProgress(tell=lambda now: step(now.commits, now.total))
            return await export(
                log,
                send,
                planned,
                further=further,
                key=asked.key,
                objects=writer,
                parked=parked,
                remember=partial(remember_export, database),
                resumed=resumed,
                progress=state,
            )


async def _parked(
    logs: Sequence[ReadableLog], database: Database, subjects: Subjects, positions: tuple[int, ...]
) -> Sequence[ParkedCommit]:
    log = next(one for one in logs if one.subjects == subjects)
    if log.subjects.service == SERVICE:
        return await parked_at(log, database, positions)
    return await parked_as_of(log, positions)


def _require_same(resumed: Resumed, same_log: bool, asked: _Request) -> None:
    """Raise BadRequestError unless the resumed export has the same log and the same options."""
    header = resumed.header
    if not same_log:
        raise BadRequestError(
            f"the file was begun from another log: {header.namespace}, epoch {header.epoch}",
            code="otherLog",
            hint="delete the partial file and export again",
        )
    until = asked.until if isinstance(asked.until, datetime) else None
    begun_so = asked.until is None or until == header.until or asked.until == LogPosition(header.epoch, header.ends)
    same_services = asked.services == (header.service, *header.also)
    if not begun_so or not same_services or (asked.kinds and asked.kinds != header.objects):
        raise BadRequestError(
            "the file was begun with another --service, --until or --with",
            code="otherExport",
            hint="repeat the options of the first export",
        )


async def _from_service(service: Service | None, output: str | None, until: str, include: str) -> None:
    with service_errors():
        async with connect() as client:
            chunks = client.snapshots.export(service or "", until=until, include=include)
            if output == STDOUT:
                async for chunk in chunks:
                    await _stdout(chunk)
                return
            path = Path(output or _name("runstream", SERVICES if service is None else (service,)))
            with SnapshotFile(path, resuming=False) as file:
                async for chunk in chunks:
                    await file.send(chunk)
                file.flush()
                with open_snapshot(file.part) as snapshot:
                    manifest = snapshot.manifest
                await file.finish()
    _report(manifest, str(file.path))


def _name(namespace: str, services: Sequence[Service]) -> str:
    return file_name(namespace, services, datetime.now(UTC))


async def _stdout(content: bytes) -> None:
    if sys.stdout.isatty():
        raise BadRequestError(
            "refusing to write a snapshot to a terminal",
            code="exportNotPossible",
            hint="redirect stdout, or use -o FILE",
        )
    await asyncio.to_thread(sys.stdout.buffer.write, content)


def _report(manifest: Manifest, where: str) -> None:
    """Report on stderr, because stdout may be the snapshot."""
    objects = sum(found.objects for found in manifest.objects)
    more = f", {counted(objects, 'object')}" if objects else ""
    also = " of runs, and the users, projects and secrets," if manifest.logs else ""
    if manifest.parked:
        parked = counted(len(manifest.parked), "aggregate")
        sys.stderr.write(f"exported with the parked commits of {parked}\n")
    sys.stderr.write(
        f"exported {counted(manifest.commits, 'commit')} ({counted(manifest.event_count, 'event')}{more}){also} "
        f"to {where}; left out: {'; '.join(manifest.left_out)}\n"
    )

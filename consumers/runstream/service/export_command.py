"""`runstream export`: write the log of a deployment to one file while the service keeps running."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
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
from runstream.snapshots.export import ExportProgress, Resumed, export, parse_kinds, parse_until, plan
from runstream.snapshots.manifest import Manifest, ObjectKind
from runstream.snapshots.objects import object_writer
from runstream.snapshots.partial_file import SnapshotFile
from runstream.snapshots.reading import open_snapshot
from runstream.snapshots.signing import SigningKey
from runstream.subjects import Subjects

STDOUT = "-"
_CLIENT = "runstream export"


@dataclass(frozen=True, slots=True)
class _Request:
    """The options of an export."""

    service: Service
    until: LogPosition | datetime | None
    kinds: tuple[ObjectKind, ...]
    key: SigningKey | None


def export_command(
    *,
    output: Annotated[str | None, Parameter(name=["--output", "-o"], allow_leading_hyphen=True)] = None,
    service: Service = "runs",
    until: str | None = None,
    include: Annotated[str, Parameter(name="--with")] = "",
    sign: Path | None = None,
    resume: Flag = False,
    options: StorageOptions | None = None,
) -> None:
    """Export the log as one file that can be verified, read with tar, zstd and jq, and imported anywhere.

    It is the log as of one position of each partition, taken at the beginning; nothing stops meanwhile. With --url
    it comes from the service's API, else from the log itself.

    Parameters
    ----------
    output
        File to write; - for stdout. Default: a name with the namespace and the time.
    service
        The service to export: runs, or config (users, projects, secrets), whose secrets stay sealed.
    until
        Export only up to a position (EPOCH:SEQUENCE,…) or a time such as 2026-11-23T02:16:40Z; local without a zone.
    include
        Objects to include: logs, archives, or both separated by a comma.
    sign
        Sign with this private key, made by `runstream snapshot keygen`.
    resume
        Continue an interrupted export to this file; its complete segments are kept.
    """
    collect_seldom()
    asked = _Request(
        service,
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
    named = settings.namespace if asked.service == SERVICE else f"{settings.namespace}-{asked.service}"
    file = SnapshotFile(Path(output or _name(named)), resuming=resume)
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
        await open_log(client, complete.namespace, asked.service) as log,
        Database(complete.database_url, complete.database_schema, pool_size=1, application=_CLIENT) as database,
    ):
        if resumed is not None:
            _require_same(resumed, log.subjects == resumed.header.subjects, asked)
        planned = resumed.header if resumed else await plan(log, datetime.now(UTC), asked.until, asked.kinds)
        storage = await open_objects(complete, make=False) if planned.objects else None
        writer = object_writer(storage, planned.objects) if storage is not None else None
        with progress("exporting") as step:
            state = ExportProgress(tell=lambda now: step(now.commits, now.total))
            return await export(
                log,
                send,
                planned,
                key=asked.key,
                objects=writer,
                parked=partial(_parked, log, database),
                remember=partial(remember_export, database),
                resumed=resumed,
                progress=state,
            )


async def _parked(
    log: ReadableLog, database: Database, _: Subjects, positions: tuple[int, ...]
) -> Sequence[ParkedCommit]:
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
    if not begun_so or (asked.kinds and asked.kinds != header.objects):
        raise BadRequestError(
            "the file was begun with another --until or --with",
            code="otherExport",
            hint="repeat the options of the first export, or leave them out",
        )


async def _from_service(service: Service, output: str | None, until: str, include: str) -> None:
    with service_errors():
        async with connect() as client:
            chunks = client.snapshots.export(service, until=until, include=include)
            if output == STDOUT:
                async for chunk in chunks:
                    await _stdout(chunk)
                return
            with SnapshotFile(
                Path(output or _name("runstream" if service == SERVICE else f"runstream-{service}")), resuming=False
            ) as file:
                async for chunk in chunks:
                    await file.send(chunk)
                file.flush()
                with open_snapshot(file.part) as snapshot:
                    manifest = snapshot.manifest
                await file.finish()
    _report(manifest, str(file.path))


def _name(namespace: str) -> str:
    return f"{namespace}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.snapshot.tar"


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
    if manifest.parked:
        parked = counted(len(manifest.parked), "aggregate")
        sys.stderr.write(f"exported with the parked commits of {parked}\n")
    sys.stderr.write(
        f"exported {counted(manifest.commits, 'commit')} ({counted(manifest.event_count, 'event')}{more}) to {where}; "
        f"left out: {'; '.join(manifest.left_out)}\n"
    )

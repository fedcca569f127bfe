"""`runstream import` and `runstream epochs`: replace the log with a snapshot, list epochs, go back to one, delete one.

An import makes a new epoch and switches to it in one step: a killed import leaves the old log or the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import Parameter

from runstream.api import ImportReport
from runstream.cli.client_session import service_errors
from runstream.cli.config_inputs import Flag
from runstream.cli.confirming import require_confirmed
from runstream.cli.connection import connect, global_options, named_url, with_program
from runstream.cli.output import Cell, Column, Output, print_items, print_json, say, timestamp, warn
from runstream.client import ImportProgress
from runstream.counting import counted
from runstream.database.epochs import Epoch
from runstream.errors import BadRequestError
from runstream.garbage import collect_seldom
from runstream.importing.epochs import HoldMaintenance, ListedEpoch, ServicePlace, activate, delete, listed_epochs
from runstream.importing.importer import (
    ImportPart,
    Verified,
    import_snapshot,
    of_services,
    older_than,
    preview_import,
    verify_file,
)
from runstream.jetstream.connection import nats_connection
from runstream.maintenance.lock import maintained_service
from runstream.maintenance.request import SERVICE, SERVICES
from runstream.objects.open import open_objects
from runstream.service.configuration import OfService, ServerOptions, Service, StorageOptions, settings_of
from runstream.service.connections import migrated_database
from runstream.service.progress import StepCallback, progress, steps
from runstream.service.servers import reached
from runstream.settings import Settings
from runstream.snapshots.errors import name_file_in_errors
from runstream.snapshots.reading import open_snapshot
from runstream.snapshots.signing import read_public_key

PublicKey = Annotated[Path | None, Parameter(help="Require a signature by this public key (PEM).")]
Number = Annotated[int, Parameter(help="Number of the epoch, as `runstream epochs list` shows it.")]
_PIECE_BYTES = 1 << 20
_COLUMNS: dict[Column, Callable[[ListedEpoch], Cell]] = {
    Column("epoch"): lambda one: str(one.epoch),
    Column("state"): lambda one: "current" if one.current else one.state,
    Column("partitions", drop=1): lambda one: str(one.partitions),
    Column("commits"): lambda one: f"{one.commits:,}",
    Column("made"): lambda one: timestamp(one.created),
    Column("from", wraps=True): lambda one: one.origin or "begun here",
}


@contextlib.asynccontextmanager
async def connected_place(
    settings: Settings, service: Service = "runs"
) -> AsyncIterator[tuple[ServicePlace, HoldMaintenance]]:
    """Connect to what importing needs until the block ends. Raise InternalError for a server that is unreachable."""
    async with (
        migrated_database(settings, "runstream import", pool_size=4) as database,
        nats_connection(settings.nats_url, "runstream import") as client,
    ):
        place = ServicePlace(client, settings.nats_url, database, settings.namespace, service, settings.replicas)
        yield place, (await maintained_service(client, settings, service)).hold


def import_command(
    file: Path | None = None,
    /,
    *,
    named: Annotated[Path | None, Parameter(name="--in", allow_leading_hyphen=True)] = None,
    follow: Flag = False,
    dry_run: Flag = False,
    key: PublicKey = None,
    service: Service | None = None,
    merge: Annotated[bool, Parameter(negative="", show=False)] = False,
    output: Output = "table",
    options: StorageOptions | None = None,
) -> None:
    """Replace all runs, users, projects and secrets with a snapshot. Requires maintenance mode of each service in it,
    with every process parked (waiting, nothing running).

    The whole file is verified before anything changes. It is loaded beside the current logs and replaces them in one
    step: whenever it is killed, there is all of the old state or all of the new one, and the import can be repeated.
    The old log is kept: `runstream epochs activate` goes back to it, `runstream epochs delete` deletes it.

    Parameters
    ----------
    file
        The snapshot file.
    named
        The snapshot file, in place of FILE.
    follow
        Reattach to an import that is still running on the service, instead of giving a file.
    dry_run
        Verify the snapshot and show what would change, without changing anything. With --url this requires maintenance
        mode.
    service
        Replace the log of this service only: runs, or config (users, projects, secrets). Default: all in the file.
    """
    if merge:
        raise BadRequestError(
            "two logs cannot be merged: each numbers its own runs and orders its own commits, and decisions in one are "
            "made without the other",
            code="mergeNotOffered",
            hint="import into a deployment of its own (another namespace and database schema), or replace this one's "
            "log",
        )
    collect_seldom()
    options = options or StorageOptions()
    if follow:
        _print_report(uvloop.run(_followed(service)), output)
        return
    if file is not None and named is not None:
        raise BadRequestError("two snapshot files are given", code="noSnapshot", hint="runstream import FILE")
    if (file := file or named) is None:
        raise BadRequestError("no snapshot file is given", code="noSnapshot", hint="runstream import FILE")
    if "nats_url" not in options.given() and named_url(global_options(), os.environ):
        _print_report(uvloop.run(_by_service(file, service, dry=dry_run, key=key)), output)
        return
    public_key = read_public_key(key) if key is not None else ""
    settings = settings_of(options)
    with name_file_in_errors(file), steps() as report:
        verified = verify_file(file, public_key, report, trusted=settings.import_trusted_keys)
        snapshots = of_services(verified, SERVICES if service is None else (service,))
    with name_file_in_errors(file):
        _print_report(uvloop.run(_import(settings, snapshots, dry=dry_run)), output, warned=True)


def _print_report(done: ImportReport, output: str, *, warned: bool = False) -> None:
    if not warned:  # an import by this process warns before it begins
        _warn_of_older(one.older for one in (done, *done.also))
    if output == "json":
        print_json(done)
    else:
        say(with_program("\n".join(lines_of(done))))


def _warn_of_older(texts: Iterable[str]) -> None:
    for older in dict.fromkeys(filter(None, texts)):  # both services of one later file have the same words
        warn(f"warning: {older}")


async def _by_service(file: Path, service: Service | None, *, dry: bool, key: Path | None) -> ImportReport:
    if key is not None:
        with name_file_in_errors(file), open_snapshot(file, public_key=read_public_key(key)):
            pass  # only the signature: the service verifies everything else
    with service_errors(), _shown() as (step, report):
        async with connect() as client:
            pieces = _pieces(file, step)
            return await client.snapshots.load(pieces, service or "", name=file.name, dry_run=dry, tell=report)


async def _followed(service: Service | None) -> ImportReport:
    with service_errors(), steps() as report:
        async with connect() as client:
            return await client.snapshots.follow(lambda now: report(now.step, now.done, now.total), service or "")


@contextlib.contextmanager
def _shown() -> Iterator[tuple[StepCallback, Callable[[ImportProgress], None]]]:
    """Show the progress of the upload, then of the service."""
    with contextlib.ExitStack() as sending, steps() as report:
        step = sending.enter_context(progress("sending", "MiB"))

        def show(now: ImportProgress) -> None:
            sending.close()
            report(now.step, now.done, now.total)

        yield step, show


async def _pieces(file: Path, step: StepCallback) -> AsyncIterator[bytes]:
    try:
        sent = 0
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            while piece := await asyncio.to_thread(opened.read, _PIECE_BYTES):
                yield piece
                sent += len(piece)
                step(sent >> 20, size >> 20)
    except OSError as error:
        raise BadRequestError(f"{file} cannot be read: {error.strerror}", code="noSnapshot") from error


async def _import(settings: Settings, snapshots: Sequence[Verified], *, dry: bool) -> ImportReport:
    async with reached(settings) as (complete, _), contextlib.AsyncExitStack() as connections:
        parts = []
        for snapshot in snapshots:
            service: Service = "config" if snapshot.header.service == "config" else "runs"
            place, hold = await connections.enter_async_context(connected_place(complete, service))
            parts.append(ImportPart(place, hold, snapshot))
        _warn_of_older([await older_than(part.place, part.snapshot) for part in parts])
        if dry:
            return await preview_import(parts)
        storage = await open_objects(complete) if any(snapshot.objects for snapshot in snapshots) else None
        with steps() as report:
            return await import_snapshot(parts, storage, report)


def lines_of(done: ImportReport) -> list[str]:
    """Return what was imported, or would be, as lines for people."""
    reports = (done, *done.also)
    lines = [line for one in reports for line in _lines_of_log(one)]
    if done.dry:
        return [*lines, "nothing was changed"]
    return [*lines, *(f"next       runstream maintenance disable{_of(one.service)}" for one in reports)]


def _lines_of_log(done: ImportReport) -> list[str]:
    service = done.service
    where = f"{done.namespace}, {done.position}, exported {done.created}"
    signed = f", signed by {done.signer}" if done.signer else ", not signed"
    runs = f", {counted(done.runs, 'run')}" if service == SERVICE else " of users, projects and secrets"
    holds = f"{counted(done.commits, 'commit')}{runs}"
    lines = [f"snapshot   {where}{signed}", f"           {holds}"]
    if done.partitions != done.here_partitions:
        lines.append(f"           of {counted(done.partitions, 'partition')}, put into {done.here_partitions}")
    if done.parked_in_source:
        lines.append(f"           {done.parked_in_source:,} of them parked in the source, to be tried again here")
    if done.dry:
        lines.append(f"replaces   epoch {done.here_epoch} with {counted(done.replaced_commits, 'commit')}")
        lines += [f"objects    {done.objects:,}; missing ones would be stored"] if done.objects else []
        return lines
    lines.append(f"imported   as epoch {done.here_epoch}, in place of {counted(done.replaced_commits, 'commit')}")
    if done.objects:
        lines.append(f"objects    {done.objects_added:,} stored, {done.objects - done.objects_added:,} were there")
    if done.parked:
        lines.append(
            f"parked     {counted(done.parked, 'commit')} could not be applied: runstream parked list{_of(service)}"
        )
    return lines


def _of(service: str) -> str:
    return "" if service == SERVICE else f" --service {service}"


def list_command(
    *, service: OfService = "runs", output: Output = "table", options: ServerOptions | None = None
) -> None:
    """List the epochs of the log: the one that is served, and those that imports have left."""
    epochs = uvloop.run(_list(settings_of(options), service))
    if output == "json":
        print_json(epochs)
    else:
        print_items(epochs, _COLUMNS, "there is no epoch")


def activate_command(epoch: Number, /, *, service: OfService = "runs", options: ServerOptions | None = None) -> None:
    """Serve another epoch, from where it was left. The service has to be in maintenance, with every instance parked."""
    parked = uvloop.run(_activate(settings_of(options), service, epoch))
    parked_note = f"; {counted(parked, 'commit')} could not be applied, see `runstream parked list`" if parked else ""
    say(
        with_program(
            f"epoch {epoch} is the current one{parked_note}\nnext       runstream maintenance disable{_of(service)}"
        )
    )


def delete_command(
    epoch: Number, /, *, service: OfService = "runs", yes: Flag = False, options: ServerOptions | None = None
) -> None:
    """Delete an epoch that is not the current one, with all of its commits, for ever.

    Parameters
    ----------
    yes
        Confirm the deletion.
    """
    require_confirmed(f"delete all commits of epoch {epoch}?", yes=yes)
    gone = uvloop.run(_delete(settings_of(options), service, epoch))
    say(f"epoch {gone.number} is deleted; its archive in the object storage, if it has one, stays")


async def _list(settings: Settings, service: Service) -> list[ListedEpoch]:
    async with reached(settings) as (complete, _), connected_place(complete, service) as (place, _):
        return await listed_epochs(place)


async def _activate(settings: Settings, service: Service, epoch: int) -> int:
    async with reached(settings) as (complete, _), connected_place(complete, service) as (place, hold):
        with steps() as report:
            return await activate(place, epoch, hold, report)


async def _delete(settings: Settings, service: Service, epoch: int) -> Epoch:
    async with reached(settings) as (complete, _), connected_place(complete, service) as (place, _):
        return await delete(place, epoch)

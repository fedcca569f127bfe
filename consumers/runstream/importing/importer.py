"""Imports: `runstream import`, and the same through the API.

    verified -> all instances parked -> new epoch recorded -> streams created -> loaded, rows beside -> objects stored
    -> switched -> NATS told

Nothing in use changes before the switch. The next import removes what a killed one leaves behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from runstream import config_folding
from runstream.api import ImportReport
from runstream.commits import LogPosition
from runstream.database.epochs import Epoch, begin_epoch, current_epoch, last_export, list_epochs
from runstream.errors import BadRequestError, InternalError, RunstreamError
from runstream.ids import new_id
from runstream.importing.epochs import (
    EpochRows,
    EpochSwitch,
    HoldMaintenance,
    ListedEpoch,
    ServicePlace,
    epochs_in_nats,
    listed_epochs,
    remove_epoch,
    remove_leftovers,
    rows_beside,
    rows_of_config,
    switch,
)
from runstream.importing.loading import (
    LoadFromSnapshot,
    Target,
    hash_of,
    load_config,
    load_from_snapshot,
    open_verified,
    store_objects,
)
from runstream.importing.repartition import repartition
from runstream.importing.trusted_keys import announced_trusted_keys, fingerprints, require_signer
from runstream.log import streams
from runstream.maintenance.request import SERVICES
from runstream.objects.port import ObjectStorage
from runstream.projections.rebuild import MANY, OnStage, adding_up, rebuild_lock
from runstream.projections.rebuild_processes import available_cpus, run_in_processes
from runstream.projections.rebuild_schema import drop, make_empty, make_indexes
from runstream.snapshots.manifest import Manifest, SnapshotHeader
from runstream.snapshots.reading import open_snapshot
from runstream.snapshots.verify import verify

log = structlog.get_logger()
_IMPORTED = re.compile(r"import of .*: (\S+), \S+, exported (\S+)", re.DOTALL)
"""The origin of an epoch that was imported."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A snapshot that passed verification."""

    path: Path
    name: str
    """Its name in messages."""
    header: SnapshotHeader
    manifest: Manifest
    signer: str
    """Fingerprint of the signing key; empty when the snapshot is not signed."""
    parked: int
    """Number of its commits that were parked in the source."""

    @property
    def objects(self) -> int:
        """Number of its objects."""
        return sum(listed.objects for listed in self.manifest.objects)


def verify_file(
    path: Path, public_key: str, say: OnStage, name: str = "", trusted: Sequence[str] = ()
) -> tuple[Verified, ...]:
    """Verify a whole snapshot, called `name` in messages (default: the name of its file); return it by service.

    With `trusted` (paths of PEM files), it must be signed with one of these keys. CPU-bound, in several processes.
    Raises SnapshotError with the first problem, BadRequestError for a key that cannot be read.
    """
    if trusted:
        with open_snapshot(path) as snapshot:
            require_signer(snapshot.signer, fingerprints(trusted))
    report = verify(path, public_key=public_key, tell=lambda done, total: say("verifying", done, total))
    report.require_good()
    return tuple(
        Verified(path, name or path.name, one.header, one.manifest, one.signer, one.parked)
        for one in report.all
        if one.header is not None and one.manifest is not None
    )


def of_services(snapshots: Sequence[Verified], services: Collection[str] = SERVICES) -> tuple[Verified, ...]:
    """Return the snapshots of these services, that of runs first. Raises BadRequestError when there is none.

    An import of all services needs to know all that the file holds.
    """
    found = {one.header.service: one for one in snapshots}
    unknown = sorted(found.keys() - {*SERVICES})
    chosen = tuple(found[service] for service in SERVICES if service in services and service in found)
    if not chosen or (unknown and {*services} == {*SERVICES}):
        held = ", ".join(found)[:80]
        raise BadRequestError(
            f"{snapshots[0].name} is a snapshot of the service {held}, not of {' or '.join(services)}",
            code="otherService",
            hint="which Runstream wrote it?" if unknown else f"import it with --service {held}",
        )
    return chosen


@dataclass(frozen=True, slots=True)
class ImportPart:
    """The log of one service that an import replaces, and what replaces it."""

    place: ServicePlace
    hold: HoldMaintenance
    snapshot: Verified


async def _require_importable(part: ImportPart) -> None:
    """Raise SnapshotError unless the snapshot is signed as gateways require."""
    place = part.place
    require_signer(part.snapshot.signer, await announced_trusted_keys(place.nats, place.namespace, place.service))


async def older_than(place: ServicePlace, snapshot: Verified) -> str:
    """Return the later snapshot of the same log that was imported or exported here; empty without one."""
    namespace = snapshot.header.namespace
    times = [
        (datetime.fromisoformat(found[2]), "imported")
        for epoch in await list_epochs(place.database, place.service)
        if (found := _IMPORTED.fullmatch(epoch.origin)) and found[1] == namespace
    ]
    if exported := await last_export(place.database, place.service, namespace):
        times.append((exported, "exported"))
    created = snapshot.header.created
    last, how = max(times, default=(created, ""))
    if last <= created:
        return ""
    return (
        f"{snapshot.name} was exported {_shown(created)}, and a later snapshot of {namespace}, of "
        f"{_shown(last)}, was {how} here before: what the log has since then is not in this one"
    )


def _shown(at: datetime) -> str:
    """Format a time in UTC: the reader may be in another zone than the service."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


async def preview_import(parts: Sequence[ImportPart]) -> ImportReport:
    """Return what an import would change, without changing anything."""
    reports = []
    for part in parts:
        await _require_importable(part)
        place, old = part.place, await current_epoch(part.place.database, part.place.service)
        older = await older_than(place, part.snapshot)
        reports.append(_report(part.snapshot, old, old, await place.commits(old), older, dry=True))
    return _together(reports)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """One part in a new epoch that is not served yet."""

    part: ImportPart
    change: EpochSwitch
    replaced: int
    """Number of commits of the old epoch."""
    older: str
    added: int
    """Number of objects that the storage did not have."""

    def report(self) -> ImportReport:
        """Return the report once the epoch is served."""
        change, snapshot = self.change, self.part.snapshot
        parked = change.rows.parked
        log.info("A snapshot was imported", action="snapshot_imported", epoch=change.new.number, parked=parked)
        return _report(snapshot, change.old, change.new, self.replaced, self.older, added=self.added, parked=parked)


async def import_snapshot(parts: Sequence[ImportPart], storage: ObjectStorage | None, say: OnStage) -> ImportReport:
    """Replace the log of each part by its snapshot, all in one step. All or nothing.

    A snapshot with objects needs `storage`. Raises BadRequestError when a service is not in maintenance,
    ConflictError with the instances that are not parked or the operation that runs, SnapshotError, InternalError.
    """
    for part in parts:
        await _require_importable(part)
    async with AsyncExitStack() as work:
        what = f"the import of {parts[0].snapshot.name}"
        held = [await work.enter_async_context(part.hold(what)) for part in parts]
        await work.enter_async_context(rebuild_lock(parts[0].place.database))
        for part in parts:
            await remove_leftovers(part.place)

        async def require() -> None:
            for maintenance in held:
                await maintenance.require()

        async with AsyncExitStack() as epochs:  # a failure before the switch removes all of them
            loaded = [await epochs.enter_async_context(_loaded(part, storage, say)) for part in parts]
            say("switching", 0, 0)
            await switch([one.change for one in loaded], require)
    return _together([one.report() for one in loaded])


def _together(reports: Sequence[ImportReport]) -> ImportReport:
    first, *others = reports
    return msgspec.structs.replace(first, also=tuple(others))


@contextlib.asynccontextmanager
async def _loaded(part: ImportPart, storage: ObjectStorage | None, say: OnStage) -> AsyncIterator[_Loaded]:
    """Load a part into a new epoch; remove it when the block fails before the switch."""
    place, snapshot = part.place, part.snapshot
    if older := await older_than(place, snapshot):
        log.warning(f"an older snapshot is imported: {older}", action="snapshot_older")
    old = await current_epoch(place.database, place.service)
    replaced = await place.commits(old)
    async with _new_epoch(place, old, snapshot) as new:
        rows = await _filled(place, old, new, snapshot, say)
        added = await _stored(snapshot, storage, say)
        yield _Loaded(part, EpochSwitch(place, old, new, rows), replaced, older, added)


@contextlib.asynccontextmanager
async def _new_epoch(place: ServicePlace, old: Epoch, snapshot: Verified) -> AsyncIterator[Epoch]:
    """Create a new epoch with empty streams; remove it when the block fails before the switch."""
    header, manifest = snapshot.header, snapshot.manifest
    position = LogPosition(header.epoch, manifest.positions)
    origin = f"import of {snapshot.name}: {header.namespace}, {position}, exported {header.created.isoformat()}"
    after = max(await epochs_in_nats(place), default=0)
    new = await begin_epoch(place.database, place.service, old.partitions, origin, after)
    try:
        await streams.create_streams(place.nats, place.subjects(new.number), new.partitions, place.replicas)
        yield new
    except BaseException:
        with contextlib.suppress(RunstreamError):  # the next import removes what is left; the first error counts
            await asyncio.shield(_roll_back(place, new))
        raise


async def _roll_back(place: ServicePlace, new: Epoch) -> None:
    if (await current_epoch(place.database, place.service)).number != new.number:
        await remove_epoch(place, new)
        await drop(place.database.url, place.beside)


async def _filled(place: ServicePlace, old: Epoch, new: Epoch, snapshot: Verified, say: OnStage) -> EpochRows:
    """Fill the streams of the new epoch, and return its rows."""
    into = place.rows_beside(new)
    if place.service == config_folding.SERVICE:
        tell = adding_up(say, "loading", snapshot.manifest.commits)
        fold = await load_config(Target(snapshot.path, hash_of(snapshot.manifest), into), tell)
        rows = rows_of_config(new.number, fold)
        await _require_loaded(place, new, rows)
        return rows
    indexes = await make_empty(into.database_url, into.schema)
    total = snapshot.manifest.commits
    tell = adding_up(say, "loading", total)
    target = Target(snapshot.path, hash_of(snapshot.manifest), into)
    if snapshot.header.partitions == new.partitions:
        works = [LoadFromSnapshot(target, partition) for partition in range(new.partitions)]
        sizes = snapshot.manifest.positions
        filled = await run_in_processes(load_from_snapshot, works, sizes, available_cpus() if total > MANY else 1, tell)
    else:
        # A long load runs in another process: this one has a lease to renew, and may serve an API.
        (filled,) = await run_in_processes(repartition, [target], [total], 2 if total > MANY else 1, tell)
    rows = rows_beside(place, filled)
    await _require_loaded(place, new, rows)
    say("making indexes", 0, 0)
    await make_indexes(into.database_url, into.schema, indexes)
    return rows


async def _require_loaded(place: ServicePlace, new: Epoch, rows: EpochRows) -> None:
    ends = await place.ends(new)
    if ends != rows.sequences:
        problem = f"the streams end at {ends}, and should end at {rows.sequences}"
        raise InternalError(problem, code="notLoaded", hint="import it again")


async def _stored(snapshot: Verified, storage: ObjectStorage | None, say: OnStage) -> int:
    """Store the missing objects; return their number."""
    if not snapshot.objects:
        return 0
    if storage is None:
        raise InternalError(
            "the snapshot has objects, but no object storage is configured for them", code="noObjectStorage"
        )
    with open_verified(snapshot.path, hash_of(snapshot.manifest)) as opened:
        return await store_objects(opened, storage, adding_up(say, "storing objects", snapshot.objects))


def _report(
    snapshot: Verified,
    old: Epoch,
    new: Epoch,
    replaced: int,
    older: str,
    *,
    added: int = 0,
    parked: int = 0,
    dry: bool = False,
) -> ImportReport:
    header, manifest = snapshot.header, snapshot.manifest
    return ImportReport(
        dry=dry,
        namespace=header.namespace,
        epoch=header.epoch,
        position=str(LogPosition(header.epoch, manifest.positions)),
        created=header.created.isoformat(),
        signer=snapshot.signer,
        commits=manifest.commits,
        events=manifest.event_count,
        runs=manifest.events.get("RunCreated", 0),
        partitions=header.partitions,
        here_epoch=new.number,
        here_partitions=old.partitions,
        replaced_commits=replaced,
        objects=snapshot.objects,
        objects_added=added,
        parked=parked,
        parked_in_source=snapshot.parked,
        older=older,
        service=header.service,
    )


_ROOM_BYTES = 256 << 20
"""Free bytes that an import's file leaves on the disk, so that the service's log can grow."""


@dataclass(frozen=True, slots=True)
class ImportedService:
    """A service whose log an import can replace."""

    place: ServicePlace
    hold: HoldMaintenance
    require_parked: Callable[[], Awaitable[None]]
    """Raises what `hold` would raise."""


@dataclass(slots=True)
class ServedImports:
    """Imports of services (see `runstream.gateway.routes.maintenance.Imports`)."""

    services: Sequence[ImportedService]
    """The services whose logs an import replaces, if the file holds them."""
    storage: ObjectStorage
    spool: Path
    """The folder of uploaded files during their import; it holds nothing else."""
    trusted_keys: Sequence[str] = ()
    """PEM files of trusted keys, one of which must have signed a snapshot; without any, no signature is needed."""

    def __post_init__(self) -> None:
        if self.spool.is_dir():
            for left in self.spool.iterdir():
                left.unlink()

    async def run(self, content: AsyncIterator[bytes], name: str, say: OnStage, *, dry_run: bool) -> ImportReport:
        """Import an uploaded snapshot, or return what the import would change."""
        await self._require_parked()
        with self._spooled() as path:
            await _take_in(content, path)
            say("verifying", 0, 0)
            verified = await asyncio.to_thread(verify_file, path, "", say, name, self.trusted_keys)
            services = {one.place.service: one for one in self.services}
            parts = [
                ImportPart(services[one.header.service].place, services[one.header.service].hold, one)
                for one in of_services(verified, services)
            ]
            if dry_run:
                return await preview_import(parts)
            return await import_snapshot(parts, self.storage, say)

    async def _require_parked(self) -> None:
        """Raise what the import would raise, before a large file is uploaded in vain: some service must be parked."""
        refused: RunstreamError | None = None
        for service in self.services:
            try:
                await service.require_parked()
            except RunstreamError as error:
                refused = refused or error
            else:
                return
        if refused is not None:
            raise refused

    async def epochs(self) -> list[ListedEpoch]:
        """List all epochs of the first service that are not deleted."""
        return await listed_epochs(self.services[0].place)

    @contextmanager
    def _spooled(self) -> Iterator[Path]:
        self.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.spool / new_id()
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _write(file: BinaryIO, chunk: bytes) -> None:
    """Write a chunk, if the disk keeps `_ROOM_BYTES` free for the service's log."""
    if shutil.disk_usage(file.name).free < _ROOM_BYTES + len(chunk):
        raise OSError(errno.ENOSPC, f"less than {_ROOM_BYTES >> 20} MiB would be left for the service")
    file.write(chunk)


async def _take_in(content: AsyncIterator[bytes], path: Path) -> None:
    try:
        with path.open("wb") as file:
            async for chunk in content:
                await asyncio.to_thread(_write, file, chunk)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise InternalError(
            f"the snapshot cannot be kept while it is imported: {error.strerror or error}",
            code="diskFull" if full else "spoolNotWritable",
            hint="free some space in the data directory of the gateway; nothing was changed",
        ) from error

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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import structlog

from runstream.database.epochs import Epoch, begin_epoch, current_epoch, last_export, list_epochs
from runstream.errors import InternalError, RunstreamError
from runstream.ids import new_id
from runstream.importing.epochs import (
    ListedEpoch,
    Occupy,
    ServicePlace,
    epochs_in_nats,
    listed_epochs,
    remove_epoch,
    remove_leftovers,
    switch,
)
from runstream.importing.loading import (
    LoadFromSnapshot,
    StoredObjects,
    Target,
    hash_of,
    load_from_snapshot,
    open_verified,
    store_objects,
)
from runstream.importing.repartition import repartition
from runstream.log import streams
from runstream.objects.port import ObjectStorage
from runstream.projections.rebuild import MANY, OnStage, rebuild_lock
from runstream.projections.rebuild_filling import Filled
from runstream.projections.rebuild_processes import available_cpus, run_in_processes
from runstream.projections.rebuild_schema import drop, make_empty, make_indexes, schema_beside
from runstream.snapshots.errors import SnapshotError
from runstream.snapshots.manifest import SIGNATURE, Manifest, SnapshotHeader
from runstream.snapshots.reading import open_snapshot
from runstream.snapshots.signing import fingerprint, read_public_key
from runstream.snapshots.verify import verify

log = structlog.get_logger()
_IMPORTED = re.compile(r"import of .*: (\S+), \S+, exported (\S+)", re.DOTALL)
"""The origin of an epoch that was imported."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A snapshot with which nothing is wrong."""

    path: Path
    name: str
    """What it is called, for people."""
    header: SnapshotHeader
    manifest: Manifest
    signer: str
    """Fingerprint of the signing key; empty when the snapshot is not signed."""
    parked: int
    """How many of its commits were parked where it was exported."""

    @property
    def objects(self) -> int:
        """How many objects it has."""
        return sum(listed.objects for listed in self.manifest.objects)


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import has done, or would do."""

    dry: bool
    """Whether nothing was changed."""
    namespace: str
    """Of the snapshot, like what follows."""
    epoch: int
    position: str
    created: str
    signer: str
    commits: int
    events: int
    runs: int
    partitions: int
    here_epoch: int
    """The epoch that is served after it; of a dry run the one that is served now."""
    here_partitions: int
    replaced_commits: int
    """How many commits the epoch has that is no longer served."""
    objects: int
    """How many objects the snapshot has."""
    objects_added: int
    """How many of them were not there."""
    parked: int
    """Commits that could not be applied."""
    parked_in_source: int
    """Commits that could not be applied where the snapshot was exported."""
    older: str
    """Which later snapshot of the same log was imported or exported here; empty when there was none."""


def verify_file(path: Path, public_key: str, say: OnStage, name: str = "", trusted: Sequence[str] = ()) -> Verified:
    """Check all of the snapshot, which is called `name` if not as its file.

    With `trusted` it has to be signed with one of these keys: paths of PEM files. Takes its time, and other processes.
    Raises SnapshotError that says what is wrong, BadRequestError for a key that cannot be read.
    """
    _require_trusted(path, trusted)
    report = verify(path, public_key=public_key, tell=lambda done, total: say("verifying", done, total))
    report.require_good()
    if report.header is None or report.manifest is None:
        raise InternalError("a good snapshot has no manifest", code="verifyFailed")
    return Verified(path, name or path.name, report.header, report.manifest, report.signer, report.parked)


def _require_trusted(path: Path, trusted: Sequence[str]) -> None:
    """Raises SnapshotError unless the snapshot is signed with one of these keys; nothing is asked without keys."""
    if not trusted:
        return
    keys = {fingerprint(read_public_key(Path(one).expanduser())) for one in trusted}
    with open_snapshot(path) as snapshot:
        if snapshot.signer not in keys:
            signed = f"it is signed with {snapshot.signer}" if snapshot.signer else "it is not signed"
            raise SnapshotError(
                SIGNATURE,
                f"{signed}, and this service takes only what is signed with {' or '.join(sorted(keys))}",
                code="notTrusted",
                hint="sign it when you export (--sign), or add the key's file to import_trusted_keys",
            )


async def older_than(place: ServicePlace, snapshot: Verified) -> str:
    """Say which later snapshot of the same log was imported or exported here; empty when there was none."""
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
        f"{snapshot.name} was exported {created.isoformat()}, and a later snapshot of {namespace}, of "
        f"{last.isoformat()}, was {how} here before: what the log has since then is not in this one"
    )


async def preview_import(place: ServicePlace, snapshot: Verified) -> Imported:
    """What an import would change; nothing is changed."""
    old = await current_epoch(place.database, place.service)
    found = _told(snapshot, old, old, await _commits_of(place, old), StoredObjects(0, 0), 0, dry=True)
    return replace(found, older=await older_than(place, snapshot))


async def import_snapshot(
    place: ServicePlace, snapshot: Verified, occupy: Occupy, storage: ObjectStorage | None, say: OnStage
) -> Imported:
    """Put the snapshot in the place of the log. All or nothing.

    `storage` is needed for a snapshot that has objects. Raises BadRequestError when the service is not in maintenance,
    ConflictError that names who is not parked or says what else goes on, SnapshotError, InternalError.
    """
    async with occupy(f"the import of {snapshot.name}") as occupied, rebuild_lock(place.database):
        if older := await older_than(place, snapshot):
            log.warning(f"an older snapshot is imported: {older}", action="snapshot_older")
        await remove_leftovers(place)
        old = await current_epoch(place.database, place.service)
        replaced = await _commits_of(place, old)
        async with _new_epoch(place, old, snapshot) as new:
            filled = await _loaded(place, old, new, snapshot, say)
            stored = await _stored(snapshot, storage, say)
            say("switching", 0, 0)
            await switch(place, old, new, schema_beside(place.database.schema), occupied.require)
    parked = sum(one.parked for one in filled)
    log.info("A snapshot was imported", action="snapshot_imported", epoch=new.number, parked=parked)
    return replace(_told(snapshot, old, new, replaced, stored, parked, dry=False), older=older)


@contextlib.asynccontextmanager
async def _new_epoch(place: ServicePlace, old: Epoch, snapshot: Verified) -> AsyncIterator[Epoch]:
    """A new epoch with empty streams; taken away again when the block fails before it was switched to."""
    header, manifest = snapshot.header, snapshot.manifest
    origin = f"import of {snapshot.name}: {header.namespace}, {_position(header, manifest)}"
    origin += f", exported {header.created.isoformat()}"
    after = max(await epochs_in_nats(place), default=0)
    new = await begin_epoch(place.database, place.service, old.partitions, origin, after)
    try:
        await streams.create_streams(place.nats, place.subjects(new.number), new.partitions, place.replicas)
        yield new
    except BaseException:
        with contextlib.suppress(RunstreamError):  # what is left is removed by the next import; the first error counts
            await asyncio.shield(_taken_back(place, new))
        raise


async def _taken_back(place: ServicePlace, new: Epoch) -> None:
    if (await current_epoch(place.database, place.service)).number != new.number:
        await remove_epoch(place, new)
        await drop(place.database.url, schema_beside(place.database.schema))


async def _loaded(place: ServicePlace, old: Epoch, new: Epoch, snapshot: Verified, say: OnStage) -> list[Filled]:
    """Fill the streams of the new epoch, and the schema beside."""
    beside = schema_beside(place.database.schema)
    indexes = await make_empty(place.database.url, beside)
    total, done = snapshot.manifest.commits, 0

    def tell(further: int) -> None:
        nonlocal done
        done += further
        say("loading", done, total)

    target = _target(place, new, snapshot, beside)
    if snapshot.header.partitions == new.partitions:
        works = [LoadFromSnapshot(target, partition) for partition in range(new.partitions)]
        sizes = snapshot.manifest.positions
        filled = await run_in_processes(
            load_from_snapshot, works, sizes, Filled, available_cpus() if total > MANY else 1, tell
        )
    else:
        # In another process where it takes long: this one has its lease to renew, and may serve an API.
        (filled,) = await run_in_processes(repartition, [target], [total], list[Filled], 2 if total > MANY else 1, tell)
    await _require_whole(place, new, filled)
    say("making indexes", 0, 0)
    await make_indexes(place.database.url, beside, indexes)
    return filled


def _target(place: ServicePlace, new: Epoch, snapshot: Verified, schema: str) -> Target:
    return Target(
        path=str(snapshot.path),
        manifest=hash_of(snapshot.manifest),
        nats_url=place.nats_url,
        database_url=place.database.url,
        schema=schema,
        namespace=place.namespace,
        service=place.service,
        epoch=new.number,
        partitions=new.partitions,
    )


async def _require_whole(place: ServicePlace, new: Epoch, filled: list[Filled]) -> None:
    ends = await streams.ends(place.nats, place.subjects(new.number), new.partitions)
    expected = tuple(one.sequence for one in filled)
    if ends != expected:
        raise InternalError(
            f"the streams end at {ends}, and should end at {expected}", code="notLoaded", hint="import it again"
        )


async def _stored(snapshot: Verified, storage: ObjectStorage | None, say: OnStage) -> StoredObjects:
    if not snapshot.objects:
        return StoredObjects(0, 0)
    if storage is None:
        raise InternalError("there is no object storage for the objects of the snapshot", code="noObjectStorage")
    done = 0

    def tell(further: int) -> None:
        nonlocal done
        done += further
        say("storing objects", done, snapshot.objects)

    with open_verified(snapshot.path, hash_of(snapshot.manifest)) as opened:
        return await store_objects(opened, storage, tell)


async def _commits_of(place: ServicePlace, epoch: Epoch) -> int:
    ends = await streams.ends(place.nats, place.subjects(epoch.number), epoch.partitions)
    return sum(end or 0 for end in ends)


def _position(header: SnapshotHeader, manifest: Manifest) -> str:
    return f"{header.epoch}:{','.join(map(str, manifest.positions))}"


def _told(
    snapshot: Verified, old: Epoch, new: Epoch, replaced: int, stored: StoredObjects, parked: int, *, dry: bool
) -> Imported:
    header, manifest = snapshot.header, snapshot.manifest
    return Imported(
        dry=dry,
        namespace=header.namespace,
        epoch=header.epoch,
        position=_position(header, manifest),
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
        objects_added=stored.added,
        parked=parked,
        parked_in_source=snapshot.parked,
        older="",
    )


_ROOM_BYTES = 256 << 20
"""Left on the disk by the file of an import: a service whose log cannot grow is none."""


@dataclass(slots=True)
class ServedImports:
    """Imports of one service (see `runstream.gateway.routes.maintenance.Imports`)."""

    place: ServicePlace
    occupy: Occupy
    require_parked: Callable[[], Awaitable[None]]
    """Raises what `occupy` would raise, before a large file is sent for nothing."""
    storage: ObjectStorage
    spool: Path
    """The folder in which files are kept while they are imported; nothing else is in it."""
    trusted_keys: Sequence[str] = ()
    """Files of the keys with one of which a snapshot has to be signed; none: with any, or not at all."""

    def __post_init__(self) -> None:
        if self.spool.is_dir():
            for left in self.spool.iterdir():
                left.unlink()

    async def run(self, content: AsyncIterator[bytes], name: str, say: OnStage, *, dry_run: bool) -> Imported:
        """Import what is sent, or say what that would change."""
        await self.require_parked()
        with self._spooled() as path:
            await _take_in(content, path)
            say("verifying", 0, 0)
            snapshot = await asyncio.to_thread(verify_file, path, "", say, name, self.trusted_keys)
            if dry_run:
                return await preview_import(self.place, snapshot)
            return await import_snapshot(self.place, snapshot, self.occupy, self.storage, say)

    async def epochs(self) -> list[ListedEpoch]:
        """All epochs that are not deleted."""
        return await listed_epochs(self.place)

    @contextmanager
    def _spooled(self) -> Iterator[Path]:
        self.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.spool / new_id()
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _write(file: BinaryIO, chunk: bytes) -> None:
    """Write, as long as that leaves the service room for its log."""
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

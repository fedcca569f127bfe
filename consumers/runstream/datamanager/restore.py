"""Restores a log, or some of its partitions, from the archive: everything is verified before anything is loaded.

    verify -> note -> withdraw description -> delete and create streams -> load -> reset projection -> describe

The description comes last, so that no process uses an incomplete log. The note names the partitions of an unfinished
restore; the next start restores them again from the beginning.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

import msgspec
import orjson
import structlog
from nats.aio.client import Client

from runstream.datamanager.archive import Archive
from runstream.datamanager.status import DataStatus
from runstream.errors import InternalError
from runstream.jetstream.publisher import Publisher
from runstream.lifecycle import for_each
from runstream.log import streams
from runstream.log.loading import StreamLoader
from runstream.log.streams import read_key, write_key
from runstream.snapshots.segments import as_load

CONCURRENT_PARTITIONS = 4
"""Partitions that are verified or loaded concurrently; each has a segment in memory."""
_PROGRESS_COMMITS = 100_000
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Note:
    """The note of an unfinished restore, in the control bucket."""

    epoch: int
    partitions: tuple[int, ...]


async def read_note(nc: Client, namespace: str, service: str, epoch: int) -> tuple[int, ...] | None:
    """Return the partitions of an unfinished restore of this epoch; None without one."""
    data = (await read_key(nc, namespace, _key(service))).data
    if not data:
        return None
    note = msgspec.convert(orjson.loads(data), _Note)
    return note.partitions if note.epoch == epoch else None


async def clear_note(nc: Client, namespace: str, service: str) -> None:
    """Clear the note of a finished restore."""
    if (await read_key(nc, namespace, _key(service))).data:
        await write_key(nc, namespace, _key(service), b"")


async def restore(nc: Client, archive: Archive, status: DataStatus, partitions: tuple[int, ...], replicas: int) -> None:
    """Create the streams of these partitions from the archive; the caller describes the log.

    Raises DamagedArchiveError before any change, InternalError when NATS or the storage fails.
    """
    subjects = status.subjects

    async def verify(partition: int) -> None:
        commits = await archive.verify(status, partition)
        log.info("verified the archive", action="archive_verified", partition=partition, commits=commits)

    await for_each(partitions, verify, at_once=CONCURRENT_PARTITIONS)
    await streams.create_control_bucket(nc, subjects.namespace, replicas)
    note = orjson.dumps(_Note(status.epoch, partitions))
    await write_key(nc, subjects.namespace, _key(subjects.service), note)
    await streams.withdraw(nc, subjects.namespace, subjects.service)
    for partition in partitions:
        await streams.delete_stream(nc, subjects, partition)
    await streams.create_streams(nc, subjects, len(status.partitions), replicas)
    publisher = Publisher(nc)
    await publisher.start()
    try:
        load = partial(_load, publisher, archive, status)
        await for_each(partitions, load, at_once=CONCURRENT_PARTITIONS)
    finally:
        await publisher.close()
    ends = await streams.ends(nc, subjects, len(status.partitions))
    for partition in partitions:
        if ends[partition] != status.partitions[partition].last:
            raise InternalError(
                f"stream {subjects.stream(partition)} ends at {ends[partition]} after it was restored up to "
                f"{status.partitions[partition].last}",
                code="notLoaded",
                hint="start again: the restore begins from the start",
            )


def _key(service: str) -> str:
    return f"restoring.{service}"


async def _load(publisher: Publisher, archive: Archive, status: DataStatus, partition: int) -> None:
    loader = StreamLoader(publisher, status.subjects.stream(partition))
    reported = 0
    async for messages in archive.commits(status, partition):
        await loader.load(await asyncio.to_thread(list, map(as_load, messages)))
        if loader.end - reported >= _PROGRESS_COMMITS:
            reported = loader.end
            log.info("restoring the log", action="log_restoring", partition=partition, commits=reported)

"""The check of everything that is derived from the log: rows, archive, objects; and of its consumers."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import msgspec

from runstream.api import Stall
from runstream.config_folding import SERVICE
from runstream.configstore.checking import fsck_config
from runstream.datamanager.agreement import ArchiveReport, check_archive
from runstream.datamanager.archive import Archive
from runstream.datamanager.fence import PostgresFence
from runstream.datamanager.startup import deployment_in_nats
from runstream.errors import BadRequestError, InternalError
from runstream.jetstream.messaging import Questions
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.log.streams import described
from runstream.objects import ObjectStorage
from runstream.objects.open import open_objects
from runstream.projections.fsck import FsckFindings, fsck
from runstream.retention.checking import ObjectsCheck, ObjectsReport
from runstream.service.connections import Connections, connected
from runstream.service.stalls import Consumed
from runstream.settings import Settings


@dataclass(frozen=True, slots=True)
class Found:
    """What was compared, and what differs."""

    rows: FsckFindings
    archive: ArchiveReport | None
    """The archive of runs; None with --no-archive."""
    config_archive: ArchiveReport | None
    """The archive of users, projects and secrets; None where it is not checked."""
    objects: ObjectsReport | None
    """None with --no-objects."""
    stalls: list[Stall]
    """Stalled consumers; not a difference, because rows and archive are compared only up to their positions."""

    @property
    def exit_status(self) -> int:
        """1 if something differs."""
        parts = (self.rows, self.archive, self.config_archive, self.objects)
        return max(part.exit_status for part in parts if part is not None)


async def check_everything(
    settings: Settings,
    partitions: list[int] | None,
    *,
    with_archive: bool,
    with_objects: bool,
    report: FsckFindings | None = None,
) -> Found:
    """Compare all of it, or these partitions. A given `report` is filled meanwhile. Raises RunstreamError."""
    async with connected(settings, "runstream fsck", pool_size=2) as at:
        storage = await _storage(at.settings) if with_archive or with_objects else None
        _require_partitions(at.log, partitions)
        rows = await fsck(at.database, at.log, partitions, report)
        config_archive: ArchiveReport | None = None
        if partitions is None and await described(at.nats, at.log.subjects.namespace, SERVICE) is not None:
            async with await open_log(at.nats, at.log.subjects.namespace, SERVICE) as config:
                await fsck_config(at.database, config, rows)
                if storage is not None and with_archive:
                    config_archive = await _archive(storage, at, config)
        archive = await _archive(storage, at, at.log, partitions) if storage is not None and with_archive else None
        objects: ObjectsReport | None = None
        if storage is not None and with_objects:
            objects = await ObjectsCheck(at.log, storage, at.database).run()
        return Found(rows, archive, config_archive, objects, await _stalls(at, storage))


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


async def _archive(
    storage: ObjectStorage, at: Connections, log: JetStreamLog, partitions: list[int] | None = None
) -> ArchiveReport:
    subjects = log.subjects
    deployment = await deployment_in_nats(at.nats, subjects.namespace)
    fence = PostgresFence(at.database, subjects.service, subjects.epoch)
    return await check_archive(Archive(storage, subjects), log, deployment, fence, partitions)


def _require_partitions(log: JetStreamLog, partitions: list[int] | None) -> None:
    wrong = [number for number in partitions or () if not 0 <= number < log.partitions]
    if wrong:
        raise BadRequestError(
            f"the log has no partition {wrong[0]}",
            code="invalidPartition",
            hint=f"its partitions are 0 to {log.partitions - 1}",
        )


def values_of(found: Found) -> dict[str, object]:
    """Return the findings as JSON values."""
    rows, archive = found.rows, found.archive
    config = {"config": asdict(found.config_archive)} if found.config_archive is not None else {}
    return {
        "commits": rows.commits,
        "rows": rows.rows,
        "count": rows.count,
        "differences": [str(difference) for difference in rows.differences],
        "archive": None if archive is None else {**asdict(archive), **config},
        "objects": None if found.objects is None else asdict(found.objects),
        "stalls": [msgspec.structs.asdict(stall) for stall in found.stalls],
    }

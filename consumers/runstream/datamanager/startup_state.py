"""Decides what a start does with the state that it finds: use the log, create one, restore it, or refuse to start.

                       log is there           log is missing
    data status        compare, then use      restore
    none               use                    create, unless the database knows a log: then refuse

A part of the state that cannot be read is an error before the decision, never a missing part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from runstream.datamanager.agreement import ways_out
from runstream.datamanager.errors import ContradictionError, NoDataStatusError
from runstream.datamanager.status import ArchivePaths, CurrentEpoch, DataStatus
from runstream.log.streams import LogDescription
from runstream.subjects import Subjects


@dataclass(frozen=True, slots=True)
class NatsState:
    """The log as NATS has it."""

    description: LogDescription | None = None
    deployment: str | None = None
    restoring: tuple[int, ...] | None = None
    """Partitions of an unfinished restore; None without one."""
    ends: tuple[int | None, ...] = ()
    """Last sequence of each stream of the epoch; None for a missing stream."""


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """The log as the database knows it."""

    deployment: str | None = None
    epoch: int | None = None
    """The current epoch; None if there never was a log."""
    partitions: int | None = None
    checkpoints: Mapping[int, int] | None = None
    """Last projected sequence of each partition of that epoch."""

    def projected(self, partition: int) -> int:
        """Return the last projected sequence of a partition; 0 for none."""
        return (self.checkpoints or {}).get(partition, 0)


@dataclass(frozen=True, slots=True)
class ArchiveState:
    """The log as the object storage has it."""

    status: DataStatus | None = None
    anything: bool = False
    """True if the epoch has any object."""
    current: CurrentEpoch | None = None


@dataclass(frozen=True, slots=True)
class StartupState:
    """The state of NATS, database and archive at a start."""

    subjects: Subjects
    """Subjects of the epoch (see `epoch_of`)."""
    nats: NatsState
    database: DatabaseState
    archive: ArchiveState
    schema: str
    """Schema of the database."""


@dataclass(frozen=True, slots=True)
class CreateLog:
    """Create a new log: there is none anywhere."""


@dataclass(frozen=True, slots=True)
class UseLog:
    """Use the log that NATS has."""


@dataclass(frozen=True, slots=True)
class RestoreLog:
    """Restore the log, or some of its partitions, from the archive."""

    status: DataStatus
    partitions: tuple[int, ...]


StartupPlan: TypeAlias = CreateLog | UseLog | RestoreLog


def epoch_of(description: LogDescription | None, database: DatabaseState, current: CurrentEpoch | None) -> int:
    """Return the served epoch: that of the database, else of NATS, else of the archive.

    Raises ContradictionError when NATS and the archive differ and the database knows none.
    """
    if database.epoch is not None:
        return database.epoch
    if description is not None and current is not None and description.epoch != current.epoch:
        raise ContradictionError(
            f"NATS serves epoch {description.epoch}, the archive was last of epoch {current.epoch}, and the database "
            "knows no epoch: NATS or the archive is older than an import",
            code="otherEpoch",
            details={"log": description.epoch, "archive": current.epoch},
            hint="restore the newest database, which decides; or move the older one away: NATS's data (the log is then "
            "restored from the archive) or the archive of this service",
        )
    if description is not None:
        return description.epoch
    return current.epoch if current is not None else 1


def decide(found: StartupState) -> StartupPlan:
    """Decide what to do. Raises ContradictionError or NoDataStatusError when every choice would lose data.

    The caller still compares an existing log with the archive (`require_agreement`).
    """
    _require_one_deployment(found)
    missing = tuple(partition for partition, end in enumerate(found.nats.ends) if end is None)
    description, status = found.nats.description, found.archive.status
    # Describing a log is the last step of its creation or restore: without a description, streams may be incomplete.
    complete = description is not None and description.epoch == found.subjects.epoch
    unfinished = found.nats.restoring if not complete else None
    if unfinished is not None:
        again = tuple(sorted({*missing, *unfinished}))
        return _restore(found, again, "a restore of the log was interrupted")
    # Empty streams without a description are those of an interrupted creation, and as good as missing.
    if not complete and not any(found.nats.ends) and (missing or description is None):
        if description is not None and status is None:
            raise ContradictionError(
                f"NATS serves epoch {description.epoch}, the database epoch {found.subjects.epoch}, which is neither "
                "in NATS nor in the archive",
                code="otherEpoch",
                details={"log": description.epoch, "database": found.subjects.epoch},
                hint="one of them is older than an import: restore NATS and the database to one moment",
            )
        if status is None and not found.archive.anything and found.database.epoch is None:
            return CreateLog()
        return _restore(found, tuple(range(len(found.nats.ends))), "the log is missing in NATS")
    if missing:
        names = ", ".join(found.subjects.stream(partition) for partition in missing)
        return _restore(found, missing, f"of the log, {names} is missing in NATS")
    _require_projected(found)
    return UseLog()


def _restore(found: StartupState, partitions: tuple[int, ...], why: str) -> RestoreLog:
    status = found.archive.status
    if status is not None:
        return RestoreLog(status, partitions)
    where = ArchivePaths(found.subjects).folder
    left = " (only segments that no data status names)" if found.archive.anything else ""
    knows = "" if found.database.epoch is None else ", and the database knows that there was one"
    raise NoDataStatusError(
        where,
        f"{why}{knows}; there is no data status in {where} to restore it from{left}",
        hint="restore NATS's data or the archive; or configure the NATS or object storage that has it. To lose "
        f"everything and start with an empty log, drop schema {found.schema!r} of the database (or name another one)"
        + (f" and move {where} away" if found.archive.anything else ""),
    )


def _require_one_deployment(found: StartupState) -> None:
    status, current = found.archive.status, found.archive.current
    archive = status.deployment if status is not None else current.deployment if current is not None else None
    ids = {"NATS": found.nats.deployment, "the database": found.database.deployment, "the archive": archive}
    known = {where: deployment for where, deployment in ids.items() if deployment is not None}
    if len(set(known.values())) > 1:
        raise ContradictionError(
            "these are of different deployments: " + ", ".join(f"{where} of {what}" for where, what in known.items()),
            code="otherDeployment",
            details=dict(known),
            hint="check the NATS URL, the namespace, the database URL with its schema, and the object storage: one of "
            "them belongs to another deployment",
        )


def _require_projected(found: StartupState) -> None:
    """Raise ContradictionError unless the log has every commit that the database has seen."""
    ends: Sequence[int] = [end or 0 for end in found.nats.ends]
    lost = lost_commits(ends, found.database)
    for partition, (first, last) in lost.items():
        where = ArchivePaths(found.subjects).folder
        status = found.archive.status
        raise ContradictionError(
            f"the log has gone back in time: partition {partition} ends at {first - 1}, the database has seen {last}",
            code="logWentBack",
            details={"partition": partition, "log": first - 1, "database": last},
            hint=ways_out(status, where)
            if status is not None
            else "restore NATS's newest data; or restore database and NATS to one moment",
        )


def lost_commits(ends: Sequence[int], database: DatabaseState) -> dict[int, tuple[int, int]]:
    """Return the commits that the database has seen and a log with these ends lacks: first and last, by partition."""
    return {
        partition: (end + 1, database.projected(partition))
        for partition, end in enumerate(ends)
        if database.projected(partition) > end
    }

"""What a process finds when it starts, and what follows from it: use the log, begin one, restore it, or refuse.

                       log is there           log is missing
    data status        compare, then use      restore
    none               use                    begin, if the database knows of none either; else refuse

Nothing is decided by what could not be read: that is an error before it comes to this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from runstream.datamanager.agreement import ways_out
from runstream.datamanager.errors import ContradictionError, NoDataStatusError
from runstream.datamanager.status import CurrentEpoch, DataStatus, Places
from runstream.log.streams import LogDescription
from runstream.subjects import Subjects


@dataclass(frozen=True, slots=True)
class Nats:
    """What NATS has of the log."""

    description: LogDescription | None = None
    deployment: str | None = None
    restoring: tuple[int, ...] | None = None
    """The partitions that a restore had begun to fill; None when none is under way."""
    ends: tuple[int | None, ...] = ()
    """The last sequence of each stream of the epoch; None where there is no stream."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the database knows."""

    deployment: str | None = None
    epoch: int | None = None
    """The current one; None when no log was ever made."""
    partitions: int | None = None
    checkpoints: Mapping[int, int] | None = None
    """How far each partition of that epoch is projected; empty or None for not at all."""

    def projected(self, partition: int) -> int:
        """The last sequence of the partition that is projected; 0 for none."""
        return (self.checkpoints or {}).get(partition, 0)


@dataclass(frozen=True, slots=True)
class Archived:
    """What the object storage has of it."""

    status: DataStatus | None = None
    anything: bool = False
    """Whether there is any object of the epoch."""
    current: CurrentEpoch | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """All of it."""

    subjects: Subjects
    """Of the epoch that is looked at (see `epoch_of`)."""
    nats: Nats
    database: Knowledge
    archived: Archived
    schema: str
    """Of the database."""


@dataclass(frozen=True, slots=True)
class Begin:
    """There is nothing anywhere: make a new log."""


@dataclass(frozen=True, slots=True)
class Use:
    """The log is there."""


@dataclass(frozen=True, slots=True)
class Restore:
    """The log, or some of its partitions, are to be restored from the archive."""

    status: DataStatus
    partitions: tuple[int, ...]


Plan: TypeAlias = Begin | Use | Restore


def epoch_of(description: LogDescription | None, database: Knowledge, current: CurrentEpoch | None) -> int:
    """Which epoch is served: the database decides, then NATS, then what the archive names.

    Raises ContradictionError when NATS and the archive name different ones and nobody can decide.
    """
    if database.epoch is not None:
        return database.epoch
    if description is not None and current is not None and description.epoch != current.epoch:
        raise ContradictionError(
            f"NATS serves epoch {description.epoch}, the archive was last of epoch {current.epoch}, and the database "
            "knows of none: one of them is older than an import",
            code="otherEpoch",
            details={"log": description.epoch, "archive": current.epoch},
            hint="give the newest database back, which decides; or move aside what is older: NATS's data (the log is "
            "restored from the archive) or the archive of this service",
        )
    if description is not None:
        return description.epoch
    return current.epoch if current is not None else 1


def decide(found: Situation) -> Plan:
    """What is to be done. Raises ContradictionError or NoDataStatusError when nothing can be without losing something.

    Whether a log that is there is the one that was archived is still to be compared (`require_agreement`).
    """
    _require_one_deployment(found)
    missing = tuple(partition for partition, end in enumerate(found.nats.ends) if end is None)
    description, status = found.nats.description, found.archived.status
    whole = description is not None and description.epoch == found.subjects.epoch
    unfinished = found.nats.restoring if not whole else None
    if unfinished is not None:
        again = tuple(sorted({*missing, *unfinished}))
        return _restore(found, again, "a restore of the log was interrupted")
    if not whole and not any(found.nats.ends) and (missing or description is None):
        if description is not None and status is None:
            raise _other_epoch(found, description)
        if status is None and not found.archived.anything and found.database.epoch is None:
            return Begin()
        return _restore(found, tuple(range(len(found.nats.ends))), "the log is missing in NATS")
    if missing:
        names = ", ".join(found.subjects.stream(partition) for partition in missing)
        return _restore(found, missing, f"of the log, {names} is missing in NATS")
    _require_projected(found)
    return Use()


def _restore(found: Situation, partitions: tuple[int, ...], why: str) -> Restore:
    status = found.archived.status
    if status is not None:
        return Restore(status, partitions)
    where = Places.of(found.subjects).folder
    left = " (only segments that nothing vouches for)" if found.archived.anything else ""
    knows = "" if found.database.epoch is None else ", and the database knows that there was one"
    raise NoDataStatusError(
        where,
        f"{why}{knows}; there is no data status in {where} to restore it from{left}",
        hint="give NATS its data back, or the object storage the archive; or name the ones that have it. To give up "
        f"all that was and begin empty, drop schema {found.schema!r} of the database (or name another one)"
        + (f" and move {where} away" if found.archived.anything else ""),
    )


def _require_one_deployment(found: Situation) -> None:
    status, current = found.archived.status, found.archived.current
    archive = status.deployment if status is not None else current.deployment if current is not None else None
    ids = {"NATS": found.nats.deployment, "the database": found.database.deployment, "the archive": archive}
    said = {where: deployment for where, deployment in ids.items() if deployment is not None}
    if len(set(said.values())) > 1:
        raise ContradictionError(
            "these are of different deployments: " + ", ".join(f"{where} of {what}" for where, what in said.items()),
            code="otherDeployment",
            details=dict(said),
            hint="check the NATS URL, the namespace, the database URL with its schema, and the object storage: one of "
            "them names another deployment's",
        )


def _require_projected(found: Situation) -> None:
    """The log has all that the database has seen of it."""
    ends: Sequence[int] = [end or 0 for end in found.nats.ends]
    lost = lost_commits(ends, found.database)
    for partition, (first, last) in lost.items():
        where = Places.of(found.subjects).folder
        status = found.archived.status
        raise ContradictionError(
            f"the log has gone back in time: partition {partition} ends at {first - 1}, the database has seen {last}",
            code="logWentBack",
            details={"partition": partition, "log": first - 1, "database": last},
            hint=ways_out(status, where)
            if status is not None
            else "give NATS its newest data back; or restore database and NATS to one moment",
        )


def _other_epoch(found: Situation, description: LogDescription) -> ContradictionError:
    return ContradictionError(
        f"NATS serves epoch {description.epoch}, the database epoch {found.subjects.epoch}, which is neither in NATS "
        "nor in the archive",
        code="otherEpoch",
        details={"log": description.epoch, "database": found.subjects.epoch},
        hint="one of them is older than an import: restore NATS and the database to one moment",
    )


def lost_commits(ends: Sequence[int], knowledge: Knowledge) -> dict[int, tuple[int, int]]:
    """The first and last sequence of what the database has seen, and a log with these ends has not, by partition."""
    return {
        partition: (end + 1, knowledge.projected(partition))
        for partition, end in enumerate(ends)
        if knowledge.projected(partition) > end
    }

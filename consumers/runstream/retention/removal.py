"""What an event of a run releases in the object storage: data that this run no longer refers to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from runstream.codec import decode
from runstream.errors import BadRequestError, NotExistError
from runstream.events.run import DataKind, RunDataRemoved, RunDeleted
from runstream.folding import UnfitCommitError
from runstream.log.port import Log, RawMessage
from runstream.log.runs import find_run
from runstream.objects.port import ObjectStorage
from runstream.objects.references import drop_reference, shared_by
from runstream.subjects import Address

log = structlog.get_logger()
_TYPES = (b'"RunDataRemoved"', b'"RunDeleted"')


@dataclass(frozen=True, slots=True)
class Release:
    """The data that a commit releases."""

    address: Address
    """The address of the run."""
    sequence: int
    kinds: tuple[DataKind, ...]


def release_of(message: RawMessage) -> Release | None:
    """Return what a commit of a run releases; None for a commit that releases nothing, or cannot be read."""
    if not any(name in message.data for name in _TYPES):  # such a commit is too small to be compressed
        return None
    try:
        commit = decode(message).commit
    except BadRequestError:  # the projection parks it
        return None
    kinds: set[DataKind] = set()
    for event in commit.events:
        if isinstance(event, RunDataRemoved):
            kinds.update(event.kinds)
        elif isinstance(event, RunDeleted):
            kinds.update(("logs", "archives"))
    return Release(commit.address, message.position.sequence, tuple(sorted(kinds))) if kinds else None


class Removal:
    """The removal of released data from the object storage."""

    def __init__(self, log: Log, objects: ObjectStorage, clock: Callable[[], datetime]) -> None:
        self._log = log
        self._objects = objects
        self._clock = clock

    async def remove(self, release: Release) -> datetime | None:
        """Drop the references of a release, and the data without another; return when to try again, or None.

        Raises InternalError when log or storage cannot be reached; it can then be repeated.
        """
        try:
            run = (await find_run(self._log, release.address, also_deleted=True)).run
        except (UnfitCommitError, BadRequestError) as error:  # its history has a parked commit
            log.warning(
                "The data of a run stays: its history cannot be read",
                action="run_data_left",
                run=release.address.id,
                error=str(error),
            )
            return None
        again: list[datetime] = []

        async def holds(run_id: str, kind: DataKind) -> bool | None:
            return await self._holds(release.address.partition, run_id, kind)

        for kind in release.kinds:
            for shared in shared_by(run, kind):
                at = await drop_reference(self._objects, shared, run.id, holds, self._clock())
                again += [at] if at is not None else []
        return min(again, default=None)

    async def _holds(self, partition: int, run_id: str, kind: DataKind) -> bool | None:
        # Runs that share data are of one group root, and so on one partition.
        try:
            run = (await find_run(self._log, Address(partition, "run", run_id), also_deleted=True)).run
        except NotExistError:
            return None
        except (UnfitCommitError, BadRequestError):
            return True
        return run.deleted_at is None and getattr(run, f"{kind}_removed_at") is None

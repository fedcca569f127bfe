"""References to logs and archives that several runs share: the last one to go takes the data along (rule storage-5).

A run task's data is below `logs/<run task>/data/` and `workspacearchives/<run task>/data/`; every run that refers to it
has an empty object `runs/<run id>` beside it. Both sides of a race write first and look then:

    restart:   store the references of the new run -> is the earlier run in the log as it was? -> append the run
    deletion:  append the deletion of the run      -> drop its reference, list the others            -> delete the data

So either the restart finds the deletion, and is refused, or the deletion finds the restart's reference. A gateway that
is killed in between leaves a reference without a run. For `GRACE` it counts as one of a run on its way into the log;
after that it is dropped with the next reference of the same data, or by `runstream.retention.uncreated`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from runstream.domain.run import RunState
from runstream.errors import BadRequestError, NotExistError
from runstream.events.run import DataKind
from runstream.ids import attempt_id
from runstream.objects import paths
from runstream.objects.port import ObjectStorage

GRACE = timedelta(hours=1)
"""Age of a reference after which its run, if it is not in the log, will never be: a request takes seconds."""
LOOK_AGAIN = timedelta(seconds=10)
"""Time after which such a reference is looked at again: most are gone by then, or their run is in the log."""
_FOLDERS: dict[DataKind, str] = {"logs": paths.LOGS, "archives": paths.ARCHIVES}
_KINDS: dict[str, DataKind] = {folder: kind for kind, folder in _FOLDERS.items()}


@dataclass(frozen=True, slots=True)
class Shared:
    """The logs, or the archives, of one attempt at a run task."""

    kind: DataKind
    stored: str
    """The id under which they are stored (`attempt_id`)."""

    @property
    def data(self) -> str:
        """Prefix of the data's paths."""
        return f"{_FOLDERS[self.kind]}/{self.stored}/data/"

    @property
    def references(self) -> str:
        """Prefix of the references' paths."""
        return f"{_FOLDERS[self.kind]}/{self.stored}/runs/"

    def reference(self, run_id: str) -> str:
        """Return the path of the object by which this run refers to the data."""
        return self.references + run_id


def shared_of(path: str) -> Shared:
    """Return the data that a path belongs to, as its log, archive or reference. Raises BadRequestError for others."""
    match path.split("/"):
        case ["logs" | "workspacearchives" as folder, stored, "data" | "runs", _, *_] if stored:
            return Shared(_KINDS[folder], stored)
    raise BadRequestError(f"{path[:200]!r} is not the path of a log or an archive", code="invalidObjectPath")


def shared_by(run: RunState, kind: DataKind) -> list[Shared]:
    """Return the data of this kind to which a run may refer: that of all attempts at its tasks.

    The run's own history is enough: whether a task ran is known of kept ones alone, and asked of the storage otherwise.
    """
    return [
        Shared(kind, attempt_id(task.id, attempt))
        for task in run.tasks.values()
        if (task.executor_task_id if task.kept else run.start_time is not None and not task.skip)
        and (kind == "logs" or task.archive_steps)
        for attempt in range(1, task.attempt + 1)
    ]


class SharedObjects:
    """The writer of references (see `runstream.gateway.runs.create.SharedData`)."""

    def __init__(self, objects: ObjectStorage) -> None:
        self._objects = objects

    async def refer(self, run_id: str, *, logs: Sequence[str], archives: Sequence[str]) -> None:
        """Refer from a run to the logs and archives of these run tasks; durable on return."""
        if references := _references(run_id, logs, archives):
            await self._objects.write_all(dict.fromkeys(references, b""))

    async def forget(self, run_id: str, *, logs: Sequence[str], archives: Sequence[str]) -> None:
        """Remove the references of a run that is not created."""
        for path in _references(run_id, logs, archives):
            await _delete(self._objects, path)


def _references(run_id: str, logs: Sequence[str], archives: Sequence[str]) -> list[str]:
    references = [paths.log_reference(one, run_id) for one in logs]
    return references + [paths.archive_reference(one, run_id) for one in archives]


Holds = Callable[[str, DataKind], Awaitable[bool | None]]
"""Returns whether a run refers to its data of a kind, by its history; None for a run that is not in the log."""


async def drop_reference(
    objects: ObjectStorage, shared: Shared, run_id: str, holds: Holds, now: datetime
) -> datetime | None:
    """Drop the reference of a run that no longer holds the data, and with the last reference the data.

    Return when to try again, because of a reference whose run may be on its way into the log; None when all is done.
    Safe to repeat, and to do twice at the same time.
    """
    await _delete(objects, shared.reference(run_id))
    held, again = False, []
    # Until a list is empty: while one was looked through, a restart of its last run may have added another reference.
    while references := [found async for found in objects.list(shared.references)]:
        for found in references:
            match await holds(found.path.removeprefix(shared.references), shared.kind):
                case True:
                    held = True
                case None if found.modified + GRACE > now:
                    again.append(min(found.modified + GRACE, now + LOOK_AGAIN))
                case _:
                    await _delete(objects, found.path)
        if held or again:
            return min(again, default=None)
    for path in [found.path async for found in objects.list(shared.data)]:
        await _delete(objects, path)
    return None


async def _delete(objects: ObjectStorage, path: str) -> None:
    with contextlib.suppress(NotExistError):  # deleted by an earlier attempt
        await objects.delete(path)

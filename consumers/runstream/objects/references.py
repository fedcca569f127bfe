"""References to logs and archives that several runs share: the last one to go takes the data along (rule storage-5).

A run task's data is below `logs/<run task>/data/` and `workspacearchives/<run task>/data/`; every run that refers to it
has an empty object `runs/<run id>` beside it. A restart writes its references before its run is in the log. If the run
then fails to be created, a reference without a run remains; it is dropped with the reference of the original run.

No reference may appear between the check and the deletion. So the deletion of a run's data is first an event of that
run, after which the run cannot be restarted; only then are its references read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from runstream.errors import BadRequestError, NotExistError
from runstream.objects import paths
from runstream.objects.port import ObjectStorage

Kind = Literal["logs", "workspacearchives"]


@dataclass(frozen=True, slots=True)
class Shared:
    """The logs, or the archives, of one run task."""

    kind: Kind
    run_task: str

    @property
    def data(self) -> str:
        """Prefix of the data's paths."""
        return f"{self.kind}/{self.run_task}/data/"

    @property
    def references(self) -> str:
        """Prefix of the references' paths."""
        return f"{self.kind}/{self.run_task}/runs/"

    def reference(self, run_id: str) -> str:
        """Return the path of the object by which this run refers to the data."""
        return self.references + run_id


def shared_of(path: str) -> Shared:
    """Return the data that a path belongs to, as its log, archive or reference. Raises BadRequestError for others."""
    match path.split("/"):
        case ["logs" | "workspacearchives" as kind, run_task, "data" | "runs", _, *_] if run_task:
            return Shared(kind, run_task)
    raise BadRequestError(f"{path[:200]!r} is not the path of a log or an archive", code="invalidObjectPath")


class SharedObjects:
    """The writer of references (see `runstream.gateway.runs.create.SharedData`)."""

    def __init__(self, objects: ObjectStorage) -> None:
        self._objects = objects

    async def refer(self, run_id: str, *, logs: Sequence[str], archives: Sequence[str]) -> None:
        """Refer from a run to the logs and archives of these run tasks; durable on return."""
        references = [paths.log_reference(one, run_id) for one in logs]
        references += [paths.archive_reference(one, run_id) for one in archives]
        if references:
            await self._objects.write_all(dict.fromkeys(references, b""))


async def referring_runs(objects: ObjectStorage, shared: Shared) -> list[str]:
    """Return the ids of the runs that refer to the data."""
    start = shared.references
    return [found.path.removeprefix(start) async for found in objects.list(start)]


async def delete_unreferenced(objects: ObjectStorage, path: str) -> bool:
    """Delete a log with its index, or an archive, unless a run refers to it; return whether it is gone.

    Raises BadRequestError.
    """
    shared = shared_of(path)
    if not path.startswith(shared.data):
        raise BadRequestError(f"{path[:200]!r} is a reference, not a log or an archive", code="invalidObjectPath")
    if await _is_referred_to(objects, shared):
        return False
    await _delete(objects, path)
    if path.endswith(".log"):
        await _delete(objects, f"{path.removesuffix('.log')}.index")
    return True


async def drop_reference(objects: ObjectStorage, shared: Shared, run_id: str) -> bool:
    """Drop a run's reference, and with the last one the data; return whether the data is gone.

    Safe to repeat after a failure: that deletes data without references.
    """
    await _delete(objects, shared.reference(run_id))
    if await _is_referred_to(objects, shared):
        return False
    for path in [found.path async for found in objects.list(shared.data)]:
        await _delete(objects, path)
    return True


async def _is_referred_to(objects: ObjectStorage, shared: Shared) -> bool:
    async for _ in objects.list(shared.references):
        return True
    return False


async def _delete(objects: ObjectStorage, path: str) -> None:
    with contextlib.suppress(NotExistError):  # deleted by an earlier attempt
        await objects.delete(path)

"""Logs and archives that several runs share are deleted only when no run refers to them any more (rule storage-5).

A run task's data is below `logs/<run task>/data/` and `workspacearchives/<run task>/data/`; every run that refers to
it has an empty object `runs/<run id>` beside it. A restart refers to what it keeps before its run is in the log; had
that then not come about, a reference is left that belongs to no run, and keeps the data no longer than the others do.

Between the look and the deletion nothing may add a reference. So whoever deletes what a run has left has said so in
the log before, as a change of that run, after which it cannot be restarted from; and looks for references then.
"""

from __future__ import annotations

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
        """What the paths of the data begin with."""
        return f"{self.kind}/{self.run_task}/data/"

    @property
    def references(self) -> str:
        """What the paths of the references begin with."""
        return f"{self.kind}/{self.run_task}/runs/"


def shared_of(path: str) -> Shared:
    """Whose log or archive, or reference to one, is at this path. Raises BadRequestError for another path."""
    match path.split("/"):
        case ["logs" | "workspacearchives" as kind, run_task, "data" | "runs", _, *_] if run_task:
            return Shared(kind, run_task)
    raise BadRequestError(f"{path[:200]!r} is not the path of a log or an archive", code="invalidObjectPath")


def reference(shared: Shared, run_id: str) -> str:
    """The path of the object that says that this run refers to the data."""
    of = {paths.LOGS: paths.log_reference, paths.ARCHIVES: paths.archive_reference}[shared.kind]
    return of(shared.run_task, run_id)


class SharedObjects:
    """Refers to what is shared (see `runstream.gateway.runs.create.SharedData`)."""

    def __init__(self, objects: ObjectStorage) -> None:
        self._objects = objects

    async def refer(self, run_id: str, *, logs: Sequence[str], archives: Sequence[str]) -> None:
        """Say that a run refers to the logs, and to the archives, of these ids; durable when this returns."""
        references = [paths.log_reference(one, run_id) for one in logs]
        references += [paths.archive_reference(one, run_id) for one in archives]
        if references:
            await self._objects.write_all(dict.fromkeys(references, b""))


async def referring_runs(objects: ObjectStorage, shared: Shared) -> list[str]:
    """The ids of the runs that refer to the data."""
    start = shared.references
    return [found.path.removeprefix(start) async for found in objects.list(start)]


async def delete_unreferenced(objects: ObjectStorage, path: str) -> bool:
    """Delete a log or an archive if no run refers to it; whether it is gone. Raises BadRequestError."""
    shared = shared_of(path)
    if not path.startswith(shared.data):
        raise BadRequestError(f"{path[:200]!r} is a reference, not a log or an archive", code="invalidObjectPath")
    if await _is_referred_to(objects, shared):
        return False
    await _delete(objects, path)
    return True


async def drop_reference(objects: ObjectStorage, shared: Shared, run_id: str) -> bool:
    """Take back what a run refers to; with the last reference the data goes too. Whether it is gone.

    It can be done again after a failure: data without a reference is deleted then.
    """
    await _delete(objects, reference(shared, run_id))
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
    try:
        await objects.delete(path)
    except NotExistError:  # deleted by whoever tried before
        return

"""`save_to_workspace` and `restore_workspace`: files handed from a task to those after it (domain d.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import BinaryIO, cast

from runstream.errors import BadRequestError, NotExistError
from runstream.executor.archives import expand_home, pack, unpack
from runstream.executor.spec import WorkspaceArchive
from runstream.executor.steps.context import StepContext
from runstream.executor.steps.saved import was_saved
from runstream.ids import attempt_id
from runstream.log.port import Log
from runstream.objects import ObjectStorage, paths
from runstream.objects.port import CHUNK_BYTES

SHOWN_NAMES = 10
"""How many files of an archive the log names."""


async def save(context: StepContext, objects: ObjectStorage) -> int:
    """Pack what is selected and store it; the step succeeds only when the archive is an object."""
    target = context.folder.archive(context.index)
    try:
        names = await asyncio.to_thread(
            pack, target, context.step.contents, context.working_path, context.pod.home, context.stopped
        )
    except BadRequestError as error:
        context.log.line(str(error))
        return 1
    context.log.line(_listed(names, f"{len(names)} files and folders, {target.stat().st_size} bytes"))
    stored = attempt_id(context.task.run_task_id, context.task.attempt)
    reference = paths.archive_reference(stored, context.task.run_id)
    await objects.write_all({paths.archive(stored, context.index): target, reference: b""})
    target.unlink()
    return 0


async def restore(context: StepContext, objects: ObjectStorage, log: Log) -> int:
    """Unpack the archives of all ancestors, in order."""
    for archive in context.spec.workspace:
        try:
            await _fetch(context, archive, objects)
        except NotExistError as error:
            if await was_saved(context.task.run_id, context.partition, archive, log):
                raise NotExistError(
                    f"the archive that task {archive.task!r} saved is no longer there",
                    code="archiveDoesNotExist",
                    hint="it may have expired: run the task again",
                ) from error
            context.log.line(f"task {archive.task} saved nothing in step {archive.step}")
            continue
        try:
            names = await asyncio.to_thread(_unpack, context)
        except BadRequestError as error:
            context.log.line(str(error))
            return 1
        context.log.line(_listed(names, f"{len(names)} files and folders of task {archive.task}"))
    return 0


def _listed(names: Sequence[str], summary: str) -> str:
    """The first names, a line each, then how many there are."""
    more = ["…"] if len(names) > SHOWN_NAMES else []
    return "\n".join((*names[:SHOWN_NAMES], *more, summary))


async def _fetch(context: StepContext, archive: WorkspaceArchive, objects: ObjectStorage) -> None:
    async with await objects.read(paths.archive(archive.stored_id, archive.step)) as stored:
        with context.folder.archive(context.index).open("wb") as file:
            offset = 0
            while chunk := await stored.read(offset, CHUNK_BYTES):
                offset += len(chunk)
                await asyncio.to_thread(file.write, chunk)


def _unpack(context: StepContext) -> list[str]:
    fetched = context.folder.archive(context.index)
    destination = expand_home(context.step.dest_dir or ".", context.pod.home, context.working_path)
    with fetched.open("rb") as file:
        names = unpack(cast("BinaryIO", file), destination, context.stopped)
    fetched.unlink()
    return names

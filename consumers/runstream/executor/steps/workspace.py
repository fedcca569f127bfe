"""The steps `save_to_workspace` and `restore_workspace`, which pass files to later tasks (rules step-17 to step-20).

The executor owns the archive; files are packed and unpacked as the task's user, in the file system that the task sees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from runstream.counting import counted
from runstream.errors import NotExistError
from runstream.events.run import RunRestarted, RunTaskRetried, RunTaskRetryDropped
from runstream.executor.masking import Masking
from runstream.executor.spec import WorkspaceArchive, when_reachable
from runstream.executor.steps.archives import compressed, plain
from runstream.executor.steps.run import StepContext
from runstream.folding import executor_task_of
from runstream.ids import attempt_id, executor_task_id, run_task_id
from runstream.log.port import Log
from runstream.objects import ObjectStorage, paths
from runstream.objects.port import chunks
from runstream.subjects import Address

MAX_WARNINGS = 10
"""Maximum number of warnings of a step that its run shows; the log has all of them."""
MAX_WARNING_LENGTH = 500
"""Maximum length of a warning that a run shows, in characters."""


async def save(context: StepContext, objects: ObjectStorage, masking: Masking) -> tuple[str, ...]:
    """Pack the selected files and store the archive as an object.

    Return warnings for the run's summary, masked: patterns that selected nothing. Raises BadRequestError.
    """
    target, files = context.folder.archive(context.index), context.pod.files
    folder = files.path(context.working_dir)
    with target.open("wb") as file, compressed(file) as archive:
        packed = await files.pack(archive, context.step.contents, folder, context.stopped)
    for warning in packed.warnings:
        context.log.line(f"warning: {warning}")
    size = counted(target.stat().st_size, "byte")
    stored = attempt_id(context.task.run_task_id, context.task.attempt)
    reference = paths.archive_reference(stored, context.task.run_id)
    await objects.write_all({paths.archive(stored, context.index): target, reference: b""})
    context.log.line(f"saved {counted_entries(packed.entries)}, {size}")
    target.unlink()
    return shown_warnings(packed.warnings, masking)


def shown_warnings(warnings: Sequence[str], masking: Masking) -> tuple[str, ...]:
    """Return the warnings that a run shows: masked, and bounded in number and length."""
    shown = [_cut(masking.masked(warning)) for warning in warnings[:MAX_WARNINGS]]
    if len(warnings) > MAX_WARNINGS:
        shown[-1] = f"and {counted(len(warnings) - MAX_WARNINGS + 1, 'more warning')}: see the step's log"
    return tuple(shown)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_WARNING_LENGTH else f"{text[: MAX_WARNING_LENGTH - 1]}…"


async def restore(context: StepContext, objects: ObjectStorage, log: Log) -> None:
    """Unpack the archives of all ancestors, in order. Raises BadRequestError."""
    files = context.pod.files
    destination = files.path(context.step.dest_dir or ".", files.path(context.working_dir))
    unpacking = files.unpacking(destination, context.stopped)
    for archive in context.spec.workspace:
        if not await _fetched(context, archive, objects, log):
            context.log.line(f"task {archive.task} saved nothing in step {archive.step}")
            continue
        fetched = context.folder.archive(context.index)
        with fetched.open("rb") as file:
            count = await unpacking.unpack(plain(file), archive.task)
        fetched.unlink()
        context.log.line(f"restored {counted_entries(count)} of task {archive.task}")


async def _fetched(context: StepContext, archive: WorkspaceArchive, objects: ObjectStorage, log: Log) -> bool:
    """Fetch an archive; return False if there is none. Raises NotExistError for one that was deleted."""
    try:
        await _fetch(context, archive, objects)
    except NotExistError as error:
        if await was_saved(context.task.run_id, context.partition, archive, log):
            raise NotExistError(
                f"the archive that task {archive.task!r} saved is no longer there",
                code="archiveDoesNotExist",
                hint="it may have expired: run the task again",
            ) from error
        return False
    return True


async def _fetch(context: StepContext, archive: WorkspaceArchive, objects: ObjectStorage) -> None:
    async with await objects.read(paths.archive(archive.stored_id, archive.step)) as stored:
        with context.folder.archive(context.index).open("wb") as file:
            async for chunk in chunks(stored):
                await asyncio.to_thread(file.write, chunk)


def counted_entries(entries: int) -> str:
    """Return the number of entries of an archive, as a log says it."""
    return counted(entries, "file or folder", "files and folders")


async def was_saved(run_id: str, partition: int, archive: WorkspaceArchive, log: Log) -> bool:
    """Return whether the ancestor stored this archive, according to the log: a skipped or failed one did not."""
    task_id = await _executed_as(run_id, partition, archive.task, log)
    address = Address(partition, "task", task_id)
    task = executor_task_of(await when_reachable(lambda: log.history(address)) if task_id else ())
    return task is not None and archive.step < len(task.steps) and task.steps[archive.step].archive_stored


async def _executed_as(run_id: str, partition: int, name: str, log: Log) -> str:
    """Return the id of the executor task of a task's last attempt; empty for a kept task that never ran."""
    attempt = 1
    for stored in await when_reachable(lambda: log.history(Address(partition, "run", run_id))):
        for event in stored.commit.events:
            match event:
                case RunRestarted(kept=kept):
                    for one in kept:
                        if one.task == name:
                            return one.executor_task_id
                case RunTaskRetried(task, number) if task == name:
                    attempt = number
                case RunTaskRetryDropped(task) if task == name:
                    attempt -= 1
                case _:
                    pass
    return executor_task_id(run_id, run_task_id(run_id, name), attempt)

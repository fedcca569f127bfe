"""Find a run in the log by its id; a run that was created a moment ago is found, too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from runstream.commits import Head, StoredCommit
from runstream.domain.run import RunState, RunTask, created, evolve
from runstream.errors import InternalError, NotExistError
from runstream.events.run import RunCreated, RunDeleted, RunEvent
from runstream.events.run_config import RunConfig, RunConfigStored
from runstream.folding import fitting
from runstream.ids import require_uuid, run_task_id
from runstream.log.port import Log
from runstream.subjects import Address


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run folded from its own history, without its executor tasks."""

    address: Address
    run: RunState
    config: RunConfig
    head: Head


async def locate_run(log: Log, run_id: str) -> Address:
    """Return the run's address. Raises NotExistError, BadRequestError for an invalid id."""
    require_uuid(run_id, "run id")
    addresses = [Address(partition, "run", run_id) for partition in range(log.partitions)]
    for address, last in zip(addresses, await asyncio.gather(*map(log.last, addresses)), strict=True):
        if last is not None:
            return address
    raise run_does_not_exist(run_id)


def run_does_not_exist(run: str) -> NotExistError:
    """Return the error for a run that does not exist."""
    return NotExistError(
        f"run {run} does not exist",
        code="runDoesNotExist",
        details={"run": run},
        hint="`runstream run list` shows the runs that exist",
    )


def run_was_deleted(run_id: str, at: datetime, reason: str) -> NotExistError:
    """Return the error for a run that was deleted; `reason` is the rule of retention, empty for a user."""
    by = f"retention ({reason})" if reason else "a user"
    return NotExistError(
        f"run {run_id} was deleted by {by} at {at:%Y-%m-%d %H:%M:%S} UTC",
        code="runDeleted",
        details={"run": run_id, "at": at.isoformat(), "reason": reason},
        hint=f"`runstream run get {run_id} --at {at.isoformat()}` shows the run as it was",
    )


async def require_not_deleted(log: Log, address: Address) -> None:
    """Raise NotExistError if the run was deleted: nothing follows that."""
    last = await log.last(address)
    for event in last.commit.events if last is not None else ():
        if last is not None and isinstance(event, RunDeleted):
            raise run_was_deleted(address.id, last.commit.time, event.reason)


async def config_of(log: Log, partition: int, digest: str) -> RunConfig:
    """Return a stored run config. Raises InternalError when the log does not have it."""
    for stored in await log.history(Address(partition, "runconfig", digest)):
        for event in stored.commit.events:
            if isinstance(event, RunConfigStored):
                return event.content
    raise InternalError(f"the run config {digest} is not in the log", code="runConfigMissing")


async def find_run(log: Log, address: Address, *, also_deleted: bool = False) -> FoundRun:
    """Fold the run's history as it is now. Raises NotExistError, also for a deleted run unless `also_deleted`."""
    history = await log.history(address)
    first = next(iter(history[0].commit.events), None) if history else None
    if not isinstance(first, RunCreated):
        raise run_does_not_exist(address.id)
    config = await config_of(log, address.partition, first.run_config)
    run = fold_run(address, first, config, history)
    if run.deleted_at is not None and not also_deleted:
        raise run_was_deleted(run.id, run.deleted_at, run.deleted_for)
    return FoundRun(address, run, config, head_of(history))


async def find_created(log: Log, address: Address) -> FoundRun:
    """Return the run as its first commit made it, whatever followed. Raises NotExistError."""
    stored = await log.first(address)
    first = next(iter(stored.commit.events), None) if stored is not None else None
    if stored is None or not isinstance(first, RunCreated):
        raise run_does_not_exist(address.id)
    config = await config_of(log, address.partition, first.run_config)
    return FoundRun(address, fold_run(address, first, config, [stored]), config, head_of([stored]))


def fold_run(address: Address, first: RunCreated, config: RunConfig, history: Iterable[StoredCommit]) -> RunState:
    """Fold a history. Raises UnfitCommitError for a commit that does not fit, which is parked."""
    run: RunState | None = None
    for stored in history:
        commit = stored.commit
        with fitting(commit):
            if run is None:
                run = created(address.id, first, config, commit.time, run_task_id)
            for event in cast("tuple[RunEvent, ...]", commit.events):
                run = evolve(run, event, commit.time, commit.actor)
    if run is None:
        raise run_does_not_exist(address.id)
    return run


def head_of(history: list[StoredCommit]) -> Head:
    """Return the head of a history."""
    return Head(history[-1].commit.version, history[-1].position.sequence) if history else Head()


def task_of(run: RunState, text: str) -> RunTask:
    """Return the task of this id or name. Raises NotExistError."""
    for task in run.tasks.values():
        if text in (task.id, task.name):
            return task
    raise NotExistError(
        f"run {run.id} has no task {text[:80]!r}",
        code="runTaskDoesNotExist",
        details={"run": run.id, "tasks": {task.id: task.name for task in run.tasks.values()}},
        hint="`runstream run get` shows the tasks of a run",
    )

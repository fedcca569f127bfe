"""Append new runs: a run config is stored once, by the hash of its content, and runs refer to it.

Both are on the partition of the run's group root, the config first, so that a reader of the partition meets the config
before the run. The hashes of the last few thousand stored configs are kept in memory.

A restart shares the logs and archives of the tasks that it keeps with the earlier run. The new run refers to them
before it exists, so that they cannot be deleted in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from cachetools import LRUCache
from msgspec import structs

from runstream.commits import Head, NewCommit, Position
from runstream.domain.run import RunState, created, evolve
from runstream.errors import ConflictError, InternalError, RunstreamError
from runstream.events.run import RunCreated, RunEvent, RunRestarted
from runstream.events.run_config import RunConfig, RunConfigStored, RunConfigTask
from runstream.gateway.runs.clone_tokens import clone_credentials
from runstream.gateway.runs.idempotency import IdempotencyKey
from runstream.ids import attempt_id, commit_id, new_id, run_task_id
from runstream.log.port import AppendConflictError, Log
from runstream.log.runs import config_of, find_run, fold_run
from runstream.runconfig.resolve import config_hash
from runstream.sealing import Keyring, seal_config
from runstream.subjects import Address, group_root, partition_of
from runstream.telemetry import current_traceparent


class SharedData(Protocol):
    """Stored logs and archives, each of which several runs may share."""

    async def refer(self, run_id: str, *, logs: Sequence[str], archives: Sequence[str]) -> None:
        """Record that a run refers to the logs and archives of these ids; durable when this returns.

        Objects with a reference are never deleted. Raises InternalError when the storage cannot be reached.
        """

    async def forget(self, run_id: str, *, logs: Sequence[str], archives: Sequence[str]) -> None:
        """Remove what `refer` has recorded, of a run that is not created. Raises InternalError."""


KNOWN_CONFIGS = 4096
ACTOR = "user:admin"
"""The author of requests with the deployment's token."""


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run to create."""

    group: str
    config: RunConfig
    annotations: dict[str, str]
    setup_errors: tuple[str, ...]
    restart: RunRestarted | None = None
    """State that a restart takes over from the earlier run; None for other runs."""
    repository: str = ""
    """The user's repository that its tasks clone, with a token of the run; empty for another repository."""


@dataclass(frozen=True, slots=True)
class CreatedRun:
    """A run as it is once it is appended; its number follows later."""

    run: RunState
    config: RunConfig
    position: Position
    repeated: bool = False
    """Whether an earlier request with the same idempotency key created it."""


@dataclass(frozen=True, slots=True)
class _SealedRun:
    """A run with its id, and a run config whose secrets are sealed."""

    run_id: str
    new: PreparedRun


@dataclass(slots=True)
class RunCreation:
    """The appends of new runs."""

    log: Log
    now: Callable[[], datetime]
    """The time in UTC."""
    shared: SharedData | None = None
    """Takes the references of restarts; without it, a restart can keep no task."""
    keyring: Keyring = field(default_factory=Keyring)
    """Seals the secrets of run configs."""
    _known: LRUCache[tuple[int, int, str], bool] = field(default_factory=lambda: LRUCache(KNOWN_CONFIGS))
    """Stored run configs, by epoch, partition and hash."""

    async def create(self, new: PreparedRun, key: IdempotencyKey | None = None, *, author: str = ACTOR) -> CreatedRun:
        """Append a run and return once it is durable; with a key that has a run already, return that run.

        Raises BadRequestError for an invalid group, ConflictError when the key was used for another request.
        """
        (created,) = await self.create_all([new], key, author=author)
        return created

    async def create_all(
        self, news: Sequence[PreparedRun], key: IdempotencyKey | None = None, *, author: str = ACTOR
    ) -> list[CreatedRun]:
        """Append runs in their order, those of one group root as a whole. Raises as `create` does.

        With a key the first run is appended before the others: of two requests with one key, the request that appends
        it owns the key.
        """
        ready = [self._sealed(new, key, at) for at, new in enumerate(news)]
        if key is None or not ready:
            return await self._append(ready, None, author)
        first = await self._repeated(self._address(ready[0]), key)
        firsts = [first] if first is not None else await self._append(ready[:1], key, author)
        return [*firsts, *await self._append(ready[1:], key, author)]

    def _sealed(self, new: PreparedRun, key: IdempotencyKey | None, index: int) -> _SealedRun:
        run_id = key.run_id(new.group, index) if key is not None else new_id()
        config = new.config
        if new.repository:
            credentials = clone_credentials(self.keyring, run_id, new.repository)
            config = structs.replace(config, static_environment={**config.static_environment, **credentials})
        return _SealedRun(run_id, replace(new, config=seal_config(config, self.keyring)))

    async def _append(self, ready: Sequence[_SealedRun], key: IdempotencyKey | None, author: str) -> list[CreatedRun]:
        news = [one.new for one in ready]
        prepared = [await self._prepare(one, key, author) for one in ready]
        answers = await self.log.append_all([commit for commit, _ in prepared]) if prepared else []
        done: list[CreatedRun] = []
        for new, (commit, event), answer in zip(news, prepared, answers, strict=True):
            if not isinstance(answer, AppendConflictError):
                done.append(_created(commit, event, new, answer))
                continue
            repeated = await self._repeated(commit.address, key) if key is not None else None
            if repeated is None:
                raise answer
            done.append(repeated)
        return done

    async def _repeated(self, address: Address, key: IdempotencyKey) -> CreatedRun | None:
        """Return the run that an earlier request with this key created; None when there is none."""
        history = await self.log.history(address)
        first = history[0].commit.events[0] if history else None
        if not isinstance(first, RunCreated):
            return None
        key.require_same(first.request, address.id)
        config = await config_of(self.log, address.partition, first.run_config)
        run = fold_run(address, first, config, history[:1])
        return CreatedRun(run, config, history[0].position, repeated=True)

    def _address(self, one: _SealedRun) -> Address:
        return Address(partition_of(group_root(one.new.group), self.log.partitions), "run", one.run_id)

    async def _prepare(self, one: _SealedRun, key: IdempotencyKey | None, author: str) -> tuple[NewCommit, RunCreated]:
        new = one.new
        address, digest = self._address(one), config_hash(new.config)
        await self._store(address.partition, digest, new.config, author)
        request = key.request if key is not None else ""
        event = RunCreated(new.config.name, new.group, digest, new.annotations, new.setup_errors, request)
        events: tuple[RunEvent, ...] = (event,)
        if new.restart is not None:
            events = (event, new.restart)
            await self._refer(address, new.config, new.restart, keyed=key is not None)
        trace = current_traceparent()
        return Head().next_commit(address, events, time=self.now(), actor=author, trace=trace), event

    async def _refer(self, address: Address, config: RunConfig, restart: RunRestarted, *, keyed: bool) -> None:
        kept = [task for task in restart.kept if task.executor_task_id]
        if not kept:
            return
        logs = [attempt_id(task.id, attempt) for task in kept for attempt in range(1, task.attempt + 1)]
        saving = [attempt_id(task.id, task.attempt) for task in kept if _saves(config.tasks[task.task])]
        if self.shared is None:
            raise InternalError("a restart keeps tasks, and this gateway has no storage to refer to", code="internal")
        await self.shared.refer(address.id, logs=logs, archives=saving)
        try:
            await self._require_held(address.partition, restart)
        except RunstreamError:
            # Another request with the same key may be past this line; without a key, the id is of this request alone.
            if not keyed:
                with suppress(RunstreamError):  # left behind, it counts for an hour only
                    await self.shared.forget(address.id, logs=logs, archives=saving)
            raise

    async def _require_held(self, partition: int, restart: RunRestarted) -> None:
        """Raise NotExistError or ConflictError if the earlier run was deleted, or lost its archives, a moment ago.

        Asked only now: a deletion that comes later finds the references (`runstream.objects.references`).
        """
        earlier = (await find_run(self.log, Address(partition, "run", restart.run_id))).run
        kept = any(task.executor_task_id and earlier.tasks[task.task].archive_steps for task in restart.kept)
        if kept and earlier.archives_removed_at is not None:
            raise ConflictError(
                f"retention removed the archives of run {earlier.id} at {earlier.archives_removed_at:%H:%M:%S} UTC",
                code="archivesRemoved",
                details={"run": earlier.id},
                hint="restart it from the beginning",
            )

    async def _store(self, partition: int, digest: str, config: RunConfig, author: str) -> None:
        key = (self.log.epoch, partition, digest)
        if not self._known.get(key):
            await self._append_config(Address(partition, "runconfig", digest), config, author)
            self._known[key] = True

    async def _append_config(self, address: Address, config: RunConfig, author: str) -> None:
        commit = NewCommit(
            id=commit_id("content", address.aggregate, 1),
            address=address,
            version=1,
            time=self.now(),
            actor=author,
            cause="",
            events=(RunConfigStored(config),),
            expected=0,
            trace=current_traceparent(),
        )
        try:
            await self.log.append(commit)
        except AppendConflictError:
            return  # equal content is stored already


def _saves(task: RunConfigTask) -> bool:
    return any(step.type == "save_to_workspace" for step in task.steps)


def _created(commit: NewCommit, event: RunCreated, new: PreparedRun, position: Position) -> CreatedRun:
    run = created(commit.address.id, event, new.config, commit.time, run_task_id)
    if new.restart is not None:
        run = evolve(run, new.restart, commit.time)
    return CreatedRun(run, new.config, position)

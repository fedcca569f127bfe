"""How runs are created: a run config is stored once, by the hash of its content; then runs refer to it.

Both are on the partition of the run's group root, the config first, so that whoever reads the partition in
order knows the config before the run. That a config is stored already is remembered for the last few thousand.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from runstream.commits import Head, NewCommit, Position
from runstream.domain.run import Run, created
from runstream.events.run import RunCreated
from runstream.events.run_config import RunConfig, RunConfigStored
from runstream.ids import commit_id, new_id, run_task_id
from runstream.log.port import AppendConflictError, Log
from runstream.runconfig import config_hash
from runstream.subjects import Address, group_root, partition_of
from runstream.telemetry import current_traceparent

KNOWN_CONFIGS = 4096
ACTOR = "user:admin"
"""Whoever has the deployment's token."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that is to be created."""

    group: str
    config: RunConfig
    annotations: dict[str, str]
    setup_errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Created:
    """A run as it is known the moment it is in the log: its number is given later."""

    run: Run
    config: RunConfig
    position: Position


@dataclass(slots=True)
class RunCreation:
    """Appends new runs."""

    log: Log
    now: Callable[[], datetime]
    """The time in UTC."""
    _known: OrderedDict[tuple[int, int, str], None] = field(default_factory=OrderedDict)
    """Stored run configs by epoch, partition and hash, the last used at the end."""

    async def create(self, new: NewRun) -> Created:
        """Append a run; returns once it is durable. Raises BadRequestError for a group that is not one."""
        commit, event = await self._prepare(new)
        return _created(commit, event, new.config, await self.log.append(commit))

    async def create_all(self, news: Sequence[NewRun]) -> list[Created]:
        """Append runs in their order; those of one group root as a whole. Raises BadRequestError as `create`."""
        prepared = [await self._prepare(new) for new in news]
        answers = await self.log.append_all([commit for commit, _ in prepared])
        done: list[Created] = []
        for new, (commit, event), answer in zip(news, prepared, answers, strict=True):
            if isinstance(answer, AppendConflictError):
                raise answer
            done.append(_created(commit, event, new.config, answer))
        return done

    async def _prepare(self, new: NewRun) -> tuple[NewCommit, RunCreated]:
        partition = partition_of(group_root(new.group), self.log.partitions)
        digest = config_hash(new.config)
        await self._store(partition, digest, new.config)
        event = RunCreated(new.config.name, new.group, digest, new.annotations, new.setup_errors, request="")
        address = Address(partition, "run", new_id())
        trace = current_traceparent()
        return Head().next_commit(address, (event,), time=self.now(), actor=ACTOR, trace=trace), event

    async def _store(self, partition: int, digest: str, config: RunConfig) -> None:
        key = (self.log.epoch, partition, digest)
        if key not in self._known:
            await self._append_config(Address(partition, "runconfig", digest), config)
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > KNOWN_CONFIGS:
            self._known.popitem(last=False)

    async def _append_config(self, address: Address, config: RunConfig) -> None:
        commit = NewCommit(
            id=commit_id("content", address.aggregate, 1),
            address=address,
            version=1,
            time=self.now(),
            actor=ACTOR,
            cause="",
            events=(RunConfigStored(config),),
            expected=0,
            trace=current_traceparent(),
        )
        try:
            await self.log.append(commit)
        except AppendConflictError:
            return  # equal content is stored already: that is all we want


def _created(commit: NewCommit, event: RunCreated, config: RunConfig, position: Position) -> Created:
    return Created(created(commit.address.id, event, config, commit.time, run_task_id), config, position)

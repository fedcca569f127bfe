"""Users' decisions about runs and executors, made on their histories as the log has them now, and appended.

An update token (rule stop-8) names the version of the run that a client read, under names of the client's choice. An
action with a token is refused when the run has changed since. The gateway stores nothing for a token, so it never
expires.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import msgspec

from runstream.commits import Head, NewCommit, Position, StoredCommit
from runstream.domain.executor import ExecutorState, RegisteredExecutor
from runstream.domain.run import RunState
from runstream.errors import BadRequestError, ConflictError, NotExistError
from runstream.events.event import DomainEvent
from runstream.events.executor import ExecutorDeleted, ExecutorDrained, ExecutorUndrained
from runstream.events.run import RunEvent
from runstream.folding import fold_executor
from runstream.gateway.runs.create import ACTOR
from runstream.ids import require_token
from runstream.log.port import Log, decide_and_append
from runstream.log.runs import find_run, head_of, locate_run
from runstream.subjects import Address, partition_of
from runstream.telemetry import current_traceparent


@dataclass(frozen=True, slots=True)
class SeenRun:
    """A version of a run that a client read."""

    run_id: str
    version: int
    """The version of the run's own history; changes of its executor tasks do not count."""


class _Token(msgspec.Struct):
    change_groups_values: dict[str, str]


def update_token(names: Iterable[str], run_id: str, version: int) -> str:
    """Return the token for a run as it was read; empty without names."""
    values = dict.fromkeys(names, f"{run_id}@{version}")
    return base64.b64encode(msgspec.json.encode(_Token(values))).decode() if values else ""


def parse_token(token: str) -> SeenRun | None:
    """Decode a token; None for an empty one, or one without names. Raises BadRequestError for an invalid one."""
    if not token:
        return None
    try:
        values = set(
            msgspec.json.decode(base64.b64decode(token, validate=True), type=_Token).change_groups_values.values()
        )
        if not values:
            return None
        (value,) = values
        run_id, _, version = value.partition("@")
        return SeenRun(run_id, int(version))
    except (ValueError, RecursionError) as error:
        raise BadRequestError(
            "change_groups_update_tokens is not a token",
            code="invalidChangeGroupsToken",
            hint="take it from the response to GET /runs/{run_id}?changegroup=NAME",
        ) from error


S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Actions:
    """Users' actions on runs and executors."""

    log: Log
    now: Callable[[], datetime]
    """The time in UTC."""

    async def on_run(
        self,
        run_id: str,
        decide: Callable[[RunState], Sequence[RunEvent]],
        seen: SeenRun | None = None,
        *,
        author: str = ACTOR,
    ) -> Position | None:
        """Append the events that `decide` returns for the run; None when there are none.

        Raises what `decide` raises, NotExistError, and ConflictError when the run has changed since it was `seen`.
        """
        address = await locate_run(self.log, run_id)

        async def load(_: Position | None) -> tuple[RunState, Head]:
            found = await find_run(self.log, address)
            if seen is not None and seen != SeenRun(run_id, found.head.version):
                raise _changed_since(run_id, seen)
            return found.run, found.head

        return await self._append(address, load, decide, author)

    async def delete_executor(self, executor_id: str) -> Position | None:
        """Delete an executor. Raises NotExistError for an executor that does not exist, or is deleted already."""
        return await self._on_executor(executor_id, lambda _: (ExecutorDeleted(),))

    async def drain_executor(self, executor_id: str, *, draining: bool) -> Position | None:
        """Drain an executor, or end that; None when there is nothing to change. Raises NotExistError."""
        event = ExecutorDrained() if draining else ExecutorUndrained()
        return await self._on_executor(executor_id, lambda executor: () if executor.draining is draining else (event,))

    async def _on_executor(
        self, executor_id: str, decide: Callable[[RegisteredExecutor], Sequence[DomainEvent]]
    ) -> Position | None:
        require_token(executor_id, "executor id")
        address = Address(partition_of(executor_id, self.log.partitions), "executor", executor_id)

        async def load(_: Position | None) -> tuple[RegisteredExecutor | None, Head]:
            history = await self.log.history(address)
            return _fold_executor(history), head_of(history)

        return await self._append(address, load, lambda executor: decide(_existing(executor_id, executor)))

    async def _append(
        self,
        address: Address,
        load: Callable[[Position | None], Awaitable[tuple[S, Head]]],
        decide: Callable[[S], Sequence[DomainEvent]],
        author: str = ACTOR,
    ) -> Position | None:
        def commit(state: S, head: Head) -> NewCommit | None:
            events = decide(state)
            if not events:
                return None
            return head.next_commit(address, events, time=self.now(), actor=author, trace=current_traceparent())

        appended = await decide_and_append(self.log, load, commit)
        return appended.position if appended else None


def _changed_since(run_id: str, seen: SeenRun) -> ConflictError:
    return ConflictError(
        f"run {run_id} has changed since it was read",
        code="concurrentUpdate",
        details={"run": run_id, "seen": {"run": seen.run_id, "version": seen.version}},
        hint="read the run again, and decide on its new state",
    )


def _fold_executor(history: Sequence[StoredCommit]) -> RegisteredExecutor | None:
    executor: RegisteredExecutor | None = None
    for stored in history:
        executor = fold_executor(executor, stored.commit) if stored.commit.events else executor
    return executor


def _existing(executor_id: str, executor: RegisteredExecutor | None) -> RegisteredExecutor:
    if executor is None or executor.state is ExecutorState.DELETED:
        raise NotExistError(
            f"executor {executor_id} does not exist",
            code="executorDoesNotExist",
            details={"executor": executor_id},
            hint="`runstream executor list` shows the executors that exist",
        )
    return executor

"""Restarts, deletions, retention and two cleaners, interleaved in any order and killed anywhere.

Nothing that a run refers to is ever removed, and everything else goes in the end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runstream.commits import Head, NewCommit, Position
from runstream.domain.actions import NotAllowed, decide_delete
from runstream.domain.restart import decide_restart
from runstream.domain.run import RestartOrigin, RunState
from runstream.errors import ConflictError, NotExistError
from runstream.events.event import DomainEvent
from runstream.events.executor_task import ExecutorTaskFinished, ExecutorTaskPhase
from runstream.events.run import (
    DataKind,
    RunArchived,
    RunDataRemoved,
    RunDeleted,
    RunEvent,
    RunFinished,
    RunRestarted,
    RunResultSet,
    RunStarted,
)
from runstream.events.run_config import Depend
from runstream.gateway.runs.create import PreparedRun, RunCreation
from runstream.ids import executor_task_id
from runstream.log.port import decide_and_append
from runstream.log.runs import find_run
from runstream.objects import ObjectStorage, paths
from runstream.objects.references import GRACE, Shared, SharedObjects, shared_of
from runstream.retention.removal import Removal, release_of
from runstream.run_states import RunResult
from runstream.subjects import Address
from tests.domain.world import config, task
from tests.factories import task_assigned
from tests.gateway.folding import FoldedLog
from tests.log.memory import MemoryReader

from .turns import BEGUN, Clock, SteppedLog, SteppedObjects, finish, play

GROUP = "/project/p/branch/main"
CONFIG = config(task("build", steps=2, save=True), task("test", Depend("build", ("on_success",)), level=1))
KINDS: tuple[DataKind, ...] = ("logs", "archives")
PLAYS = int(os.environ.get("RUNSTREAM_TEST_RUNS", "300"))
SWITCHES = (0.02, 0.1, 0.3, 1.0)
"""Probabilities that another one goes on at an access."""
Actor = Coroutine[Any, Any, None]


class Service:
    """A gateway, executors and cleaners over one log and one storage."""

    def __init__(self, random: Random, clock: Clock, objects: ObjectStorage) -> None:
        self.random = random
        self.clock = clock
        self.log = SteppedLog(partitions=1)
        self.objects = objects
        self.creation = RunCreation(self.log, self.clock.now, SharedObjects(self.objects))
        self.runs: list[str] = []

    async def append(self, address: Address, *events: DomainEvent) -> None:
        history = await self.log.history(address)
        head = Head(history[-1].commit.version, history[-1].position.sequence) if history else Head()
        await self.log.append(head.next_commit(address, events, time=self.clock.now(), actor="someone"))

    async def create(self) -> None:
        created = await self.creation.create(PreparedRun(GROUP, CONFIG, {}, ()))
        await self.settle(self.execute(created.run))

    async def settle(self, work: Actor) -> None:
        """Do work to its end at once: none of the others gets a turn meanwhile."""
        finish(work)

    async def execute(self, run: RunState) -> None:
        """Run what is not kept: the build succeeds, the test fails."""
        address = Address(0, "run", run.id)
        await self.append(address, RunStarted())
        for one in run.tasks.values():
            if one.kept:
                continue
            executed = Address(0, "task", executor_task_id(run.id, one.id), "e1")
            steps = len(CONFIG.tasks[one.name].steps)
            assigned = task_assigned("e1", run.id, one.id, task=one.name, run_config=run.run_config, steps=steps)
            await self.append(executed, assigned)
            stored = {paths.step_log(one.id, 0): b"", paths.log_index(one.id, 0): b""}
            stored[paths.log_reference(one.id, run.id)] = b""
            if one.archive_steps:
                stored |= {paths.archive(one.id, 0): b"", paths.archive_reference(one.id, run.id): b""}
            await self.objects.write_all(stored)
            phase = ExecutorTaskPhase.SUCCESS if one.name == "build" else ExecutorTaskPhase.FAILED
            await self.append(executed, ExecutorTaskFinished(BEGUN, phase, ""))
        await self.append(address, RunResultSet(RunResult.FAILED), RunFinished(), RunArchived())
        self.runs.append(run.id)

    async def restart(self, run_id: str) -> None:
        with suppress(NotExistError, NotAllowed, ConflictError):
            projected = (await FoldedLog(self.log).partitions())[0]
            if run_id not in projected.runs:
                return
            asked = RestartOrigin(run_id, "failed", (), descendants=False, fresh=False)
            restart = decide_restart(projected.runs[run_id].state, CONFIG, asked)
            created = await self.creation.create(PreparedRun(GROUP, CONFIG, {}, (), restart))
            await self.settle(self.execute(created.run))

    async def delete(self, run_id: str) -> None:
        with suppress(NotExistError, NotAllowed, ConflictError):
            await self.decide(run_id, decide_delete)

    async def remove(self, run_id: str, kind: DataKind) -> None:
        def decide(run: RunState) -> Sequence[RunEvent]:
            return () if getattr(run, f"{kind}_removed_at") is not None else (RunDataRemoved((kind,), "a rule"),)

        with suppress(NotExistError, ConflictError):
            await self.decide(run_id, decide)

    async def decide(self, run_id: str, decide: Callable[[RunState], Sequence[RunEvent]]) -> None:
        address = Address(0, "run", run_id)

        async def load(_: Position | None) -> tuple[RunState, Head]:
            found = await find_run(self.log, address)
            return found.run, found.head

        def commit(run: RunState, head: Head) -> NewCommit | None:
            events = decide(run)
            return head.next_commit(address, events, time=self.clock.now(), actor="user") if events else None

        await decide_and_append(self.log, load, commit)

    async def clean(self) -> None:
        """Remove what the log releases, from its beginning on, as a cleaner without a mark."""
        removal = Removal(self.log, self.objects, self.clock.now)
        reader = MemoryReader(self.log.streams[0], 0, ())
        for message in await reader.next_batch(100_000):
            release = release_of(message)
            if release is not None:
                await removal.remove(release)

    def actors(self) -> list[Actor]:
        """What happens at the same time."""
        chosen: list[Callable[[], Actor]] = [self.clean, self.clean]  # Hypothesis may end the test while it chooses
        for _ in range(self.random.randint(1, 6)):
            run_id, move = self.random.choice(self.runs), self.random.randrange(5)
            if move < 2:
                chosen.append(partial(self.restart, run_id))
            elif move < 4:
                chosen.append(partial(self.delete, run_id))
            else:
                chosen.append(partial(self.remove, run_id, self.random.choice(KINDS)))
        return [begin() for begin in chosen]

    def held(self) -> tuple[set[tuple[Shared, str]], set[tuple[Shared, str]]]:
        """What runs refer to in the order of the log, and what they may refer to at most.

        A restart in the log has what it keeps, even if the earlier run was deleted just before; only logs may have been
        removed from that run when it was restarted.
        """
        surely: set[tuple[Shared, str]] = set()
        had: set[tuple[Shared, str]] = set()
        for message in self.log.streams[0].messages:
            for run_id, event in _events(message):
                if isinstance(event, RunRestarted):
                    for kept in event.kept:
                        kept_data = _shared(kept.id, kept.task)
                        surely |= {(shared, run_id) for shared in kept_data if (shared, event.run_id) in had}
                elif isinstance(event, RunArchived):
                    run = self.run(run_id)
                    own = [one for one in run.tasks.values() if not one.kept]
                    surely |= {(shared, run_id) for one in own for shared in _shared(one.id, one.name)}
                elif isinstance(event, RunDataRemoved):
                    surely = {each for each in surely if each[1] != run_id or each[0].kind not in event.kinds}
                    had = {
                        each
                        for each in had
                        if each[1] != run_id or each[0].kind not in event.kinds or each[0].kind == "archives"
                    }
                elif isinstance(event, RunDeleted):
                    surely = {each for each in surely if each[1] != run_id}
                had |= surely
        possibly = {
            (shared, run.id)
            for run in map(self.run, self.known())
            if run.deleted_at is None
            for one in run.tasks.values()
            for shared in _shared(one.id, one.name)
            if getattr(run, f"{shared.kind}_removed_at") is None
        }
        return surely, possibly

    def check(self, there: set[str]) -> None:
        """Compare what is stored in the end with what runs refer to."""
        surely, possibly = self.held()
        assert {path for shared, _ in surely for path in _data(shared)} <= there
        assert {shared.reference(run_id) for shared, run_id in surely} <= there
        allowed = {path for shared, run_id in possibly for path in (*_data(shared), shared.reference(run_id))}
        # What a restart that was killed or refused has left beside data that others hold goes with the next of these.
        left = {path for path in there - allowed if path.rpartition("/")[2] not in self.known()}
        assert there - left <= allowed
        assert {shared_of(path) for path in left} <= {shared for shared, _ in possibly}

    def known(self) -> set[str]:
        """All runs of the log."""
        return {run_id for message in self.log.streams[0].messages for run_id, _ in _events(message)}

    def run(self, run_id: str) -> RunState:
        found: list[RunState] = []

        async def find() -> None:
            found.append((await find_run(self.log, Address(0, "run", run_id), also_deleted=True)).run)

        finish(find())
        return found[0]


def _chance(random: Random, probability: float) -> bool:
    return random.random() < probability


def _events(message: Any) -> list[tuple[str, DomainEvent]]:
    from runstream.codec import decode

    commit = decode(message).commit
    return [(commit.address.id, event) for event in commit.events] if commit.address.kind == "run" else []


def _shared(stored: str, name: str) -> list[Shared]:
    return [Shared(kind, stored) for kind in KINDS if kind == "logs" or name == "build"]


def _data(shared: Shared) -> list[str]:
    if shared.kind == "archives":
        return [paths.archive(shared.stored, 0)]
    return [paths.step_log(shared.stored, 0), paths.log_index(shared.stored, 0)]


@settings(max_examples=PLAYS, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=True))  # else Hypothesis ends long plays, which have the races
def test_what_runs_refer_to_stays_and_all_else_goes(random: Random) -> None:
    clock = Clock()
    objects = SteppedObjects(clock)
    service = Service(random, clock, cast("ObjectStorage", objects))
    for _ in range(random.randint(1, 2)):
        finish(service.create())
    for _ in range(random.randint(1, 4)):
        play(
            service.actors(),
            random.randrange,
            partial(_chance, random, random.choice(SWITCHES)),
            partial(_chance, random, 0.003),
        )
        surely, _ = service.held()
        assert {path for shared, _ in surely for path in _data(shared)} <= objects.paths.keys()
        if random.random() < 0.3:
            service.clock.later(GRACE * 2)
    service.clock.later(GRACE * 2)
    finish(service.clean())
    service.check(set(objects.paths))


class AwaitedService(Service):
    """The same with a real storage, whose accesses take turns as they come."""

    async def settle(self, work: Actor) -> None:
        await work


@pytest.mark.parametrize("seed", range(3))
async def test_two_cleaners_and_restarts_meet_in_a_real_storage(storage: ObjectStorage, seed: int) -> None:
    clock = Clock()
    clock.time = datetime.now(UTC)
    service = AwaitedService(Random(seed), clock, storage)  # noqa: S311  an order of events
    for _ in range(3):
        await service.create()
        await asyncio.gather(*service.actors(), *service.actors())
    clock.later(GRACE * 2)
    await service.clean()
    service.check({one.path async for one in storage.list()})

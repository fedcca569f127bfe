"""Two scheduler processes on real servers: a free slot goes to the next task, whichever process has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import orjson
import pytest

from runstream.commits import Head, StoredCommit
from runstream.domain import executor_task as executor_tasks
from runstream.domain.executor import Demand
from runstream.domain.executor_task import ExecutorTask, decide_start
from runstream.events.executor_task import ExecutorTaskAssigned, ExecutorTaskPhase
from runstream.jetstream.messaging import Questions
from runstream.projections.ownership import assign_partitions
from runstream.scheduler import gossip
from runstream.scheduler.gossip import encode
from runstream.scheduler.peers import Claim, PeerReport
from runstream.subjects import partition_of
from tests.domain.world import config, task
from tests.servers import Servers

from .standing import FakeExecutor, Members, Standing, running, standing

ONE = config(task("a"))
BOTH = ("first", "second")


class HeldExecutor(FakeExecutor):
    """An executor that starts each task and ends it when the test asks."""

    def __init__(self, around: Standing, limit: int) -> None:
        super().__init__(around, "e", limit=limit)
        self.begun: asyncio.Queue[tuple[StoredCommit, Head, ExecutorTask]] = asyncio.Queue()

    async def _take(self, stored: StoredCommit) -> None:
        (event, *_) = stored.commit.events
        if isinstance(event, ExecutorTaskAssigned):
            given = executor_tasks.assigned(stored.commit.address.id, event)
            head = await self._report(stored, Head(1, stored.position.sequence), decide_start(given, datetime.now(UTC)))
            self.begun.put_nowait((stored, head, given))

    async def finish(self, begun: tuple[StoredCommit, Head, ExecutorTask]) -> None:
        stored, head, given = begun
        await self._report(stored, head, FakeExecutor.end(given, ExecutorTaskPhase.SUCCESS))


def root_of(owner: str, everybody: Collection[str] = BOTH) -> str:
    """A project whose partition is that scheduler's."""
    shares = assign_partitions(2, everybody)
    return next(name for name in map("/project/p{}".format, range(99)) if shares[partition_of(name, 2)] == owner)


@asynccontextmanager
async def two_schedulers(around: Standing) -> AsyncIterator[None]:
    first, second = [await around.scheduler(Members(one, BOTH)) for one in BOTH]
    async with running(first), running(second):
        yield


async def tasks_before(around: Standing, run: str) -> int | None:
    """Return how many tasks are ahead of the run's; None when it does not wait for a slot."""
    question = orjson.dumps({"run": run, "at_least": 0})
    subject = around.log.subjects.questions(around.runs[run])
    answer = await Questions(around.nats).ask(subject, question, 5)
    told = orjson.loads(answer) if isinstance(answer, bytes) else None
    reasons = told["reasons"] if told else []
    return next((one["details"]["before"] for one in reasons if one["code"] == "executorsFull"), None)


async def until_before(around: Standing, run: str, count: int) -> None:
    while await tasks_before(around, run) != count:
        await around.nats.flush()


@pytest.mark.parametrize("limit", [1, 3])
async def test_a_project_with_much_leaves_room_for_one_of_another_process(servers: Servers, limit: int) -> None:
    async with standing(servers) as around, two_schedulers(around):
        executor = HeldExecutor(around, limit)
        async with executor.alive():
            big = [await around.create(ONE, f"{root_of('first')}/branch/b{n}") for n in range(200)]
            begun = [await executor.begun.get() for _ in range(limit)]
            await until_before(around, big[-1], 200 - limit - 1)
            small = await around.create(ONE, f"{root_of('second')}/branch/main")
            await until_before(around, small, 0)
            await until_before(around, big[-1], 200 - limit)
            await executor.finish(begun[0])
            following = await executor.begun.get()
            assert following[2].run_id == small
            await executor.finish(following)
            assert (await executor.begun.get())[2].run_id in big
            assert executor.begun.empty()


async def test_the_claims_of_a_silent_process_are_forgotten(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that claimed slots and died unnoticed does not hold up the queue."""
    monkeypatch.setattr(gossip, "VALID_SECONDS", 0.5)
    monkeypatch.setattr(gossip, "REPEAT_SECONDS", 0.1)
    async with standing(servers) as around:
        executor = HeldExecutor(around, limit=1)
        claim = Claim(Demand("host", "", False, ()), 0, "/project/ghost", (0, 0, 1), 5)
        said = encode("ghost", PeerReport((7,), (claim,)))
        root = root_of("first", ("first", "ghost"))
        async with running(await around.scheduler(Members("first", ("ghost",)))), executor.alive():
            runs = [await around.create(ONE, f"{root}/branch/b{n}") for n in range(2)]
            begun = await executor.begun.get()
            (waiting,) = [run for run in runs if run != begun[2].run_id]
            await until_before(around, waiting, 0)
            while await tasks_before(around, waiting) != 5:
                await around.nats.publish(around.log.subjects.notices(), said)
            await executor.finish(begun)
            assert (await executor.begun.get())[2].run_id == waiting

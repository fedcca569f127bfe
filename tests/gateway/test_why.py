"""Why a run waits, on real servers: each test sets up a situation and reads its reason."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import orjson
import pytest
from msgspec.structs import replace

from runstream.client import Client, ClientError, NewRun, Reason, Why
from runstream.domain.executor import Demand
from runstream.domain.executor_task import ExecutorTask
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.events.run_config import Depend, Retry, Runtime
from runstream.ids import new_id, run_task_id
from runstream.jetstream.messaging import NoAnswer
from runstream.scheduler.gossip import encode
from runstream.scheduler.peers import Claim, PeerReport
from runstream.subjects import partition_of
from tests.domain.world import config, task
from tests.gateway.test_real_servers import running_gateway
from tests.gateway.world import World
from tests.scheduler.standing import FakeExecutor, Standing, running, standing
from tests.servers import Servers

RUNNING, FAILED = ExecutorTaskPhase.RUNNING, ExecutorTaskPhase.FAILED
AFTER_A = Depend("a", ("on_success",))
ONE = config(task("a"))
MAIN, DEV = "/project/p/branch/main", "/project/p/branch/dev"


class Situation:
    """A service with a scheduler, in which a test sets something up."""

    def __init__(self, around: Standing, client: Client) -> None:
        self.around = around
        self.client = client

    def executor(self, name: str = "e1", *, limit: int = 0, outcome: ExecutorTaskPhase | None = None) -> FakeExecutor:
        """An executor whose tasks end as said; they succeed when nothing is said, and never end with `running`."""
        phase = outcome or ExecutorTaskPhase.SUCCESS

        def ends(_task: ExecutorTask) -> ExecutorTaskPhase:
            return phase

        return FakeExecutor(self.around, name, limit=limit, outcome=ends)

    async def reason(self, run: str, code: str) -> Reason:
        """The reason of this code, as soon as it is told."""
        while not (found := [one for one in (await self.why(run)).reasons if one.code == code]):
            await self.around.nats.flush()
        return found[0]

    async def why(self, run: str) -> Why:
        return await self.client.runs.why(run)


@asynccontextmanager
async def situation(servers: Servers, folder: Path) -> AsyncIterator[Situation]:
    async with (
        standing(servers) as around,
        running(await around.scheduler()),
        running_gateway(around, folder) as client,
    ):
        yield Situation(around, client)


Place = Callable[[], AbstractAsyncContextManager[Situation]]


@pytest.fixture
def place(servers: Servers, tmp_path: Path) -> Place:
    return partial(situation, servers, tmp_path)


async def test_another_run_of_its_group_has_not_ended(place: Place) -> None:
    async with place() as here:
        first, _, third = [await here.around.create(ONE) for _ in range(3)]
        while (await here.client.runs.get(first)).phase != "running":
            await here.around.nats.flush()
        reason = await here.reason(third, "group")
        assert (reason.details["run"], reason.details["before"]) == (first, 2)
        assert reason.message == "run /project/p/1 of its group is running, and 1 more run before it"
        await here.client.runs.pause(first)
        assert (await here.reason(third, "group")).details["paused"] is True


async def test_a_task_that_it_depends_on_has_not_ended(place: Place) -> None:
    async with place() as here:
        run = await here.around.create(config(task("a"), task("b", AFTER_A, level=1)))
        async with here.executor(outcome=RUNNING).alive():
            assert (await here.reason(run, "running")).tasks == ("a",)
            reason = await here.reason(run, "dependency")
        assert (reason.tasks, reason.message) == (("b",), "it waits for a (running)")
        assert reason.details == {"tasks": {"a": "running"}}


async def test_what_it_gets_is_not_stored_yet(place: Place) -> None:
    async with place() as here:
        run = await here.around.create(config(task("a", save=True), task("b", AFTER_A, level=1)))
        async with here.executor().alive():
            reason = await here.reason(run, "archives")
        assert (reason.tasks, reason.details) == (("b",), {"tasks": ["a"]})


async def test_it_waits_for_approval(place: Place) -> None:
    async with place() as here:
        run = await here.around.create(config(task("a", needs_approval=True)))
        reason = await here.reason(run, "approval")
        assert (reason.tasks, reason.message) == (("a",), "it waits for approval")
        await here.client.runs.approve(run, run_task_id(run, "a"))
        assert (await here.reason(run, "noExecutor")).tasks == ("a",)


async def test_there_is_no_executor(place: Place) -> None:
    async with place() as here:
        run = await here.around.create(config(task("a"), task("b")))
        reason = await here.reason(run, "noExecutor")
        assert (reason.tasks, reason.message) == (("a", "b"), "there is no executor")


async def test_no_executor_fits(place: Place) -> None:
    async with place() as here:
        runtime = Runtime("host", "arm64", (), {"gpu": "a100"})
        run = await here.around.create(config(task("a", runtime=runtime)))
        labelled = here.executor("e2")
        labelled.offer = replace(labelled.offer, labels={"gpu": "t4"})
        async with here.executor().alive(), labelled.alive():
            while len((reason := await here.reason(run, "noExecutorFits")).message.split(";")) < 2:
                pass
        assert reason.message == (
            "no executor fits (needed: host, architecture arm64, label gpu=a100): "
            "e1 has no architecture arm64 and has no label gpu; "
            "e2 has no architecture arm64 and has the label gpu with the value 't4', not 'a100'"
        )
        assert reason.details["executors"] == {
            "e1": {"arch": "has no architecture arm64", "label": "has no label gpu"},
            "e2": {"arch": "has no architecture arm64", "label": "has the label gpu with the value 't4', not 'a100'"},
        }
        assert reason.details["requires"] == {"type": "host", "arch": "arm64", "labels": {"gpu": "a100"}}


async def test_all_executors_that_fit_are_full(place: Place) -> None:
    async with place() as here:
        async with here.executor(limit=1, outcome=RUNNING).alive():
            runs = [await here.around.create(ONE, f"/project/p/branch/b{number}") for number in range(3)]
            assert (await here.reason(runs[0], "running")).details == {"executor": "e1"}
            assert (await here.reason(runs[1], "executorsFull")).details["before"] == 0
            reason = await here.reason(runs[2], "executorsFull")
        assert reason.message == "the executor that fits is full: e1 (1 of 1 tasks); 1 task comes before it"
        assert reason.details == {"executors": {"e1": "1 of 1 tasks"}, "fitting": 1, "before": 1}


async def test_it_is_the_turn_of_tasks_of_another_scheduler(place: Place) -> None:
    async with place() as here:
        claim = Claim(Demand("host", "", False, ()), 0, "/project/other", (0, 0, 0), 2)
        said = encode("other", PeerReport((), (claim,)))
        async with here.executor(limit=1).alive():
            await here.around.nats.publish(here.around.log.subjects.notices(), said)
            await here.around.nats.flush()
            run = await here.around.create(ONE)
            reason = await here.reason(run, "turn")
        assert reason.message == "there is room, but 2 tasks come before it: e1 (0 of 1 tasks)"


async def test_the_next_attempt_has_to_wait(place: Place) -> None:
    async with place() as here:
        hour = 3_600_000_000_000
        run = await here.around.create(config(task("a", retry=Retry(3, hour, ("failure",)))))
        async with here.executor(outcome=FAILED).alive():
            reason = await here.reason(run, "backoff")
        assert (reason.tasks, reason.details["attempt"]) == (("a",), 2)
        assert reason.message.startswith("attempt 2 begins at ")


async def test_it_is_paused(place: Place) -> None:
    async with place() as here:
        run = await here.around.create(ONE)
        await here.reason(run, "noExecutor")
        await here.client.runs.pause(run)
        (reason,) = (await here.why(run)).reasons
        assert reason.code == "paused"
        assert "nothing more of it starts until it is resumed" in reason.message


async def test_it_is_being_stopped(place: Place) -> None:
    async with place() as here:
        run = await here.around.create(config(task("a"), task("b", AFTER_A, level=1)))
        async with here.executor(outcome=RUNNING).alive():
            await here.reason(run, "running")
            await here.client.runs.stop(run)
            reason = await here.reason(run, "stopping")
            while reason.tasks != ("a",):
                reason = await here.reason(run, "stopping")
        assert reason.message == "it was asked to stop: a has not ended yet"


async def test_an_executor_has_it_and_has_not_started_it(place: Place) -> None:
    async with place() as here:
        busy = here.executor()
        busy.idle = True
        run = await here.around.create(ONE)
        async with busy.alive():
            reason = await here.reason(run, "assigned")
        assert (reason.details, reason.message) == ({"executor": "e1"}, "executor e1 has not started it yet")


async def test_it_has_ended(place: Place) -> None:
    async with place() as here:
        async with here.executor().alive():
            run = await here.around.create(ONE)
            reason = await here.reason(run, "ended")
        assert reason.message == "it has ended: success"
        _, cancelled = [await here.around.create(ONE) for _ in range(2)]
        await here.client.runs.cancel(cancelled)
        assert (await here.why(cancelled)).reasons[0].message == "it was cancelled"
        broken = await here.client.runs.create(NewRun(DEV, "broken", {}, setup_errors=["no such file"]))
        found = await here.why(broken.id)
        assert (found.phase, found.reasons[0].code) == ("setuperror", "setupError")
        assert found.reasons[0].message == "it has setup errors and will not run: no such file"


async def test_a_scheduler_that_does_not_answer_is_a_reason() -> None:
    world = World.make()
    async with world.client() as client:
        run = await client.runs.create(NewRun(MAIN, "r", {}))
        for answer, code in (
            (NoAnswer.SILENT, "noAnswer"),
            (NoAnswer.NO_RESPONDERS, "noScheduler"),
            (b"null", "parked"),
        ):
            world.asking.answer = answer
            found = await client.runs.why(run.id)
            assert (found.phase, [one.code for one in found.reasons]) == ("queued", [code])
    (subject, question), *_ = world.asking.asked
    assert subject == world.log.subjects.questions(partition_of("/project/p", 4))
    assert orjson.loads(question) == {"run": run.id, "at_least": 2}


async def test_an_unknown_run_has_no_reason(place: Place) -> None:
    async with place() as here:
        with pytest.raises(ClientError, match="does not exist") as refused:
            await here.why(new_id())
        assert refused.value.code == "runDoesNotExist"


async def test_no_scheduler_works_on_its_partition(servers: Servers, tmp_path: Path) -> None:
    async with (
        standing(servers) as around,
        running_gateway(around, tmp_path) as client,
    ):
        run = await around.create(ONE)
        (reason,) = (await client.runs.why(run)).reasons
        assert (reason.code, reason.details) == ("noScheduler", {"partition": around.runs[run]})
        async with running(await around.scheduler()):
            here = Situation(around, client)
            assert (await here.reason(run, "noExecutor")).tasks == ("a",)
        assert (await here.reason(run, "noScheduler")).tasks == ()

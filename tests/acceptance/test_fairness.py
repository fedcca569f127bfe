"""Two scheduler processes and one executor: a project that fills it yields a slot to another project's only task."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from runstream.client import Client, NewRun, Reason
from runstream.run_states import RunResult
from runstream.subjects import partition_of
from tests.acceptance.deployment import deployed
from tests.acceptance.load import task, was_orderly
from tests.acceptance.story import Story, reading

pytestmark = pytest.mark.seconds(240)

MANY = 200


async def test_the_next_slot_goes_to_the_project_that_has_none(open_path: Path) -> None:
    gate = open_path / "gate"
    waits = {"one": task("one", f"while [ ! -e {gate} ]; do sleep 0.1; done")}
    async with deployed(
        open_path, "--sandbox", "off", "--active-tasks-limit", "1", schedulers=2, executors=1
    ) as deployment:
        schedulers = [deployment.processes[f"scheduler{number}"] for number in range(2)]
        async with reading(deployment.nats.url) as story, deployment.client() as client:
            while [len(scheduler.owned()) for scheduler in schedulers] != [2, 2]:
                await client.runs.page()
            big, small = (_root_of(scheduler.owned()) for scheduler in schedulers)
            runs = [
                (await client.runs.create(NewRun(f"{big}/branch/b{number}", "big", waits))).id for number in range(MANY)
            ]
            await story.until(lambda: len(_begun(story)) == 1)
            await _told(client, runs[-1], before=MANY - 2)
            alone = (await client.runs.create(NewRun(f"{small}/branch/main", "small", waits))).id
            await _told(client, alone, before=0)
            # Now the other scheduler, too, knows that another project's task is next.
            await _told(client, runs[-1], before=MANY - 1)
            gate.touch()
            await story.until(lambda: alone in story.ended)
        assert _begun(story)[1] == alone
        assert story.results[alone] is RunResult.SUCCESS
        was_orderly(story)


def _root_of(owned: set[int]) -> str:
    """A project whose runs are in one of these partitions."""
    return next(root for root in map("/project/p{}".format, count()) if partition_of(root, 4) in owned)


def _begun(story: Story) -> list[str]:
    """The runs whose tasks were started, in this order."""
    begun = [(one.start_time, one.run_id) for one in story.tasks.values() if one.start_time is not None]
    return [run for _, run in sorted(begun)]


async def _told(client: Client, run: str, before: int) -> Reason:
    """Wait until this many tasks are ahead of the run; return the reason why it waits."""
    while True:
        for reason in (await client.runs.why(run)).reasons:
            if reason.details.get("before") == before and reason.code == "executorsFull":
                return reason

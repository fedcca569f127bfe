"""A scheduler that stops first appends its pending decisions and writes its pending rows."""

from __future__ import annotations

from runstream.database.runs import get_positions
from tests.domain.world import config, task
from tests.scheduler.standing import FakeExecutor, running, standing
from tests.servers import Servers


async def test_what_was_taken_in_is_projected(servers: Servers) -> None:
    async with standing(servers) as around:
        async with FakeExecutor(around, "e1").alive():
            scheduler = await around.scheduler()
            async with running(scheduler):
                runs = [await around.create(config(task("a")), f"/project/p{n % 7}/branch/main") for n in range(120)]
                await around.ended(*runs[:20])
            left = scheduler.positions()
        async with around.database.snapshot() as transaction:
            projected = {at: position.sequence for at, position in (await get_positions(transaction)).items()}
        assert set(left) == {0, 1}
        assert projected == left

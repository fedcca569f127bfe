"""A scheduler that stops brings to the log and to the database what it has begun."""

from __future__ import annotations

from runstream.database.runs import get_positions
from tests.domain.world import config, task
from tests.scheduler.standing import FakeExecutor, running, standing


async def test_what_was_taken_in_is_projected(
    nats_url: str, database_url: str, namespace: str, database_schema: str
) -> None:
    async with standing(nats_url, database_url, namespace, database_schema) as around:
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

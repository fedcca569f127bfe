"""A scheduler that loses Postgres gives up its partitions, and announces that the others may take them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import replace

import pytest

from runstream.database import Database
from runstream.projections import ownership
from runstream.projections.ownership import assign_partitions
from runstream.subjects import group_root, partition_of
from tests.domain.world import config, task
from tests.links import link
from tests.servers import Servers

from .standing import FakeExecutor, Members, running, standing

ONE = config(task("a"))


class Deployment:
    """The schedulers that say they work."""

    def __init__(self, *names: str) -> None:
        self.able = set(names)
        self.changed = asyncio.Condition()

    async def becomes(self, *names: str) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.able == set(names))


class Member(Members):
    """One of them."""

    def __init__(self, deployment: Deployment, own: str) -> None:
        super().__init__(own)
        self._deployment = deployment
        self._telling: set[asyncio.Task[None]] = set()

    async def members(self, part: str) -> AsyncIterator[Collection[str]]:
        while True:
            yield (seen := frozenset(self._deployment.able))
            async with self._deployment.changed:
                await self._deployment.changed.wait_for(lambda: self._deployment.able != seen)

    def can(self, part: str, able: bool) -> None:
        (self._deployment.able.add if able else self._deployment.able.discard)(self.id)
        self._telling.add(asyncio.create_task(self._tell()))

    async def _tell(self) -> None:
        async with self._deployment.changed:
            self._deployment.changed.notify_all()


async def test_the_partitions_of_a_scheduler_that_postgres_does_not_answer_go_on_at_another(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCK_SECONDS", "ANSWER_SECONDS", "PING_SECONDS", "STOP_SECONDS"):
        monkeypatch.setattr(ownership, name, getattr(ownership, name) / 10)
    deployment = Deployment("a", "b")
    async with standing(servers) as around, link(servers.database_url) as cable:
        partition = next(n for n, owner in assign_partitions(2, ("a", "b")).items() if owner == "a")
        groups = (f"/project/{n}/branch/main" for n in range(100))
        group = next(one for one in groups if partition_of(group_root(one), 2) == partition)
        away = Database(cable.url, servers.schema)
        cut_off = await replace(around, database=away).scheduler(Member(deployment, "a"))
        another = await around.scheduler(Member(deployment, "b"))
        async with running(another), running(cut_off), FakeExecutor(around, "e1").alive():
            before = await around.create(ONE, group)
            await around.ended(before)
            assert cut_off.positions().keys() == {partition}
            cable.cut()
            during = await around.create(ONE, group)
            await around.ended(during)
            await deployment.becomes("b")
            cable.mend()
            await deployment.becomes("a", "b")
            after = await around.create(ONE, group)
            await around.ended(after)
        await away.close()

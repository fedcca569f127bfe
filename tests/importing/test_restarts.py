"""An import preserves idempotency keys and runs that share objects, also with another number of partitions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from runstream.database.runs import get_run
from runstream.errors import ConflictError
from runstream.gateway.runs.create import PreparedRun, RunCreation
from runstream.gateway.runs.idempotency import IdempotencyKey
from runstream.log.port import Log
from runstream.sealing import Keyring
from tests.domain.world import config, task
from tests.gateway.test_restarting import ended
from tests.gateway.world import World
from tests.log.memory import MemoryLog
from tests.servers import Servers
from tests.snapshots.files import written

from .rig import rig

GROUPS = ("/project/web/branch/main", "/project/api/branch/main", "/user/ada/direct")


def creation(log: Log) -> RunCreation:
    return RunCreation(log, lambda: datetime.now(UTC))


def key(request: str = "digest") -> IdempotencyKey:
    return IdempotencyKey("nightly", request, b"", Keyring())


@pytest.mark.parametrize("partitions", [4, 3])
async def test_a_key_gives_the_run_of_the_epoch_before(partitions: int, servers: Servers, tmp_path: Path) -> None:
    source = MemoryLog()
    news = [PreparedRun(group, config(task("build")), {}, ()) for group in GROUPS]
    created = [await creation(source).create(new, key()) for new in news]
    await written(tmp_path / "snapshot", source)
    async with rig(servers, partitions) as around:
        await around.run_import(tmp_path / "snapshot")
        async with around.log() as log:
            again = [await creation(log).create(new, key()) for new in news]
            with pytest.raises(ConflictError, match="was used for another request"):
                await creation(log).create(news[0], key("other"))
    assert [one.run.id for one in again] == [one.run.id for one in created]
    assert all(one.repeated for one in again)


@pytest.mark.parametrize("partitions", [4, 3])
async def test_what_a_restart_keeps_is_still_that_of_the_earlier_run(
    partitions: int, servers: Servers, tmp_path: Path
) -> None:
    world = World.make()
    async with world.http() as http:
        earlier = await ended(world, http)
        new = (await http.post("/runs", json={"run_id": earlier})).json()["run"]
    await written(tmp_path / "snapshot", world.log)
    async with rig(servers, partitions) as around:
        await around.run_import(tmp_path / "snapshot")
        assert (await around.fsck()).differences == []
        async with around.database.snapshot() as transaction:
            record = await get_run(transaction, new["id"])
    (kept,) = [one for one in record.run.tasks.values() if one.kept]
    assert record.executor_tasks[kept.executor_task_id].run_id == earlier

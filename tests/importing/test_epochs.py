"""Going back to another epoch, and deleting one."""

from __future__ import annotations

from pathlib import Path

import pytest

from runstream.database.epochs import begin_epoch
from runstream.errors import BadRequestError, ConflictError, NotExistError
from runstream.importing.epochs import ServicePlace, activate, delete, epochs_in_nats
from runstream.log import streams
from runstream.projections.rebuild_schema import make_empty, schema_beside
from tests.projections.test_rebuild import schemas
from tests.servers import Servers
from tests.snapshots.files import generated, written

from .rig import Rig, compared, rig, silent
from .test_import import used


async def activated(around: Rig, epoch: int) -> int:
    return await activate(around.place, epoch, around.parked.hold, silent)


async def half_loaded(place: ServicePlace) -> int:
    """What an import leaves that was killed while it loaded."""
    epoch = await begin_epoch(place.database, place.service, 3, "half of a snapshot")
    await streams.create_streams(place.nats, place.subjects(epoch.number), 3, 1)
    await make_empty(place.database.url, schema_beside(place.database.schema))
    return epoch.number


async def test_back_and_forth(servers: Servers, tmp_path: Path) -> None:
    await written(tmp_path / "snapshot", generated(40))
    async with rig(servers) as around:
        await used(around)
        mine = await around.export(tmp_path / "mine")
        await around.run_import(tmp_path / "snapshot")
        for epoch, expected in ((1, mine), (2, tmp_path / "snapshot"), (1, mine)):
            assert await activated(around, epoch) == 0
            assert await around.differences() == []
            assert compared(expected, await around.export(tmp_path / "now")).differences == []
            assert [number for number, one in (await around.epochs()).items() if one.current] == [epoch]
        assert (await around.run_import(tmp_path / "snapshot")).here_epoch == 3


async def test_only_an_epoch_that_is_there_can_be_activated(servers: Servers) -> None:
    async with rig(servers) as around:
        with pytest.raises(BadRequestError):
            await activated(around, 1)
        half = await half_loaded(around.place)
        for epoch in (half, 7):
            with pytest.raises(NotExistError):
                await activated(around, epoch)
        assert await epochs_in_nats(around.place) == {1}


async def test_the_leftovers_of_a_killed_import_are_removed(servers: Servers, tmp_path: Path) -> None:
    await written(tmp_path / "snapshot", generated(10))
    async with rig(servers) as around:
        half = await half_loaded(around.place)
        assert schema_beside(servers.schema) in await schemas(around.database)
        assert await epochs_in_nats(around.place) == {1, half}
        done = await around.run_import(tmp_path / "snapshot")
        assert done.here_epoch == half + 1
        assert await epochs_in_nats(around.place) == {1, half + 1}
        assert (await around.fsck()).clean


async def test_an_epoch_is_deleted_for_ever(servers: Servers, tmp_path: Path) -> None:
    await written(tmp_path / "snapshot", generated(10))
    async with rig(servers) as around:
        await used(around)
        with pytest.raises(ConflictError):
            await delete(around.place, 1)
        await around.run_import(tmp_path / "snapshot")
        assert (await delete(around.place, 1)).number == 1
        assert await epochs_in_nats(around.place) == {2}
        for epoch in (1, 9):
            with pytest.raises(NotExistError):
                await delete(around.place, epoch)
        assert (await around.fsck()).clean
        assert (await around.run_import(tmp_path / "snapshot")).here_epoch == 3

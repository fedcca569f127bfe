"""A starting process uses the log, creates it, restores it, or refuses to start and says why."""

from __future__ import annotations

import asyncio

import pytest

from runstream.datamanager.errors import ContradictionError, DamagedArchiveError, NoDataStatusError
from runstream.errors import NotExistError
from runstream.jetstream.publisher import PublishOutcome, Unanswered
from runstream.log import streams
from runstream.log.jetstream import open_log
from runstream.log.loading import Load, StreamLoader
from runstream.log.streams import read_key, write_key
from runstream.subjects import Subjects
from tests.datamanager.conftest import OpenPlace
from tests.datamanager.place import Place, said
from tests.datamanager.rig import Killed, archived_of, paths
from tests.log.commits import after, created, run_address


async def test_a_new_deployment_begins_empty(new_place: OpenPlace) -> None:
    async with new_place() as place:
        first = await place.prepare()
        assert first.restored is None
        assert await place.prepare() == first
        assert first.deployment.encode() in (await read_key(place.nc, place.namespace, "deployment")).data
        assert [len(partition) for partition in await place.logged()] == [0, 0]
        await place.append(3)
        status = await place.ship()
        assert (status.deployment, status.position.sequences) == (first.deployment, (3, 0))
        assert await place.prepare() == first


async def test_a_lost_log_is_restored_and_goes_on(new_place: OpenPlace) -> None:
    async with new_place() as place:
        await place.prepare()
        await place.append(2500)
        await place.append(40, partition=1)
        async with await open_log(place.nc, place.namespace) as log:
            big = created(run_address(1), name="x" * 200_000)
            at = await log.append(big)
        before = said(await place.logged())
        status = await place.ship()
        await place.lose_nats()

        prepared = await place.prepare()
        assert prepared.deployment == status.deployment
        assert prepared.restored is not None
        assert (prepared.restored.commits, prepared.restored.until) == (2541, status.until)
        assert prepared.restored.lost == {}
        assert said(await place.logged()) == before
        assert (await place.prepare()).restored is None
        async with await open_log(place.nc, place.namespace) as log:
            assert await log.append(big) == at
            assert (await log.append(after(big, at.sequence))).sequence == at.sequence + 1
        await place.append(10)
        status = await place.ship()
        assert status.position.sequences == (2510, 42)
        assert said(await archived_of(place.archive)) == [
            [(*each[:2], data, headers) for each, (_, _, data, headers) in zip(partition, read, strict=True)]
            for partition, read in zip(said(await place.logged()), said(await archived_of(place.archive)), strict=True)
        ]


async def test_only_what_is_missing_is_restored(new_place: OpenPlace) -> None:
    async with new_place() as place:
        await place.prepare()
        await place.append(5)
        await place.append(5, partition=1)
        await place.ship()
        await place.append(3)
        before = said(await place.logged())
        await streams.delete_stream(place.nc, place.subjects, 1)
        prepared = await place.prepare()
        assert prepared.restored is not None
        assert prepared.restored.commits == 5
        assert said(await place.logged()) == before


@pytest.mark.parametrize("batches", [0, 1, 3])
async def test_an_interrupted_restore_is_begun_again(
    new_place: OpenPlace, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    async with new_place() as place:
        await place.prepare()
        await place.append(2500)
        await place.append(1100, partition=1)
        before = said(await place.logged())
        await place.ship()
        await place.lose_nats()
        await place.project(0, 2510)
        with monkeypatch.context() as patched:
            _break_after(patched, batches)
            for _ in range(2):
                with pytest.raises(BaseExceptionGroup):
                    await place.prepare()
                with pytest.raises(NotExistError, match="there is no log"):
                    await open_log(place.nc, place.namespace)
        prepared = await place.prepare()
        assert prepared.restored is not None
        assert prepared.restored.commits == 3600
        assert prepared.restored.lost == {0: (2501, 2510)}
        assert said(await place.logged()) == before


def _break_after(patched: pytest.MonkeyPatch, batches: int) -> None:
    """Simulate the end of the process after some batches are loaded."""
    sent = StreamLoader.send
    left = [batches]

    async def broken(self: StreamLoader, messages: list[Load]) -> PublishOutcome:
        if not left[0]:
            left[0] = batches
            await sent(self, messages)
            raise Killed
        left[0] -= 1
        return await sent(self, messages)

    patched.setattr(StreamLoader, "send", broken)


async def test_what_cannot_be_loaded_is_an_error_and_tried_again(
    new_place: OpenPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_place() as place:
        await place.prepare()
        await place.append(5)
        await place.ship()
        await place.lose_nats()

        async def unanswered(self: StreamLoader, messages: list[Load]) -> PublishOutcome:
            return Unanswered("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(StreamLoader, "send", unanswered)
            with pytest.raises(Exception, match="the disk is full"):
                await place.prepare()
        assert (await place.prepare()).restored is not None


async def test_several_that_start_at_once_restore_once(new_place: OpenPlace) -> None:
    async with new_place() as place:
        await place.prepare()
        await place.append(300)
        await place.ship()
        await place.lose_nats()
        prepared = await asyncio.gather(*(place.prepare() for _ in range(4)))
        assert sum(each.restored is not None for each in prepared) == 1
        assert len({each.deployment for each in prepared}) == 1


async def test_commits_that_only_the_projection_has_seen_are_named(new_place: OpenPlace) -> None:
    async with new_place() as place:
        await place.prepare()
        await place.append(10)
        await place.append(10, partition=1)
        await place.ship()
        await place.append(7)
        await place.project(0, 15)
        await place.project(1, 9)
        await place.lose_nats()
        prepared = await place.prepare()
        assert prepared.restored is not None
        assert prepared.restored.lost == {0: (11, 15)}
        assert [len(partition) for partition in await place.logged()] == [10, 10]
        assert (await place.rows("checkpoints"), await place.rows("counters")) == (0, 0)


async def test_a_projection_that_is_behind_stays(new_place: OpenPlace) -> None:
    async with new_place() as place:
        await place.prepare()
        await place.append(10)
        await place.ship()
        await place.project(0, 10)
        await place.lose_nats()
        prepared = await place.prepare()
        assert prepared.restored is not None
        assert prepared.restored.lost == {}
        assert (await place.rows("checkpoints"), await place.rows("counters")) == (1, 1)


async def test_all_but_the_archive_is_lost(new_place: OpenPlace) -> None:
    async with new_place() as place:
        await place.prepare()
        await place.append(10)
        status = await place.ship()
        await place.lose_nats()
        await place.execute("TRUNCATE deployment, epochs, archives, checkpoints")
        prepared = await place.prepare()
        assert prepared.deployment == status.deployment
        assert [len(partition) for partition in await place.logged()] == [10, 0]
        assert (await place.ship()).generation > status.generation


async def test_no_data_status_and_no_log(new_place: OpenPlace) -> None:
    async with new_place() as place:
        await place.prepare()
        await place.append(10)
        status = await place.ship()
        await place.lose_nats()
        for name in await paths(place.storage):
            if "status-" in name:
                await place.storage.delete(name)
        for knows in (True, False):
            with pytest.raises(NoDataStatusError) as raised:
                await place.prepare()
            assert raised.value.code == "noDataStatus"
            assert ("the database knows" in raised.value.message) is knows
            assert "drop schema" in raised.value.hint
            assert await streams.described(place.nc, place.namespace, "runs") is None
            await place.execute("TRUNCATE epochs, checkpoints")
        for name in await paths(place.storage):
            await place.storage.delete(name)
        prepared = await place.prepare()
        assert (prepared.restored, prepared.deployment) == (None, status.deployment)
        assert [len(partition) for partition in await place.logged()] == [0, 0]


async def test_a_log_without_data_status_is_archived_anew(new_place: OpenPlace) -> None:
    async with new_place() as place:
        await place.prepare()
        await place.append(10)
        await place.ship()
        for name in await paths(place.storage):
            await place.storage.delete(name)
        assert (await place.ship()).commits == 10


async def refused(place: Place, code: str) -> ContradictionError:
    before = await streams.ends(place.nc, place.subjects, 2), await paths(place.storage)
    with pytest.raises(ContradictionError) as raised:
        await place.prepare()
    assert raised.value.code == code
    assert raised.value.hint
    assert (await streams.ends(place.nc, place.subjects, 2), await paths(place.storage)) == before
    return raised.value


async def test_a_log_that_went_back_in_time_is_refused(new_place: OpenPlace) -> None:
    async with new_place() as place:
        deployment = (await place.prepare()).deployment
        await place.append(10)
        await place.ship()
        await place.lose_nats()
        await streams.create(place.nc, place.subjects, 2, 1)
        await write_key(place.nc, place.namespace, "deployment", b'{"id":"%b"}' % deployment.encode())
        await place.append(9)
        assert "ends at 9, but is archived up to 10" in (await refused(place, "logWentBack")).message
        await place.append(1)
        assert "commit 10 of partition 0" in (await refused(place, "logDiffers")).message
        # The way out that restores:
        for partition in range(2):
            await streams.delete_stream(place.nc, place.subjects, partition)
        assert (await place.prepare()).restored is not None


async def test_a_log_that_is_behind_the_projection_is_refused(new_place: OpenPlace) -> None:
    async with new_place() as place:
        await place.prepare()
        await place.append(10)
        await place.project(0, 11)
        error = await refused(place, "logWentBack")
        assert "ends at 10, the database has seen 11" in error.message
        assert error.details == {"partition": 0, "log": 10, "database": 11}


async def test_another_deployments_parts_are_refused(new_place: OpenPlace) -> None:
    async with new_place() as place:
        ours = (await place.prepare()).deployment
        await place.append(10)
        await place.ship()
        await place.execute("UPDATE deployment SET id = 'theirs'")
        error = await refused(place, "otherDeployment")
        assert error.details == {"NATS": ours, "the database": "theirs", "the archive": ours}
        await place.lose_nats()
        error = await refused(place, "otherDeployment")
        assert error.details == {"the database": "theirs", "the archive": ours}


async def test_another_epoch_is_refused_unless_the_database_decides(new_place: OpenPlace) -> None:
    async with new_place() as place:
        await place.prepare()
        await place.append(10)
        await place.ship()
        second = Subjects(place.namespace, "runs", 2)
        await place.execute("UPDATE epochs SET epoch = 2")
        assert "epoch 2, which is neither" in (await refused(place, "otherEpoch")).message
        await streams.create_streams(place.nc, second, 2, 1)
        prepared = await place.prepare()
        assert prepared.restored is None
        found = await streams.described(place.nc, place.namespace, "runs")
        assert found is not None
        assert found.epoch == 2
        # What the database has decided is forgotten, and NATS is older than the archive.
        await place.ship()
        await place.execute("TRUNCATE epochs")
        await streams.describe(place.nc, place.subjects, 2, instead=found)
        assert "serves epoch 1, the archive was last of epoch 2" in (await refused(place, "otherEpoch")).message


async def test_a_damaged_archive_is_not_restored(new_place: OpenPlace) -> None:
    async with new_place() as place:
        await place.prepare()
        await place.append(10)
        await place.append(10, partition=1)
        await place.ship()
        await place.lose_nats()
        (segment,) = await paths(place.storage, f"{place.archive.paths.folder}001/")
        whole = await place.archive.content(segment, 1 << 20)
        await place.storage.write_all({segment: whole[:-1]})
        with pytest.raises(DamagedArchiveError) as raised:
            await place.prepare()
        assert raised.value.details == {"path": segment}
        assert await streams.ends(place.nc, place.subjects, 2) == (None, None)
        await place.storage.write_all({segment: whole})
        assert (await place.prepare()).restored is not None

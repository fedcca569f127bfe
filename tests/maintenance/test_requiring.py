"""An import requires every process to be parked, and none resumes before it ends."""

from __future__ import annotations

import asyncio

import pytest

from runstream.errors import BadRequestError, ConflictError, InternalError
from runstream.ids import new_id
from runstream.leases import LeaseLostError
from runstream.maintenance.lock import maintenance_lock, require_parked
from runstream.maintenance.request import lock_key

from .world import World, order, world


async def parked(around: World) -> None:
    await around.control.enable("runs", order())
    await around.all_are("parked")


async def test_it_takes_maintenance_in_which_all_are_parked(nats_url: str, namespace: str) -> None:
    async with world(nats_url, namespace) as around:
        await around.member("gateway")
        with pytest.raises(BadRequestError, match="not in maintenance mode"):
            await require_parked(around.control, around.board)
        await parked(around)
        requested = await require_parked(around.control, around.board)
        assert requested.by == "ada@host"
        await around.control.disable("runs", order())
        with pytest.raises(BadRequestError, match="not in maintenance mode"):
            await require_parked(around.control, around.board)


async def test_each_that_is_not_parked_is_named(nats_url: str, namespace: str) -> None:
    async with world(nats_url, namespace) as around:
        dies = await around.member("executor")
        await dies.die()
        await around.until(lambda known: any(one.lost for one in known))
        await around.member("scheduler")
        await around.control.enable("runs", order())
        await around.until(lambda known: {one.state("runs") for one in known} == {"parked", "lost"})
        foreign = around.board.lease(new_id(), lambda: b"of another version")
        holding = asyncio.create_task(foreign.run())
        await foreign.held.wait()
        with pytest.raises(ConflictError) as refused:
            await require_parked(around.control, around.board)
        assert refused.value.code == "notParked"
        assert set(refused.value.details["instances"]) == {dies.instance.id, foreign.key}
        assert f"executor {dies.instance.id} (process" in str(refused.value)
        assert f"forget {dies.instance.id}" in refused.value.hint
        holding.cancel()
        await asyncio.wait({holding})
        await require_parked(around.control, around.board, without_lost=True)


async def test_a_parked_process_that_dies_does_not_block_an_import(nats_url: str, namespace: str) -> None:
    async with world(nats_url, namespace) as around:
        member = await around.member("executor")
        await parked(around)
        await around.until(lambda known: _is_kept(around))
        await member.die()
        await around.until(lambda known: any(one.lost for one in known))
        await require_parked(around.control, around.board)
        await around.control.disable("runs", order())
        await around.control.enable("runs", order())
        with pytest.raises(ConflictError, match="is lost"):
            await require_parked(around.control, around.board)


def _is_kept(around: World) -> bool:
    """Return True if the record that outlives the lease says parked."""
    records = around.roster.last_records.values()
    return bool(records) and all(record.services["runs"].state == "parked" for record in records)


async def test_maintenance_cannot_end_while_it_is_occupied(nats_url: str, namespace: str) -> None:
    async with world(nats_url, namespace) as around:
        await around.member("gateway")
        await parked(around)
        async with maintenance_lock(around.nc, around.control, around.board, "an import") as lock:
            await lock.require()
            with pytest.raises(ConflictError, match="an import needs it"):
                await around.control.disable("runs", order())
            with pytest.raises(ConflictError, match="an import is already in progress"):
                async with maintenance_lock(around.nc, around.control, around.board, "another import"):
                    raise AssertionError
            await lock.require()
        await around.control.disable("runs", order())
        with pytest.raises(ConflictError, match="has ended"):
            await lock.require()


async def test_a_killed_command_does_not_keep_maintenance_occupied(nats_url: str, namespace: str) -> None:
    async with world(nats_url, namespace) as around:
        await around.member("gateway")
        await parked(around)
        with pytest.raises(LeaseLostError):
            await _cut_off(around)
        async with maintenance_lock(around.nc, around.control, around.board, "the next import"):
            pass
        await around.control.disable("runs", order())


async def _cut_off(around: World) -> None:
    async with maintenance_lock(around.nc, around.control, around.board, "an import"):
        await around.board.forget(lock_key("runs"))
        await asyncio.Event().wait()


async def test_its_own_error_is_reported(nats_url: str, namespace: str) -> None:
    async with world(nats_url, namespace) as around:
        await around.member("gateway")
        await parked(around)
        with pytest.raises(InternalError, match="the disk is full"):
            async with maintenance_lock(around.nc, around.control, around.board, "an import"):
                raise InternalError("the disk is full")


async def test_disabling_and_occupying_at_once_never_both_succeed(nats_url: str, namespace: str) -> None:
    async with world(nats_url, namespace) as around:
        await around.member("gateway")
        for _ in range(20):
            await parked(around)
            go_on = asyncio.Event()

            async def occupy(go_on: asyncio.Event) -> bool:
                try:
                    async with maintenance_lock(around.nc, around.control, around.board, "an import") as lock:
                        await go_on.wait()
                        await lock.require()
                        return True
                except (BadRequestError, ConflictError):
                    return False

            async def disable() -> bool:
                try:
                    await around.control.disable("runs", order())
                except ConflictError:
                    return False
                return True

            occupying = asyncio.create_task(occupy(go_on))
            disabled = await disable()
            go_on.set()
            assert (await occupying) != disabled
            if not disabled:
                await around.control.disable("runs", order())
            await around.all_are("running")


async def test_one_of_many_concurrent_enables_succeeds(nats_url: str, namespace: str) -> None:
    async with world(nats_url, namespace) as around:
        answers = await asyncio.gather(
            *(around.control.enable("runs", order(str(number))) for number in range(5)), return_exceptions=True
        )
        refused = [answer for answer in answers if isinstance(answer, BadRequestError)]
        assert len(refused) == 4
        requested = await around.control.requested("runs")
        assert requested in answers

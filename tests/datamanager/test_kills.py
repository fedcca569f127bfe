"""The process that archives is killed by -9 at random moments, and the one that restores; NATS loses everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import pytest

from runstream.database.connection import hang_up
from runstream.datamanager.fence import PostgresFence
from runstream.errors import NotExistError
from runstream.log.jetstream import open_log
from tests.chaos.kills import Chaos, Victim, kills, say
from tests.datamanager.child import tighten
from tests.datamanager.conftest import OpenPlace
from tests.datamanager.place import PARTITIONS, Place, said
from tests.datamanager.rig import archived_of, paths, shipping
from tests.datamanager.test_shipping import named_by

SHIPPING = 6
RESTORING = 6
CHANGES = ("write", "delete", "read", "__bind_execute INSERT INTO archives", "__bind_execute SELECT archives")
"""The requests at which it matters whether an archive was changed."""
T = TypeVar("T")
TOLD = """
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_notify(TG_TABLE_SCHEMA, ''); RETURN NULL; END $$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE ON archives FOR EACH ROW EXECUTE FUNCTION tell();
"""
"""The database tells who takes the archive over: to ask the storage again and again takes its time from the others."""
COMMITS = 60
"""Number of commits that an undisturbed process archives."""
PIECES, PIECE = 14, 13
"""So many segments of so many commits there are in each partition at the beginning: how many are made later, and how
large they are, depends on how fast the machine is. Of these, three become one, and then some a list.
"""


@dataclass
class Archiving:
    """An archive that one process after the other works on."""

    place: Place
    chaos: Chaos
    words: tuple[str, ...]
    """A process's arguments, except the number of commits."""
    taken: asyncio.Event
    """Set when a process takes the archive over."""
    reached: int = 0

    async def victim(self, commits: int) -> Victim:
        """Return a process that ends once `commits` more are archived."""
        found = await self.place.archive.find_status()
        until = (found.commits if found is not None else 0) + commits
        return Victim(self.chaos, (*self.words, str(until)), module="tests.datamanager.child")

    async def dies(self, dying: Coroutine[object, object, T]) -> T:
        """Let a victim live and die, and append: some before it begins, and then little by little until it is dead."""
        chance = self.chaos.random
        self.taken.clear()
        task = asyncio.create_task(dying)
        await self.place.append(chance.randint(0, COMMITS // 3), partition=chance.randint(0, 1))
        taken = asyncio.create_task(self.taken.wait())
        await asyncio.wait({task, taken}, return_when=asyncio.FIRST_COMPLETED)
        taken.cancel()
        for _ in range(COMMITS):
            if task.done():
                break
            await self.place.append(chance.randint(1, 4), partition=chance.randint(0, 1))
        return await task

    async def begin(self) -> None:
        """Archive what there is to be merged and listed by those that are killed."""
        for _ in range(PIECES):
            for partition in range(PARTITIONS):
                await self.place.append(PIECE, partition)
            await self.place.ship()

    async def is_whole(self) -> None:
        """Check that the archive has lost nothing and is a prefix of the log."""
        status = await self.place.archive.find_status()
        if status is None:
            assert self.reached == 0
            return
        assert status.commits >= self.reached
        self.reached = status.commits
        archived, logged = said(await archived_of(self.place.archive)), without_ids(said(await self.place.logged()))
        assert archived == [log[: len(begin)] for begin, log in zip(archived, logged, strict=True)]

    async def is_tidy(self) -> None:
        """Check that an undisturbed process merges and lists what the killed ones left."""
        place = self.place
        deployment = (await place.prepare()).deployment
        async with await open_log(place.nc, place.namespace) as log:
            fence = PostgresFence(place.database, "runs", log.epoch)
            async with shipping(log, place.storage, fence, deployment) as shipper:
                for _ in range(3):  # What is merged after one holds with the next.
                    await place.append(2)
                    end = await log.end(0)
                    while shipper.positions()[0] < end:
                        await place.nc.flush()
        await self.is_whole()

    async def is_complete(self) -> None:
        """Check that an undisturbed process archives everything, and that the next one removes the leftovers."""
        missing = sum(map(len, await self.place.logged())) - self.reached
        for commits in (missing, 0):
            await (await self.victim(commits)).measure()
            await self.is_whole()
        assert said(await archived_of(self.place.archive)) == without_ids(said(await self.place.logged()))


@asynccontextmanager
async def takeovers(place: Place) -> AsyncIterator[asyncio.Event]:
    """Return an event that is set when a process takes over the archive."""
    taken = asyncio.Event()
    connection = await place.database.connect(watchful=True)
    try:
        await connection.execute(TOLD)
        await connection.add_listener(place.database.schema, lambda *_: taken.set())
        yield taken
    finally:
        await hang_up(connection)


@pytest.mark.chaos
@pytest.mark.seconds(120 + 15 * kills(SHIPPING))
async def test_killed_while_it_ships_and_merges(
    new_place: OpenPlace,
    nats_url: str,
    database_url: str,
    database_schema: str,
    namespace: str,
    storage_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = (nats_url, database_url, database_schema, namespace, storage_name)
    chaos = Chaos(7, SHIPPING)
    tighten(monkeypatch.setattr)
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(new_place())
        await place.prepare()
        archiving = Archiving(place, chaos, words, await stack.enter_async_context(takeovers(place)))
        await archiving.begin()
        measured = await archiving.victim(COMMITS)
        await archiving.dies(measured.measure())
        restored = 0
        for number in chaos:
            victim = replace(measured, words=(await archiving.victim(COMMITS)).words, among=CHANGES)
            say(await archiving.dies(victim.killed()))
            await archiving.is_whole()
            if number % 6 == 5:
                await place.lose_nats()
                assert (await place.prepare()).restored is not None
                restored += 1
        await archiving.is_tidy()
        await archiving.is_complete()
        status = await place.archive.status()
        segments = await place.archive.segments(status, 0)
        merged = PIECES - sum(each.last <= PIECES * PIECE for each in segments)
        lists = [path for path in await paths(place.storage) if "index-" in path]
        assert merged > 0
        assert lists
        assert set(await paths(place.storage, place.archive.paths.folder)) == await named_by(place.archive)
        told = f"{archiving.reached} commits, generation {status.generation}, {merged} merged, {len(lists)} lists"
        say(f"{told}, {restored} restored logs")


@pytest.mark.chaos
@pytest.mark.seconds(60 + 10 * kills(RESTORING))
async def test_killed_while_it_restores(
    new_place: OpenPlace, nats_url: str, database_url: str, database_schema: str, namespace: str, storage_name: str
) -> None:
    words = (nats_url, database_url, database_schema, namespace, storage_name, "0")
    chaos = Chaos(9, RESTORING)
    async with new_place() as place:
        await place.prepare()
        await place.append(2200)
        await place.append(1400, partition=1)
        before = said(await place.logged())
        await place.ship()
        await place.lose_nats()
        victim = Victim(chaos, words, module="tests.datamanager.child", among=("publish", "read"))
        await victim.measure()
        whole = 0
        for _ in chaos:
            await place.lose_nats()
            say(await victim.killed())
            there = await is_described(place)
            whole += there
            if there:
                assert said(await place.logged()) == before
            assert ((await place.prepare()).restored is None) is there
            assert said(await place.logged()) == before
        say(f"{whole} of {chaos.kills} had restored all of it")


async def is_described(place: Place) -> bool:
    """Return True if a log is described, and so must be complete."""
    try:
        async with await open_log(place.nc, place.namespace):
            return True
    except NotExistError:
        return False


def without_ids(messages: list[list[tuple[object, ...]]]) -> list[list[tuple[object, ...]]]:
    """Return messages without NATS headers, as the archive has them: the id is in the body."""
    return [[(*message[:3], [h for h in message[3] if h[0] != "Nats-Msg-Id"]) for message in p] for p in messages]  # type: ignore[attr-defined]

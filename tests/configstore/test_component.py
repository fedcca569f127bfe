"""The rows of the config service are its fold, whatever happens; one process writes them, another stands by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from runstream import tables
from runstream.commits import Head, Position
from runstream.config.store import ConfigFollower, ConfigStore
from runstream.config_folding import ConfigFold
from runstream.configstore.checking import fsck_config
from runstream.configstore.component import ConfigStoreComponent
from runstream.configstore.projection import ConfigFencedError, ConfigProjection
from runstream.configstore.rows import config_rows
from runstream.database.database import Database
from runstream.database.transaction import Transaction
from runstream.errors import RunstreamError
from runstream.events.skip import CommitSkipped
from runstream.ids import new_id
from runstream.jetstream.messaging import Questions
from runstream.log.jetstream import open_log
from runstream.log.port import Log
from runstream.projections.fsck import FsckFindings
from runstream.projections.parked import list_parked, skip_commit
from runstream.service.stalls import Consumed
from runstream.skips import hash_of
from runstream.subjects import Address, skip_address
from tests.domain.config.commands import decide
from tests.domain.config.test_properties import BEGIN, COMMANDS
from tests.log.memory import MemoryLog
from tests.log.servers import connected
from tests.projections.playing import migrated
from tests.servers import Servers


@dataclass
class Peers:
    """Instances that all work."""

    id: str
    ids: Sequence[str]

    async def members(self, part: str, service: str) -> AsyncIterator[Collection[str]]:
        assert (part, service) == ("configstore", "config")
        yield frozenset(self.ids)
        await asyncio.Event().wait()


def component(log: Log, database: Database, key: str, *others: str) -> ConfigStoreComponent:
    return ConfigStoreComponent(log, database, Peers(key, [key, *others]))


def memory() -> MemoryLog:
    return MemoryLog(service="config", partitions=1)


async def perform(store: ConfigStore, *commands: tuple[object, ...]) -> None:
    for command in commands:
        await store.change(lambda state, one=command: decide(state, new_id, *one), actor="test")  # type: ignore[misc]


async def differences(database: Database, log: Log) -> list[str]:
    report = FsckFindings()
    await fsck_config(database, log, report)
    return [str(one) for one in report.differences]


async def written(database: Database, sequence: int) -> None:
    """Wait until the rows include a sequence."""
    while True:
        async with database.snapshot() as transaction:
            row = await transaction.first(
                select(tables.checkpoints.c.sequence).where(tables.checkpoints.c.projection == "config")
            )
        if row is not None and row["sequence"] >= sequence:
            return
        await asyncio.sleep(0.01)  # sleeps: polls the rows, which nobody announces


async def test_rows_follow_the_log(database_url: str, database_schema: str) -> None:
    log, store = memory(), None
    async with migrated(database_url, database_schema) as database:
        store = ConfigStore(log)
        async with ConfigFollower(store).serving():
            await perform(store, *BEGIN)
            async with component(log, database, "a").serving():
                await written(database, store.position.sequence)
                assert await differences(database, log) == []
                await perform(store, ("delete_org", "a"), ("rename_user", "a", "c"), ("create_user", "a"))
                await written(database, store.position.sequence)
                assert await differences(database, log) == []
                async with database.snapshot() as transaction:
                    rows = await transaction.rows(select(tables.config.c.name).where(tables.config.c.kind == "user"))
                assert sorted(row["name"] for row in rows) == ["a", "b", "c"]


async def test_another_process_takes_over(database_url: str, database_schema: str) -> None:
    log = memory()
    async with migrated(database_url, database_schema) as database:
        store = ConfigStore(log)
        async with ConfigFollower(store).serving(), component(log, database, "a", "b").serving() as _:
            other = component(log, database, "b", "a")
            await other.start()
            try:
                await perform(store, *BEGIN)
                await written(database, store.position.sequence)
            finally:
                await other.stop()
        async with ConfigFollower(store).serving(), component(log, database, "b").serving():
            await perform(store, ("create_user", "c"))
            await written(database, store.position.sequence)
            assert await differences(database, log) == []


async def test_an_unreadable_commit_is_parked_until_it_is_skipped(database_url: str, database_schema: str) -> None:
    log = memory()
    async with migrated(database_url, database_schema) as database:
        store = ConfigStore(log)
        async with ConfigFollower(store).serving(), component(log, database, "a").serving():
            await perform(store, *BEGIN)
            key = store.state.named("user", "", "b") or ""
            await perform(store, ("withdraw", "a", "b"))
            position = log.put(0, log.subjects.of(Address(0, "user", key)), b'{"what": "\\u0000"}')
            await written(database, position.sequence)
            assert await differences(database, log) == []
            async with database.snapshot() as transaction:
                parked = await transaction.rows(select(tables.parked.c.aggregate))
            assert [row["aggregate"] for row in parked] == [f"user/{key}"]
            message = log.streams[0].messages[position.sequence - 1]
            skip = CommitSkipped(hash_of(message), 1, 2, str(position), "test")
            address = skip_address(0, message.subject)
            await log.append(Head().next_commit(address, [skip], time=datetime.now(UTC), actor="test"))
            await store.reached(store.position)
            await written(database, position.sequence + 1)
            assert await differences(database, log) == []
            async with database.snapshot() as transaction:
                assert not await transaction.rows(select(tables.parked.c.aggregate))


async def test_rows_that_were_changed_are_found_and_made_right_by_the_next_session(
    database_url: str, database_schema: str
) -> None:
    log = memory()
    async with migrated(database_url, database_schema) as database:
        store = ConfigStore(log)
        async with ConfigFollower(store).serving():
            await perform(store, *BEGIN)
        async with component(log, database, "a").serving():
            await written(database, store.position.sequence)

        async def spoil(transaction: Transaction) -> None:
            await transaction.execute(text("UPDATE config SET name = 'other' WHERE kind = 'user' AND name = 'a'"))
            await transaction.execute(text("DELETE FROM config WHERE kind = 'secret'"))

        await database.transaction(spoil)
        assert len(await differences(database, log)) == 2
        async with component(log, database, "a").serving():
            while await differences(database, log):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # sleeps: polls the rows, whose checkpoint does not move


async def test_a_writer_whose_checkpoint_moved_is_refused(database_url: str, database_schema: str) -> None:
    async with migrated(database_url, database_schema) as database:
        projection, fold = ConfigProjection(database), ConfigFold()
        await projection.begin(fold, 1)
        fold.after = 5
        await projection.apply(fold, 1, 0, (), ())
        with pytest.raises(ConfigFencedError):
            await projection.apply(fold, 1, 0, (), ())
        await projection.begin(fold, 2)
        await projection.apply(fold, 2, 5, (), ())


@given(st.lists(COMMANDS, max_size=25))
@settings(deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
def test_equal_histories_give_equal_rows(commands: list[tuple[object, ...]]) -> None:
    async def played() -> MemoryLog:
        log = memory()
        store = ConfigStore(log, lambda: datetime(2026, 1, 1, tzinfo=UTC))
        async with ConfigFollower(store).serving():
            for command in (*BEGIN, *commands):
                try:
                    await perform(store, command)
                except RunstreamError:
                    continue
            live = ConfigFold()
            for message in log.streams[0].messages:
                live.take(message)
            assert live.state.users == store.state.users
            assert len(config_rows(live)) == len([*store.state.everything()])
        return log

    log = asyncio.run(played())
    folds = [ConfigFold(), ConfigFold()]
    for fold in folds:
        for message in log.streams[0].messages:
            fold.take(message)
    assert config_rows(folds[0]) == config_rows(folds[1])
    assert not folds[0].parked


async def test_a_parked_commit_is_listed_reported_and_skipped(servers: Servers) -> None:
    later = datetime.now(UTC) + timedelta(seconds=60)
    async with migrated(servers.database_url, servers.schema) as database, connected(servers.nats_url) as nc:
        questions = Questions(nc)
        async with await open_log(nc, servers.namespace, "config", create=True, partitions=1) as log:
            store, consumed = ConfigStore(log), Consumed(log, database, questions)
            async with ConfigFollower(store).serving():
                await perform(store, *BEGIN)
                (stall,) = await consumed.stalls(later)
                assert (stall.service, stall.where) == ("config", "config")
                assert (stall.kind, stall.position, stall.why) == ("behind", "1/0/1", "no configstore has it")
                assert "--components configstore" in stall.todo

                key = store.state.named("user", "", "b") or ""
                await nc.jetstream().publish(log.subjects.of(Address(0, "user", key)), b"moo")
                end = await log.end(0)
                async with ConfigStoreComponent(log, database, Peers("a", ["a"]), questions).serving():
                    await written(database, end)
                    (stall,) = await consumed.stalls(later)
                    assert (stall.kind, stall.position, stall.commits) == ("parked", f"1/0/{end}", 1)
                    assert f"runstream parked skip 1/0/{end} --service config" in stall.todo
                    async with database.snapshot() as transaction:
                        (parked,) = await list_parked(transaction, projection="config")
                        assert await list_parked(transaction) == ()
                    assert (parked.aggregate, parked.position) == (f"user/{key}", Position(1, 0, end))

                    decided = await skip_commit(
                        log, database, parked.position, actor="test", reason="of no use", at=datetime.now(UTC)
                    )
                    await written(database, decided.sequence)
                    assert await consumed.stalls(later) == []
                    assert await differences(database, log) == []
                    await store.reached(decided)
                    assert store.parked == []
                    await perform(store, ("rename_user", "b", "d"))
                    assert store.state.users[key].name == "d"


async def test_what_keeps_the_rows_from_the_log_is_told(servers: Servers) -> None:
    later = datetime.now(UTC) + timedelta(seconds=60)
    async with migrated(servers.database_url, servers.schema) as database, connected(servers.nats_url) as nc:
        questions = Questions(nc)
        async with await open_log(nc, servers.namespace, "config", create=True, partitions=1) as log:
            async with ConfigFollower(store := ConfigStore(log)).serving():
                await perform(store, *BEGIN)

            async def break_table(transaction: Transaction) -> None:
                await transaction.execute(text("ALTER TABLE config RENAME TO gone"))

            await database.transaction(break_table)
            async with ConfigStoreComponent(log, database, Peers("a", ["a"]), questions).serving():
                consumed = Consumed(log, database, questions)
                while "config" not in (await consumed.stalls(later))[0].why:  # each look asks it anew
                    continue

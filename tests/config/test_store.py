"""The config store: each change is decided on the newest state, whatever other stores do at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from runstream.commits import Head, Position
from runstream.config.store import ConfigFollower, ConfigStore
from runstream.domain.config.decisions.organizations import decide_create_organization, decide_delete_organization
from runstream.domain.config.decisions.users import decide_create_user, decide_delete_user, decide_rename_user
from runstream.domain.config.references import find_user
from runstream.domain.config.state import ConfigState, Decision
from runstream.errors import BadRequestError, InternalError
from runstream.events.skip import CommitSkipped
from runstream.ids import new_id
from runstream.log.jetstream import open_log
from runstream.log.port import MAX_BATCH_COMMITS, Log
from runstream.skips import hash_of
from runstream.subjects import Address, skip_address
from tests.config.making import new_group, new_project
from tests.log.memory import MemoryLog
from tests.log.servers import connected


@asynccontextmanager
async def store_on(log: Log) -> AsyncIterator[ConfigStore]:
    store = ConfigStore(log)
    async with ConfigFollower(store).serving():
        yield store


def memory() -> MemoryLog:
    return MemoryLog(service="config", partitions=1)


async def user(store: ConfigStore, name: str) -> str:
    key, root = new_id(), new_id()
    await store.change(
        lambda state: decide_create_user(state, user_id=key, root_group_id=root, name=name), actor="admin"
    )
    return key


async def test_a_change_is_in_the_state_at_once_and_one_batch() -> None:
    log = memory()
    async with store_on(log) as store:
        key, root = new_id(), new_id()
        changed = await store.change(
            lambda state: decide_create_user(state, user_id=key, root_group_id=root, name="ada"), actor="admin"
        )
        assert store.state.users[key].name == "ada"
        assert [one.address.aggregate for one in changed.commits] == [f"user/{key}", f"projectgroup/{root}"]
        assert changed.position == store.position == Position(1, 0, 2)
        assert {one.actor for one in changed.commits} == {"admin"}


async def test_nothing_to_change_appends_nothing() -> None:
    async with store_on(memory()) as store:
        changed = await store.change(lambda _: [], actor="admin")
        assert (changed.commits, changed.position) == ((), None)


async def test_a_store_reads_what_others_wrote_before_it_and_after() -> None:
    log = memory()
    async with store_on(log) as first:
        ada = await user(first, "ada")
        async with store_on(log) as second:
            assert second.state.users.keys() == {ada}
            bob = await user(first, "bob")
            await second.reached(first.position)
            assert second.state.users.keys() == {ada, bob}


async def test_of_two_stores_that_create_the_same_name_one_is_refused() -> None:
    log = memory()
    async with store_on(log) as one, store_on(log) as other:
        answers = await asyncio.gather(user(one, "ada"), user(other, "ada"), return_exceptions=True)
        (refused,) = [answer for answer in answers if isinstance(answer, BaseException)]
        assert isinstance(refused, BadRequestError)
        assert refused.code == "userAlreadyExists"


async def test_many_changes_of_several_stores_are_all_decided() -> None:
    log = memory()
    async with store_on(log) as one, store_on(log) as other:
        await asyncio.gather(*(user(store, f"u{n}-{k}") for n in range(20) for k, store in enumerate((one, other))))
        await one.reached(other.position)
        assert len(one.state.users) == 40


async def test_a_large_deletion_takes_several_batches_and_leaves_nothing() -> None:
    log = memory()
    async with store_on(log) as store:
        key, root = new_id(), new_id()

        def org(state: ConfigState) -> Decision:
            return decide_create_organization(
                state, organization_id=key, root_group_id=root, name="acme", visibility="public", creator=None
            )

        await store.change(org, actor="admin")
        await store.change(lambda _: [new_project(root, f"p{n}") for n in range(MAX_BATCH_COMMITS + 5)], actor="admin")
        before = await log.end(0)
        await store.change(lambda state: decide_delete_organization(state, state.organizations[key]), actor="admin")
        assert not list(store.state.everything())
        assert await log.end(0) == before + MAX_BATCH_COMMITS + 5 + 2


async def test_a_store_that_does_not_follow_says_so() -> None:
    store = ConfigStore(memory())
    with pytest.raises(InternalError) as caught:
        _ = store.state
    assert caught.value.code == "configNotReady"


async def test_a_position_that_does_not_come_is_waited_for_and_refused() -> None:
    async with store_on(memory()) as store:
        with pytest.raises(InternalError, match="does not include position 1/0/9") as caught:
            await store.reached(Position(1, 0, 9), seconds=0.01)
        assert caught.value.code == "configBehind"


async def test_changes_of_a_parked_thing_are_refused_until_its_commit_is_skipped() -> None:
    log = memory()
    async with store_on(log) as store:
        key = await user(store, "ada")
        address = Address(0, "user", key)
        unreadable = log.put(0, log.subjects.of(address), b"{}")
        await store.reached(unreadable)
        assert [one.aggregate for one in store.parked] == [address.aggregate]
        rename = lambda state: decide_rename_user(state, find_user(state, "ada"), "bob")  # noqa: E731
        with pytest.raises(InternalError) as caught:
            await store.change(rename, actor="admin")
        assert caught.value.code == "aggregateParked"
        (message,) = [one for one in log.streams[0].messages if one.position == unreadable]
        skip = CommitSkipped(hash_of(message), 1, 2, str(unreadable), "test")
        decided = Head().next_commit(skip_address(0, message.subject), [skip], time=datetime.now(UTC), actor="admin")
        position = await log.append(decided)
        await store.reached(position)
        await store.change(rename, actor="admin")
        assert store.state.users[key].name == "bob"
        assert not store.parked


async def test_a_refused_decision_changes_nothing() -> None:
    log = memory()
    async with store_on(log) as store:
        await user(store, "ada")
        with pytest.raises(BadRequestError):
            await user(store, "ada")
        assert await log.end(0) == 2
        await store.change(lambda state: decide_delete_user(state, find_user(state, "ada")), actor="admin")
        await user(store, "ada")


async def test_the_store_on_jetstream(nats_url: str, namespace: str) -> None:
    async with (
        connected(nats_url) as nc,
        await open_log(nc, namespace, "config", create=True, partitions=1) as log,
        await open_log(nc, namespace, "config") as another,
        store_on(log) as one,
        store_on(another) as other,
    ):
        created = await asyncio.gather(*(user(store, f"u{n}") for n, store in enumerate((one, other, one, other))))
        await one.reached(other.position)
        await other.reached(one.position)
        assert one.state.users.keys() == other.state.users.keys() == {*created}
        parent = one.state.root_group(created[0])
        await other.change(lambda _: [new_group(parent.id, "tools")], actor="admin")
        await one.reached(other.position)
        assert [*one.state.names("projectgroup", parent.id)] == ["tools"]

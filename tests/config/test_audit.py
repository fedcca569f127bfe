"""The audit trail: pages of the log with the last name and place of each thing, deleted ones included."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from runstream.config.audit import AuditedCommit, AuditTrail
from runstream.config.store import ConfigFollower, ConfigStore
from runstream.domain.config.decisions.users import (
    decide_create_user,
    decide_delete_user,
    decide_rename_user,
    decide_set_admin,
)
from runstream.domain.config.references import find_user
from runstream.domain.config.state import ConfigState, Decision
from runstream.ids import new_id
from tests.log.memory import MemoryLog


def _switch(key: str, state: ConfigState) -> Decision:
    return decide_set_admin(state.users[key], admin=not state.users[key].admin)


def anything(_: AuditedCommit) -> bool:
    return True


@pytest.mark.parametrize("skew", [timedelta(hours=1), timedelta(0)])
async def test_pages_since_a_time_have_each_change_once(monkeypatch: pytest.MonkeyPatch, skew: timedelta) -> None:
    monkeypatch.setattr("runstream.config.audit.MAX_SKEW", skew)
    monkeypatch.setattr("runstream.config.audit.MAX_SCANNED", 100)
    log = MemoryLog(service="config", partitions=1)
    store, key, root = ConfigStore(log), new_id(), new_id()
    async with ConfigFollower(store).serving():
        await store.change(
            lambda state: decide_create_user(state, user_id=key, root_group_id=root, name="ada"), actor="admin"
        )
        for number in range(1100):
            if number == 1050:
                since = datetime.now(UTC)
            await store.change(partial(_switch, key), actor="user:ada")
        await store.change(lambda state: decide_delete_user(state, find_user(state, "ada")), actor="admin")
    trail = AuditTrail(log)
    found: list[AuditedCommit] = []
    after: int | None = 0
    while after is not None:
        page, after = await trail.page(after, since, anything, 7)
        assert len(page) <= 7
        found += page
    assert [one.sequence for one in found] == list(range(found[0].sequence, await log.end(0) + 1))
    assert len([one for one in found if one.stored.commit.actor == "user:ada"]) == 50
    assert {one.path for one in found} == {"user/ada"}


async def test_authors_have_their_last_names_also_when_another_user_has_the_name_now() -> None:
    log = MemoryLog(service="config", partitions=1)
    store, first, second = ConfigStore(log), new_id(), new_id()
    async with ConfigFollower(store).serving():

        async def create(key: str, name: str) -> None:
            await store.change(
                lambda state: decide_create_user(state, user_id=key, root_group_id=new_id(), name=name), actor="admin"
            )

        await create(first, "ada")
        await store.change(partial(_switch, first), actor="user:ada")
        await store.change(lambda state: decide_rename_user(state, state.users[first], "eva"), actor="admin")
        await create(second, "ada")
        await store.change(partial(_switch, second), actor="user:ada")
        await store.change(partial(_switch, first), actor="user:eva")
        await store.change(lambda state: decide_delete_user(state, find_user(state, "eva")), actor="admin")
        await store.change(partial(_switch, second), actor="user:gone")
    found, _ = await AuditTrail(log).page(0, None, anything, 100)
    by_users = [one for one in found if one.author != "admin"]
    assert [one.author for one in by_users] == ["user:eva", "user:ada", "user:eva", "user:gone"]
    assert [set(one.author_names) for one in by_users] == [{"ada", "eva"}, {"ada"}, {"eva"}, {"gone"}]

"""Users, organizations, groups, projects, secrets and variables as of an earlier point of the log (`?at=`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from runstream.config.past import PastStates
from tests.gateway.config_world import ConfigWorld, config_world

REPOSITORY = {"url": "https://git.example.com/site.git"}
SITE, WEB = "projects/org%2Facme%2Fweb%2Fsite", "projectgroups/org%2Facme%2Fweb"


@pytest.fixture
async def w() -> AsyncIterator[ConfigWorld]:
    """Users ada (owner of the private `acme`), bob (its member), eve (of nothing); a group, a project, a secret."""
    async with config_world() as w:
        for name in ("ada", "bob", "eve"):
            await w.user(name)
        await w.done("ada", "POST", "/orgs", {"name": "acme", "visibility": "private"})
        await w.done("ada", "PUT", "/orgs/acme/members/bob", {"role": "member"})
        group = {"name": "web", "parent_ref": "org/acme", "visibility": "public"}
        await w.done("ada", "POST", "/projectgroups", group)
        project = {"name": "site", "parent_ref": "org/acme/web", "visibility": "public", "repository": REPOSITORY}
        await w.done("ada", "POST", "/projects", project)
        secret = {"name": "deploy", "type": "internal", "data": {"key": "hunter2"}}
        await w.done("ada", "POST", f"/{SITE}/secrets", secret)
        values = {"name": "KEY", "values": [{"secret_name": "deploy", "secret_var": "key"}]}
        await w.done("ada", "POST", f"/{SITE}/variables", values)
        yield w


def here(w: ConfigWorld) -> str:
    """The position of now."""
    return str(w.store.position)


async def at(w: ConfigWorld, who: str, path: str, point: str) -> Any:
    """The status of the past of something, or its JSON."""
    answer = await w.ask(who, "GET", f"/{path}{'&' if '?' in path else '?'}at={quote(point, safe='')}")
    return answer.json() if answer.is_success else answer.status_code


async def test_each_view_is_as_it_was_at_a_position_and_at_a_time(w: ConfigWorld) -> None:
    paths = (
        *("users/ada", "orgs/acme", WEB, SITE, f"{SITE}/secrets?tree=1", f"{SITE}/variables"),
        *("projectgroups/org%2Facme/subgroups", f"{WEB}/projects", f"{WEB}/secrets", f"{WEB}/variables"),
    )
    before = {path: await w.done("admin", "GET", f"/{path}") for path in paths}
    position = here(w)
    assert (await w.done("admin", "GET", "/audit?limit=500"))[-1]["position"] == position
    made = (await w.done("admin", "GET", "/audit?limit=500"))[-1]["time"]
    await w.done("ada", "PUT", f"/{SITE}", {"name": "shop", "visibility": "private"})
    await w.done("ada", "PUT", f"/{WEB}", {"name": "www"})
    await w.done("admin", "PUT", "/users/ada", {"username": "lovelace"})
    await w.done("ada", "PUT", "/orgs/acme", {"visibility": "public"})
    await w.done("ada", "DELETE", "/projects/org%2Facme%2Fwww%2Fshop")
    for point in (position, position.replace("/0/", ":"), made):
        for path, view in before.items():
            assert await at(w, "admin", path, point) == view, (path, point)
    for path in paths:
        now = await w.ask("admin", "GET", f"/{path}")
        past = await at(w, "admin", path, here(w))
        assert past == (now.json() if now.is_success else now.status_code), path
    assert await at(w, "admin", SITE, "1/0/1") == 404
    assert await at(w, "admin", SITE, "2001-01-01T00:00:00Z") == 404


async def test_the_past_is_for_owners_of_now_and_for_those_who_see_it_then_and_now(w: ConfigWorld) -> None:
    private = here(w)

    async def seen(path: str, point: str = private) -> dict[str, bool | int]:
        found = {who: await at(w, who, path, point) for who in ("", "eve", "bob", "ada", "admin")}
        return {who: answer if isinstance(answer, int) else True for who, answer in found.items()}

    both = {"": 401, "eve": 404, "bob": True, "ada": True, "admin": True}
    assert await seen(SITE) == await seen(f"{SITE}/secrets") == await seen(WEB) == await seen("orgs/acme") == both
    await w.done("ada", "PUT", "/orgs/acme", {"visibility": "public"})
    # It is public now; then it was not.
    assert await seen("orgs/acme") == both
    assert (await w.ask("eve", "GET", "/orgs/acme")).status_code == 200
    assert await seen("orgs/acme", here(w)) == {**both, "eve": True}
    await w.done("ada", "DELETE", "/orgs/acme/members/bob")
    await w.done("ada", "PUT", "/orgs/acme", {"visibility": "private"})
    # A former member sees nothing of the time as a member.
    assert await seen(SITE) == {**both, "bob": 404}
    await w.done("ada", "DELETE", f"/{SITE}")
    assert await seen(SITE) == {**both, "bob": 404}
    await w.done("ada", "DELETE", "/orgs/acme")
    assert await seen(SITE) == {**both, "bob": 404, "ada": 404}
    assert await seen("users/eve") == {"": 401, "eve": True, "bob": True, "ada": True, "admin": True}
    await w.done("admin", "DELETE", "/users/eve")
    assert [await at(w, who, "users/eve", private) == 404 for who in ("bob", "admin")] == [True, False]


async def test_a_point_that_is_none_is_refused(w: ConfigWorld) -> None:
    position = w.store.position
    later = f"{position.epoch}/0/{position.sequence + 1}"
    for point in ("moo", "2026-01-01T00:00", "2:1", "1:1,1", "1/1/1", "2/0/1", later):
        answer = await w.ask("ada", "GET", f"/{SITE}?at={quote(point, safe='')}")
        assert (answer.status_code, answer.json()[0]["code"]) == (400, "invalidPoint"), (point, answer.text)


async def test_the_last_point_is_read_once(w: ConfigWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    read = PastStates._read  # noqa: SLF001

    async def counted(self: PastStates, bound: Any, end: int) -> Any:
        nonlocal reads
        reads += 1
        return await read(self, bound, end)

    monkeypatch.setattr(PastStates, "_read", counted)
    position = here(w)
    for path in (SITE, WEB, "orgs/acme"):
        assert not isinstance(await at(w, "ada", path, position), int)
    assert reads == 1
    # A time of which later commits may still come is read again.
    for _ in range(2):
        assert not isinstance(await at(w, "ada", SITE, "2999-01-01T00:00:00Z"), int)
    assert reads == 3

"""A change at one gateway, while another gateway changes the same thing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from runstream.commits import NewCommit, Position
from runstream.config.store import ConfigFollower, ConfigStore
from runstream.config_folding import ConfigFold
from runstream.domain.config.decisions.users import decide_delete_user
from runstream.domain.config.fitting import Kind
from runstream.domain.config.state import Change, ConfigState, Decision
from runstream.domain.config.tree import deletion
from runstream.events.remote_source import RemoteSourceDeleted
from runstream.events.secret import SecretDeleted
from runstream.events.variable import VariableDeleted
from tests.gateway.config_world import V1, config_world
from tests.log.memory import MemoryLog

REPOSITORY = {"url": "https://git.example.com/site.git"}
SECRET = {"name": "key", "type": "internal", "data": {"k": "v"}}
VARIABLE = {"name": "KEY", "values": [{"secret_name": "key", "secret_var": "k"}]}
SOURCE = {"name": "git", "apiurl": "https://git.example.com", "type": "gitea", "auth_type": "password"}


class SharedLog(MemoryLog):
    """A log where another writer can be faster than the answer to an append."""

    meanwhile: Callable[[Sequence[NewCommit]], Awaitable[None]] | None = None

    async def append_batch(self, commits: Sequence[NewCommit], after: int) -> list[Position]:
        positions = await super().append_batch(commits, after)
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile(commits)
            for _ in range(100):  # the follower of the first gateway reads what was appended
                await asyncio.sleep(0)
        return positions


DELETED: dict[str, Any] = {
    "secret": SecretDeleted,
    "variable": VariableDeleted,
    "remotesource": RemoteSourceDeleted,
}


def deletion_of(state: ConfigState, kind: Kind, key: str) -> Decision:
    match kind:
        case "project":
            return deletion(state, state.projects[key])
        case "projectgroup":
            return deletion(state, state.groups[key])
        case "user":
            return decide_delete_user(state, state.users[key])
    return [Change(kind, key, (DELETED[kind](),))]


@pytest.mark.parametrize(
    ("who", "method", "path", "body", "status"),
    [
        ("admin", "POST", "/users", {"username": "new"}, 201),
        ("admin", "PUT", "/users/bob", {"username": "rob"}, 200),
        ("ada", "POST", "/projectgroups", {"name": "g", "parent_ref": "user/ada", "visibility": "public"}, 201),
        ("ada", "PUT", "/projectgroups/user%2Fada%2Fweb", {"name": "g"}, 201),
        ("ada", "POST", "/projects", {"name": "p", "visibility": "public", "repository": REPOSITORY}, 201),
        ("ada", "PUT", "/projects/user%2Fada%2Fsite", {"name": "p"}, 201),
        ("ada", "POST", "/projects/user%2Fada%2Fsite/variables", VARIABLE, 201),
        ("ada", "PUT", "/projects/user%2Fada%2Fsite/variables/OLD", VARIABLE, 200),
        ("ada", "PUT", "/projects/user%2Fada%2Fsite/secrets/old", SECRET, 200),
        ("admin", "POST", "/remotesources", SOURCE, 201),
        ("admin", "PUT", "/remotesources/old", {"name": "new"}, 201),
    ],
)
async def test_a_response_shows_the_change_although_another_gateway_deletes_the_thing_at_once(
    who: str, method: str, path: str, body: Any, status: int
) -> None:
    log = SharedLog(service="config", partitions=1)
    async with config_world(log) as w:
        for name in ("ada", "bob"):
            await w.user(name)
        await w.done("ada", "POST", "/projectgroups", {"name": "web", "parent_ref": "user/ada", "visibility": "public"})
        await w.done("ada", "POST", "/projects", {"name": "site", "visibility": "public", "repository": REPOSITORY})
        await w.done("ada", "POST", "/projects/user%2Fada%2Fsite/variables", {**VARIABLE, "name": "OLD"})
        await w.done("ada", "POST", "/projects/user%2Fada%2Fsite/secrets", {**SECRET, "name": "old"})
        await w.done("admin", "POST", "/remotesources", {**SOURCE, "name": "old"})
        other = ConfigStore(log)
        async with ConfigFollower(other).serving():

            async def delete(commits: Sequence[NewCommit]) -> None:
                await other.reached(Position(log.epoch, 0, len(log.streams[0].messages)))
                kind, key = ConfigFold.kind_and_id(commits[0].address.aggregate)
                await other.change(lambda state: deletion_of(state, kind, key), actor="admin")
                deleted.append((kind, key))

            deleted: list[tuple[Kind, str]] = []
            log.meanwhile = delete
            answer = await w.ask(who, method, path, body)
            assert answer.status_code == status, answer.text
            shown = answer.json()
            assert (shown.get("username") or shown["name"]) == (body.get("username") or body["name"])
            await w.store.reached(other.position)
            assert [w.store.state.find(*one) for one in deleted] == [None]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/orgs", {"name": "acme", "visibility": "public"}),
        ("POST", "/projects", {"name": "p", "visibility": "public", "repository": REPOSITORY}),
        ("POST", "/projectgroups", {"name": "g", "visibility": "public"}),
        ("PUT", "/user/org_invitations/none/actions", {"action_type": "accept"}),
        ("POST", "/auth/loginlink", {}),
        ("POST", "/user/createrun", {}),
    ],
)
async def test_a_user_deleted_since_the_request_began_is_not_known(method: str, path: str, body: Any) -> None:
    async with config_world() as w:
        ada = await w.user("ada")

        async def sent() -> AsyncIterator[bytes]:
            await w.store.change(lambda state: decide_delete_user(state, state.users[ada]), actor="admin")
            yield json.dumps(body).encode()

        headers = {"Authorization": f"token {w.tokens['ada']}"}
        answer = await w.http.request(method, f"{V1}{path}", content=sent(), headers=headers)
        assert answer.status_code in (400, 401), answer.text
        assert not w.store.state.organizations

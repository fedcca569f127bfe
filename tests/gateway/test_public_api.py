"""The public API, route by route: who, what, the status, the code of a refusal, the shape of the response."""

# ruff: noqa: E501  tables of requests, a row each

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.gateway import wire_shapes as wire
from tests.gateway.config_world import ConfigWorld, config_world

REPOSITORY = {"url": "https://git.example.com/site.git"}
SECRET = {"name": "deploy", "type": "internal", "data": {"key": "hunter2"}}
VALUE = {"secret_name": "deploy", "secret_var": "key"}
GITEA = {"name": "git", "apiurl": "https://git.example.com", "type": "gitea", "auth_type": "password"}
UUID = "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"
LONG = "x" * 41


async def play(w: ConfigWorld, rows: Iterable[tuple[Any, ...]]) -> None:
    """Send each request: sender, method, path, body, status, and a shape or the code of the refusal."""
    for who, method, path, body, status, expected in rows:
        answer = await w.ask(who, method, path, body)
        row = (who, method, path, body, answer.status_code, answer.text)
        assert answer.status_code == status, row
        if isinstance(expected, str):
            jsonschema.validate(answer.json(), wire.ERROR)
            assert answer.json()[0]["code"] == expected, row
        elif expected is None:
            assert answer.content == b"", row
        else:
            jsonschema.validate(answer.json(), expected)


@pytest.fixture
async def w() -> AsyncIterator[ConfigWorld]:
    """Users ada (owner of `acme`, private, and `open`, public), bob (member of both), eve (of none), root (admin)."""
    async with config_world() as w:
        for name in ("ada", "bob", "eve", "root"):
            await w.user(name)
        await w.done("admin", "PUT", "/users/root", {"admin": True})
        for name, visibility in (("acme", "private"), ("open", "public")):
            await w.done("ada", "POST", "/orgs", {"name": name, "visibility": visibility})
            await w.done("ada", "PUT", f"/orgs/{name}/members/bob", {"role": "member"})
            group = {"name": "web", "parent_ref": f"org/{name}", "visibility": "public"}
            await w.done("ada", "POST", "/projectgroups", group)
            project = {
                "name": "site",
                "parent_ref": f"org/{name}/web",
                "visibility": "public",
                "repository": REPOSITORY,
            }
            await w.done("ada", "POST", "/projects", project)
        yield w


async def test_users(w: ConfigWorld) -> None:
    ada = w.store.state.named("user", "", "ada")
    await play(w, [
        ("", "GET", "/version", None, 200, wire.VERSION),
        ("ada", "GET", "/user", None, 200, wire.PRIVATE_USER),
        ("", "GET", "/user", None, 401, "missingToken"),
        ("admin", "GET", "/user", None, 403, ""),
        ("eve", "GET", "/users/ada", None, 200, wire.USER),
        ("eve", "GET", f"/users/{ada}", None, 200, wire.USER),
        ("admin", "GET", "/users/ada", None, 200, wire.USER),
        ("", "GET", "/users/ada", None, 401, "missingToken"),
        ("eve", "GET", "/users/nobody", None, 404, "userDoesNotExist"),
        ("eve", "GET", f"/users/{UUID}", None, 404, "userDoesNotExist"),
        ("eve", "GET", "/users/ADA", None, 404, "userDoesNotExist"),
        ("admin", "GET", "/users", None, 200, wire.many(wire.PRIVATE_USER)),
        ("root", "GET", "/users", None, 200, wire.many(wire.PRIVATE_USER)),
        ("ada", "GET", "/users", None, 401, "loginRequired"),
        ("admin", "GET", "/users?query_type=byname", None, 400, "invalidQueryType"),
        ("admin", "GET", "/users?query_type=byremoteuser&remoteuserid=1&remotesourceref=x", None, 404, "remoteSourceDoesNotExist"),
        ("root", "POST", "/users", {"username": "new"}, 201, wire.USER),
        ("ada", "POST", "/users", {"username": "other"}, 403, ""),
        ("", "POST", "/users", {"username": "other"}, 401, "missingToken"),
        ("admin", "POST", "/users", {"username": "new"}, 400, "userAlreadyExists"),
        *(("admin", "POST", "/users", {"username": name}, 400, "invalidUserName") for name in ("", "a_b", "-a", "a--b", LONG, UUID, "ünï", "a/b", None)),
        ("admin", "POST", "/users", {"username": "NEW"}, 201, wire.USER),
        ("ada", "PUT", "/users/new", {"username": "newer"}, 403, ""),
        ("admin", "PUT", "/users/new", {"username": "newer"}, 200, wire.USER),
        ("admin", "PUT", "/users/newer", {"username": "newer"}, 400, "userAlreadyExists"),
        ("admin", "PUT", "/users/newer", {"username": "a b"}, 400, "invalidUserName"),
        ("ada", "DELETE", "/users/newer", None, 403, ""),
        ("admin", "DELETE", "/users/newer", None, 204, None),
        ("admin", "DELETE", "/users/newer", None, 404, "userDoesNotExist"),
        ("admin", "DELETE", "/users/ada", None, 400, "lastOrganizationOwner"),
    ])  # fmt: skip


async def test_tokens(w: ConfigWorld) -> None:
    await play(w, [
        ("ada", "POST", "/users/ada/tokens", {"token_name": "a b/ü"}, 201, wire.TOKEN),
        ("admin", "POST", "/users/ada/tokens", {"token_name": "two"}, 201, wire.TOKEN),
        ("ada", "POST", "/users/ada/tokens", {"token_name": "two"}, 400, "userTokenAlreadyExists"),
        ("ada", "POST", "/users/ada/tokens", {"token_name": ""}, 400, ""),
        ("ada", "POST", "/users/ada/tokens", {"token_name": ".."}, 400, ""),
        ("ada", "POST", "/users/ada/tokens", {"token_name": "x", "expires_at": "2020-01-01T00:00:00Z"}, 400, "invalidTokenExpiry"),
        ("ada", "POST", "/users/ada/tokens", {"token_name": "x", "expires_at": "2999-01-01T00:00:00"}, 400, "invalidBody"),
        ("ada", "POST", "/users/ada/tokens", {"token_name": "x", "expires_at": "2999-01-01T00:00:00Z"}, 201, wire.TOKEN),
        ("ada", "DELETE", "/users/ada/tokens/x", None, 204, None),
        ("eve", "POST", "/users/ada/tokens", {"token_name": "x"}, 400, ""),
        ("", "POST", "/users/ada/tokens", {"token_name": "x"}, 401, "missingToken"),
        ("eve", "POST", "/users/nobody/tokens", {"token_name": "x"}, 404, "userDoesNotExist"),
        ("eve", "DELETE", "/users/ada/tokens/two", None, 400, ""),
        ("ada", "DELETE", "/users/ada/tokens/a%20b%2F%C3%BC", None, 204, None),
        ("ada", "DELETE", "/users/ada/tokens/a%20b%2F%C3%BC", None, 404, "userTokenDoesNotExist"),
        ("eve", "DELETE", "/users/nobody/tokens/x", None, 404, "userDoesNotExist"),
        ("ada", "DELETE", f"/users/ada/linkedaccounts/{UUID}", None, 404, "linkedAccountDoesNotExist"),
        ("eve", "DELETE", f"/users/ada/linkedaccounts/{UUID}", None, 400, ""),
    ])  # fmt: skip
    assert (await w.done("ada", "GET", "/user"))["tokens"] == ["test", "two"]


async def test_a_token_that_does_not_count_any_more_is_refused_everywhere(w: ConfigWorld) -> None:
    w.tokens["expired"] = await w.expired_token("ada")
    w.tokens["revoked"] = (await w.done("ada", "POST", "/users/ada/tokens", {"token_name": "r"}))["token"]
    await w.done("ada", "DELETE", "/users/ada/tokens/r")
    w.tokens |= {"malformed": "rst_x", "wrong check": w.tokens["ada"][:-1] + "_", "empty": ""}
    for who, code in (
        ("expired", "tokenExpired"),
        ("revoked", "unknownToken"),
        ("malformed", "invalidToken"),
        ("wrong check", "invalidToken"),
        ("empty", "invalidToken"),
    ):
        for path in ("/user", "/orgs", "/projects/org%2Fopen%2Fweb%2Fsite", "/runs"):
            await play(w, [(who, "GET", path, None, 401, code)])
    for header in ("Token", "tOKEN", "Bearer", "bearer"):
        asked = {"Authorization": f"{header} {w.tokens['ada']}"}
        assert (await w.ask("", "GET", "/user", headers=asked)).status_code == 200
    assert (await w.ask("", "GET", "/user", headers={"Authorization": f"Basic {w.tokens['ada']}"})).status_code == 401


async def test_the_scope_of_a_token_bounds_what_it_allows(w: ConfigWorld) -> None:
    for scope in ("read", "run"):
        made = await w.done("ada", "POST", "/users/ada/tokens", {"token_name": scope, "scope": scope})
        w.tokens[scope] = made["token"]
        await play(w, [
            (scope, "GET", "/user", None, 200, wire.PRIVATE_USER),
            (scope, "GET", "/projects/org%2Facme%2Fweb%2Fsite", None, 200, wire.PROJECT),
            (scope, "POST", "/users/ada/tokens", {"token_name": "more"}, 403, ""),
            (scope, "POST", "/auth/loginlink", {}, 403, ""),
            (scope, "DELETE", "/projects/org%2Facme%2Fweb%2Fsite", None, 403, ""),
            (scope, "POST", "/projects/org%2Facme%2Fweb%2Fsite/secrets", SECRET, 403, ""),
            (scope, "DELETE", "/orgs/acme", None, 403, ""),
        ])  # fmt: skip
    await play(w, [("ada", "POST", "/users/ada/tokens", {"token_name": "x", "scope": "all"}, 400, "invalidBody")])


async def test_organizations_and_members(w: ConfigWorld) -> None:
    await play(w, [
        ("eve", "GET", "/orgs", None, 200, wire.many(wire.ORG)),
        ("", "GET", "/orgs", None, 401, "missingToken"),
        ("eve", "GET", "/orgs/open", None, 200, wire.ORG),
        ("bob", "GET", "/orgs/acme", None, 200, wire.ORG),
        ("eve", "GET", "/orgs/acme", None, 404, "organizationDoesNotExist"),
        ("admin", "GET", "/orgs/acme", None, 200, wire.ORG),
        ("eve", "GET", "/orgs/nothing", None, 404, "organizationDoesNotExist"),
        ("eve", "POST", "/orgs", {"name": "new", "visibility": "public"}, 201, wire.ORG),
        ("admin", "POST", "/orgs", {"name": "ours", "visibility": "private"}, 201, wire.ORG),
        ("eve", "POST", "/orgs", {"name": "new", "visibility": "public"}, 400, "organizationAlreadyExists"),
        ("eve", "POST", "/orgs", {"name": "new2", "visibility": "secret"}, 400, "invalidVisibility"),
        ("eve", "POST", "/orgs", {"name": "new2"}, 400, "invalidVisibility"),
        ("eve", "POST", "/orgs", {"name": "new_2", "visibility": "public"}, 400, "invalidOrganizationName"),
        ("", "POST", "/orgs", {"name": "new3", "visibility": "public"}, 401, "missingToken"),
        ("eve", "PUT", "/orgs/new", {"visibility": "private"}, 200, wire.ORG),
        ("eve", "PUT", "/orgs/new", {}, 200, wire.ORG),
        ("eve", "PUT", "/orgs/new", {"visibility": "x"}, 400, "invalidVisibility"),
        ("bob", "PUT", "/orgs/acme", {"visibility": "public"}, 403, ""),
        ("eve", "PUT", "/orgs/acme", {"visibility": "public"}, 403, ""),
        ("bob", "GET", "/orgs/acme/members", None, 200, wire.MEMBERS),
        ("eve", "GET", "/orgs/open/members", None, 200, wire.MEMBERS),
        ("eve", "GET", "/orgs/acme/members", None, 404, "organizationDoesNotExist"),
        ("ada", "PUT", "/orgs/acme/members/eve", {"role": "member"}, 200, wire.ADDED_MEMBER),
        ("ada", "PUT", "/orgs/acme/members/eve", {"role": "owner"}, 200, wire.ADDED_MEMBER),
        ("ada", "PUT", "/orgs/acme/members/eve", {"role": "chief"}, 400, "invalidRole"),
        ("ada", "PUT", "/orgs/acme/members/nobody", {"role": "member"}, 404, "userDoesNotExist"),
        ("bob", "PUT", "/orgs/acme/members/bob", {"role": "owner"}, 403, ""),
        ("ada", "DELETE", "/orgs/acme/members/eve", None, 204, None),
        ("ada", "DELETE", "/orgs/acme/members/eve", None, 404, "orgMemberDoesNotExist"),
        ("ada", "DELETE", "/orgs/acme/members/ada", None, 400, "lastOrganizationOwner"),
        ("ada", "PUT", "/orgs/acme/members/ada", {"role": "member"}, 400, "lastOrganizationOwner"),
        ("bob", "DELETE", "/orgs/acme/members/ada", None, 403, ""),
        ("bob", "GET", "/user/orgs", None, 200, wire.USER_ORGS),
        ("admin", "GET", "/user/orgs", None, 403, ""),
        ("bob", "DELETE", "/orgs/new", None, 403, ""),
        ("eve", "DELETE", "/orgs/new", None, 204, None),
        ("eve", "DELETE", "/orgs/new", None, 404, "organizationDoesNotExist"),
        ("ada", "POST", "/orgs/acme/invitations", {"user_ref": "eve", "role": "member"}, 400, "cannotCreateInvitation"),
        ("eve", "POST", "/orgs/acme/invitations", {"user_ref": "eve", "role": "member"}, 400, "cannotCreateInvitation"),
        ("ada", "GET", "/orgs/acme/invitations", None, 200, wire.many(wire.INVITATION)),
    ])  # fmt: skip
    assert [one["name"] for one in await w.done("eve", "GET", "/orgs")] == ["open"]
    assert [one["name"] for one in await w.done("root", "GET", "/orgs")] == ["acme", "open", "ours"]
    assert [one["Role"] for one in await w.done("bob", "GET", "/user/orgs")] == ["member", "member"]


async def test_invitations() -> None:
    async with config_world(member_adding="invitation") as w:
        for name in ("ada", "bob", "eve"):
            await w.user(name)
        await w.done("ada", "POST", "/orgs", {"name": "acme", "visibility": "private"})
        new = {"user_ref": "bob", "role": "member"}
        await play(w, [
            ("ada", "PUT", "/orgs/acme/members/bob", {"role": "member"}, 400, "cannotAddUserToOrganization"),
            ("eve", "PUT", "/orgs/acme/members/bob", {"role": "member"}, 403, ""),
            ("eve", "POST", "/orgs/acme/invitations", new, 403, ""),
            ("admin", "POST", "/orgs/acme/invitations", new, 403, ""),
            ("ada", "POST", "/orgs/acme/invitations", new, 201, wire.INVITATION),
            ("ada", "POST", "/orgs/acme/invitations", new, 400, "invitationAlreadyExists"),
            ("ada", "POST", "/orgs/acme/invitations", {"user_ref": "nobody", "role": "member"}, 404, "userDoesNotExist"),
            ("ada", "POST", "/orgs/acme/invitations", {"user_ref": "eve", "role": "x"}, 400, "invalidRole"),
            ("ada", "POST", "/orgs/acme/invitations", {"user_ref": "ada", "role": "member"}, 400, "orgMemberAlreadyExists"),
            ("ada", "GET", "/orgs/acme/invitations", None, 200, wire.many(wire.INVITATION)),
            ("eve", "GET", "/orgs/acme/invitations", None, 403, ""),
            ("ada", "GET", "/orgs/acme/invitations/bob", None, 200, wire.INVITATION),
            ("bob", "GET", "/orgs/acme/invitations/bob", None, 200, wire.INVITATION),
            ("eve", "GET", "/orgs/acme/invitations/bob", None, 403, ""),
            ("bob", "GET", "/user/org_invitations?limit=1", None, 200, wire.many(wire.INVITATION)),
            ("bob", "GET", "/user/org_invitations?limit=-1", None, 400, "invalidLimit"),
            ("bob", "PUT", "/user/org_invitations/acme/actions", {"action_type": "think"}, 400, ""),
            ("eve", "PUT", "/user/org_invitations/acme/actions", {"action_type": "accept"}, 404, "invitationDoesNotExist"),
            ("admin", "PUT", "/user/org_invitations/acme/actions", {"action_type": "accept"}, 403, ""),
            ("bob", "PUT", "/user/org_invitations/acme/actions", {"action_type": "accept"}, 200, None),
            ("bob", "PUT", "/user/org_invitations/acme/actions", {"action_type": "accept"}, 404, "invitationDoesNotExist"),
            ("bob", "GET", "/orgs/acme", None, 200, wire.ORG),
            ("ada", "POST", "/orgs/acme/invitations", {"user_ref": "eve", "role": "owner"}, 201, wire.INVITATION),
            ("bob", "DELETE", "/orgs/acme/invitations/eve", None, 403, ""),
            ("ada", "DELETE", "/orgs/acme/invitations/eve", None, 204, None),
            ("ada", "DELETE", "/orgs/acme/invitations/eve", None, 404, "invitationDoesNotExist"),
            ("ada", "POST", "/orgs/acme/invitations", {"user_ref": "eve", "role": "owner"}, 201, wire.INVITATION),
            ("eve", "PUT", "/user/org_invitations/acme/actions", {"action_type": "reject"}, 200, None),
            ("eve", "GET", "/orgs/acme", None, 404, "organizationDoesNotExist"),
            ("admin", "PUT", "/orgs/acme/members/eve", {"role": "member"}, 200, wire.ADDED_MEMBER),
        ])  # fmt: skip
        reading = await w.done("ada", "POST", "/users/ada/tokens", {"token_name": "r", "scope": "read"})
        await w.done("ada", "PUT", "/orgs/acme", {"visibility": "public"})
        w.tokens["reader"] = reading["token"]
        await play(w, [("reader", "DELETE", "/orgs/acme/invitations/eve", None, 403, "")])


async def test_project_groups(w: ConfigWorld) -> None:
    new = {"name": "sub", "parent_ref": "org/open/web", "visibility": "private"}
    await play(w, [
        ("ada", "POST", "/projectgroups", new, 201, wire.GROUP),
        ("ada", "POST", "/projectgroups", new, 400, "projectGroupAlreadyExists"),
        ("ada", "POST", "/projectgroups", {**new, "name": "site"}, 201, wire.GROUP),
        ("eve", "POST", "/projectgroups", {"name": "mine", "parent_ref": "", "visibility": "public"}, 201, wire.GROUP),
        ("admin", "POST", "/projectgroups", {"name": "mine", "parent_ref": "", "visibility": "public"}, 403, ""),
        ("admin", "POST", "/projectgroups", {**new, "name": "x"}, 403, ""),
        ("bob", "POST", "/projectgroups", {**new, "name": "x"}, 403, ""),
        ("eve", "POST", "/projectgroups", {**new, "name": "x"}, 403, ""),
        ("", "POST", "/projectgroups", {**new, "name": "x"}, 401, "missingToken"),
        ("ada", "POST", "/projectgroups", {**new, "name": "a_b"}, 400, "invalidProjectName"),
        ("ada", "POST", "/projectgroups", {**new, "name": "x", "visibility": ""}, 400, "invalidVisibility"),
        *(("ada", "POST", "/projectgroups", {**new, "name": "x", "parent_ref": ref}, 404, "parentProjectGroupDoesNotExist") for ref in ("org/open/none", "org/none", "user/none", "none", UUID)),
        *(("ada", "POST", "/projectgroups", {**new, "name": "x", "parent_ref": ref}, 400, "invalidPath") for ref in ("org/", "team/x", "/")),
        ("bob", "GET", "/projectgroups/org%2Facme%2Fweb", None, 200, wire.GROUP),
        ("eve", "GET", "/projectgroups/org%2Facme%2Fweb", None, 404, "organizationDoesNotExist"),
        ("eve", "GET", "/projectgroups/org%2Fopen%2Fweb", None, 200, wire.GROUP),
        ("", "GET", "/projectgroups/org%2Fopen%2Fweb", None, 401, "missingToken"),
        ("eve", "GET", "/projectgroups/user%2Feve%2Fmine", None, 200, wire.GROUP),
        ("eve", "PUT", "/projectgroups/user%2Feve%2Fmine", {"visibility": "private"}, 201, wire.GROUP),
        ("ada", "GET", "/projectgroups/user%2Feve%2Fmine", None, 403, ""),
        ("eve", "GET", "/projectgroups/org", None, 404, "projectGroupDoesNotExist"),
        ("eve", "GET", "/projectgroups/team%2Fx", None, 400, "invalidPath"),
        ("eve", "GET", "/projectgroups/org%2Fnone", None, 404, "organizationDoesNotExist"),
        ("bob", "GET", "/projectgroups/org%2Facme%2Fweb/subgroups", None, 200, wire.many(wire.GROUP)),
        ("eve", "GET", "/projectgroups/org%2Facme%2Fweb/subgroups", None, 404, "organizationDoesNotExist"),
        ("bob", "GET", "/projectgroups/org%2Facme%2Fweb/projects", None, 200, wire.many(wire.PROJECT)),
        ("eve", "GET", "/projectgroups/org%2Facme%2Fweb/projects", None, 404, "organizationDoesNotExist"),
        ("ada", "PUT", "/projectgroups/org%2Fopen%2Fweb%2Fsub", {"name": "sub2"}, 201, wire.GROUP),
        ("ada", "PUT", "/projectgroups/org%2Fopen%2Fweb%2Fsub2", {"parent_ref": "org/acme"}, 201, wire.GROUP),
        ("bob", "PUT", "/projectgroups/org%2Facme%2Fsub2", {"name": "x"}, 403, ""),
        ("ada", "PUT", "/projectgroups/org%2Facme%2Fsub2", {"name": "a_b"}, 400, "invalidProjectGroupName"),
        ("ada", "PUT", "/projectgroups/org%2Facme%2Fsub2", {"name": "web"}, 400, "projectGroupAlreadyExists"),
        ("ada", "PUT", "/projectgroups/org%2Facme%2Fsub2", {"parent_ref": "org/acme/sub2"}, 400, ""),
        ("ada", "PUT", "/projectgroups/org%2Facme%2Fsub2", {"parent_ref": "org/x"}, 404, "parentProjectGroupDoesNotExist"),
        ("ada", "PUT", "/projectgroups/org%2Facme%2Fsub2", {"parent_ref": "user/eve"}, 403, ""),
        ("eve", "PUT", "/projectgroups/user%2Feve%2Fmine", {"parent_ref": "org/open/web"}, 403, ""),
        ("ada", "PUT", "/projectgroups/org%2Facme", {"name": "x"}, 400, "invalidProjectGroupName"),
        ("ada", "PUT", "/projectgroups/org%2Facme", {"visibility": "public"}, 201, wire.GROUP),
        ("bob", "DELETE", "/projectgroups/org%2Facme%2Fsub2", None, 403, ""),
        ("ada", "DELETE", "/projectgroups/org%2Facme", None, 400, ""),
        ("ada", "DELETE", "/projectgroups/org%2Facme%2Fsub2", None, 204, None),
        ("ada", "DELETE", "/projectgroups/org%2Facme%2Fsub2", None, 404, "projectGroupDoesNotExist"),
    ])  # fmt: skip
    await w.done("ada", "POST", "/projectgroups", new)
    hidden = {"name": "dark", "parent_ref": "org/open/web", "visibility": "private", "repository": REPOSITORY}
    await w.done("ada", "POST", "/projects", hidden)
    for who, groups, projects in (("bob", ["site", "sub"], ["dark", "site"]), ("eve", [], ["site"])):
        found = await w.done(who, "GET", "/projectgroups/org%2Fopen%2Fweb/subgroups")
        assert [one["name"] for one in found] == groups
        found = await w.done(who, "GET", "/projectgroups/org%2Fopen%2Fweb/projects")
        assert [one["name"] for one in found] == projects


NEVER_FETCHED = (
    "http://git.example.com/x",
    "https://169.254.169.254/latest",
    "https://127.0.0.1/x",
    "https://2130706433/x",
    "https://0x7f.1/x",
    "https://[::1]/x",
    "git@127.1:x",
    "/etc/passwd",
    "file:///etc",
)


async def test_projects(w: ConfigWorld) -> None:
    new = {"name": "app", "parent_ref": "org/open/web", "visibility": "private", "repository": REPOSITORY}
    app = "/projects/org%2Fopen%2Fweb%2Fapp"
    await play(w, [
        ("ada", "POST", "/projects", new, 201, wire.PROJECT),
        ("ada", "POST", "/projects", new, 400, "projectAlreadyExists"),
        ("eve", "POST", "/projects", {**new, "name": "own", "parent_ref": ""}, 201, wire.PROJECT),
        ("admin", "POST", "/projects", {**new, "name": "x"}, 400, ""),
        ("admin", "POST", "/projects", {**new, "name": "x", "parent_ref": ""}, 400, ""),
        ("bob", "POST", "/projects", {**new, "name": "x"}, 403, ""),
        ("", "POST", "/projects", {**new, "name": "x"}, 401, "missingToken"),
        ("ada", "POST", "/projects", {**new, "name": "a_b"}, 400, "invalidProjectName"),
        ("ada", "POST", "/projects", {**new, "name": "x", "visibility": ""}, 400, ""),
        ("ada", "POST", "/projects", {**new, "name": "x", "parent_ref": "org/none"}, 404, "parentProjectGroupDoesNotExist"),
        ("ada", "POST", "/projects", {**new, "name": "x", "parent_ref": "x/y"}, 400, "invalidPath"),
        ("eve", "POST", "/projects", {**new, "name": "x", "parent_ref": "", "members_can_perform_run_actions": True}, 400, "cannotSetMembersCanPerformRunActionsOnUserProject"),
        ("ada", "POST", "/projects", {**new, "name": "x", "repository": None, "repo_url": "https://git.example.com/x"}, 400, "invalidRepositoryURL"),
        ("ada", "POST", "/projects", {**new, "name": "x", "repository": None, "remote_source_name": "none", "repo_path": "a/b"}, 404, "remoteSourceDoesNotExist"),
        ("ada", "POST", "/projects", {**new, "name": "x", "remote_source_name": "none"}, 400, "invalidRepositoryURL"),
        *(("ada", "POST", "/projects", {**new, "name": "x", "repository": {"url": url}}, 400, "invalidRepositoryURL") for url in ("", "--upload-pack=x", "ext::sh -c x", "ftp://x/y")),
        *(("ada", "POST", "/projects", {**new, "name": "x", "repository": {"url": url}}, 400, "sourceNotAllowed") for url in NEVER_FETCHED),
        *(("ada", "PUT", app, {"repository": {"url": url}}, 400, "sourceNotAllowed") for url in NEVER_FETCHED),
        ("ada", "GET", app, None, 200, wire.PROJECT),
        ("bob", "GET", app, None, 200, wire.PROJECT),
        ("eve", "GET", app, None, 404, "projectDoesNotExist"),
        ("", "GET", app, None, 403, ""),
        ("admin", "GET", app, None, 200, wire.PROJECT),
        ("", "GET", "/projects/org%2Fopen%2Fweb%2Fsite", None, 200, wire.PROJECT),
        ("", "GET", "/projects/org%2Facme%2Fweb%2Fsite", None, 403, ""),
        ("eve", "GET", "/projects/org%2Facme%2Fweb%2Fsite", None, 404, "organizationDoesNotExist"),
        ("ada", "GET", "/projects/user%2Feve%2Fown", None, 403, ""),
        ("ada", "GET", "/projects/org%2Fopen", None, 400, "invalidPath"),
        ("ada", "GET", "/projects/org%2Fopen%2Fnone", None, 404, "projectDoesNotExist"),
        ("ada", "GET", f"/projects/{UUID}", None, 404, "projectDoesNotExist"),
        ("ada", "PUT", app, {"pass_vars_to_forked_pr": True, "members_can_perform_run_actions": True, "default_branch": "main"}, 201, wire.PROJECT),
        ("ada", "PUT", app, {}, 201, wire.PROJECT),
        ("ada", "PUT", app, {"name": "site"}, 400, "projectAlreadyExists"),
        ("ada", "PUT", app, {"name": "a_b"}, 400, "invalidProjectName"),
        ("ada", "PUT", app, {"visibility": "x"}, 400, ""),
        ("ada", "PUT", app, {"parent_ref": "org/none"}, 404, "parentProjectGroupDoesNotExist"),
        ("ada", "PUT", app, {"parent_ref": "user/eve"}, 403, ""),
        ("bob", "PUT", app, {"name": "x"}, 403, ""),
        ("eve", "PUT", app, {"name": "x"}, 403, ""),
        ("ada", "PUT", app, {"repository": {"url": "https://git.example.com/other.git"}}, 201, wire.PROJECT),
        ("ada", "PUT", app, {"name": "app2", "parent_ref": "org/acme"}, 201, wire.PROJECT),
        ("bob", "DELETE", "/projects/org%2Facme%2Fapp2", None, 403, ""),
        ("ada", "DELETE", "/projects/org%2Facme%2Fapp2", None, 204, None),
        ("ada", "DELETE", "/projects/org%2Facme%2Fapp2", None, 404, "projectDoesNotExist"),
    ])  # fmt: skip


@pytest.mark.parametrize("place", ["projects/org%2Facme%2Fweb%2Fsite", "projectgroups/org%2Facme%2Fweb"])
async def test_secrets_and_variables(w: ConfigWorld, place: str) -> None:
    public = place.replace("acme", "open")
    secrets, variables = f"/{place}/secrets", f"/{place}/variables"
    new = {
        "name": "KEY",
        "values": [{**VALUE, "when": {"branch": {"include": [{"type": "simple", "match": "main"}]}}}, VALUE],
    }
    bad = {"branch": {"include": [{"type": "regexp", "match": "("}]}}
    await play(w, [
        ("ada", "POST", secrets, SECRET, 201, wire.SECRET),
        ("ada", "POST", secrets, SECRET, 400, "secretAlreadyExists"),
        ("ada", "POST", secrets, {**SECRET, "name": "a_b"}, 400, "invalidSecretName"),
        ("ada", "POST", secrets, {**SECRET, "name": "x", "type": ""}, 400, "invalidSecretType"),
        ("ada", "POST", secrets, {**SECRET, "name": "x", "type": "external"}, 400, "invalidSecretType"),
        ("ada", "POST", secrets, {**SECRET, "name": "x", "data": {}}, 400, "invalidSecretData"),
        ("ada", "POST", secrets, {**SECRET, "name": "x", "data": {"k": 1}}, 400, "invalidBody"),
        ("bob", "POST", secrets, {**SECRET, "name": "x"}, 403, ""),
        ("", "POST", secrets, {**SECRET, "name": "x"}, 401, "missingToken"),
        ("bob", "GET", secrets, None, 200, wire.many(wire.SECRET)),
        ("eve", "GET", secrets, None, 404, "organizationDoesNotExist"),
        ("eve", "GET", f"/{public}/secrets?tree", None, 403, ""),
        ("bob", "GET", f"/{public}/secrets", None, 200, wire.many(wire.SECRET)),
        ("", "GET", secrets, None, 401, "missingToken"),
        ("ada", "PUT", f"{secrets}/deploy", {**SECRET, "data": {"k": "other"}}, 200, wire.SECRET),
        ("ada", "PUT", f"{secrets}/deploy", {**SECRET, "name": "deploy2"}, 200, wire.SECRET),
        ("ada", "PUT", f"{secrets}/deploy", SECRET, 404, "secretDoesNotExist"),
        ("ada", "PUT", f"{secrets}/deploy2", {"name": "deploy2"}, 400, "invalidSecretType"),
        ("bob", "PUT", f"{secrets}/deploy2", SECRET, 403, ""),
        ("bob", "DELETE", f"{secrets}/deploy2", None, 403, ""),
        ("ada", "POST", variables, new, 201, wire.VARIABLE),
        ("ada", "POST", variables, new, 400, "variableAlreadyExists"),
        ("ada", "POST", variables, {**new, "name": "A_B"}, 400, "invalidVariableName"),
        ("ada", "POST", variables, {"name": "x", "values": []}, 400, "invalidVariableValues"),
        ("ada", "POST", variables, {"name": "x", "values": [{**VALUE, "when": bad}]}, 400, "invalidVariableValues"),
        ("bob", "POST", variables, {**new, "name": "x"}, 403, ""),
        ("bob", "GET", f"{variables}?tree&removeoverridden", None, 200, wire.many(wire.VARIABLE)),
        ("eve", "GET", variables, None, 404, "organizationDoesNotExist"),
        ("eve", "GET", f"/{public}/variables?tree", None, 403, ""),
        ("ada", "PUT", f"{variables}/KEY", {"name": "KEY2", "values": [VALUE]}, 200, wire.VARIABLE),
        ("ada", "PUT", f"{variables}/KEY", new, 404, "variableDoesNotExist"),
        ("bob", "PUT", f"{variables}/KEY2", new, 403, ""),
        ("bob", "DELETE", f"{variables}/KEY2", None, 403, ""),
        ("ada", "DELETE", f"{variables}/KEY2", None, 204, None),
        ("ada", "DELETE", f"{variables}/KEY2", None, 404, "variableDoesNotExist"),
        ("ada", "DELETE", f"{secrets}/deploy2", None, 204, None),
        ("ada", "DELETE", f"{secrets}/deploy2", None, 404, "secretDoesNotExist"),
    ])  # fmt: skip
    created = await w.done("ada", "POST", secrets, SECRET)
    assert created["parent_path"] == ""
    (listed,) = await w.done("ada", "GET", secrets)
    assert listed == {**created, "parent_path": place.partition("/")[2].replace("%2F", "/")}


async def test_what_is_inherited_comes_nearest_first(w: ConfigWorld) -> None:
    site, web = "/projects/org%2Facme%2Fweb%2Fsite", "/projectgroups/org%2Facme%2Fweb"
    for place in (site, web, "/projectgroups/org%2Facme"):
        await w.done("ada", "POST", f"{place}/secrets", SECRET)
        await w.done("ada", "POST", f"{place}/variables", {"name": "KEY", "values": [VALUE]})
    for kind in ("secrets", "variables"):
        own, tree = await w.done("ada", "GET", f"{site}/{kind}"), await w.done("ada", "GET", f"{site}/{kind}?tree")
        assert [one["parent_path"] for one in own] == ["org/acme/web/site"]
        assert [one["parent_path"] for one in tree] == ["org/acme/web/site", "org/acme/web", "org/acme"]
        assert await w.done("ada", "GET", f"{site}/{kind}?tree&removeoverridden") == own
    values = [one["values"][0] for one in await w.done("ada", "GET", f"{site}/variables?tree")]
    assert [one["matching_secret_parent_path"] for one in values] == ["org/acme/web/site", "org/acme/web", "org/acme"]
    assert [one["when"] for one in values] == [None] * 3


async def test_remote_sources(w: ConfigWorld) -> None:
    await play(w, [
        ("admin", "POST", "/remotesources", GITEA, 201, wire.SOURCE),
        ("root", "POST", "/remotesources", {**GITEA, "name": "hub", "type": "github", "auth_type": "oauth2", "oauth_2_client_id": "id", "oauth_2_client_secret": "hunter2"}, 201, wire.SOURCE),
        ("ada", "POST", "/remotesources", {**GITEA, "name": "x"}, 403, ""),
        ("", "POST", "/remotesources", {**GITEA, "name": "x"}, 401, "missingToken"),
        ("admin", "POST", "/remotesources", GITEA, 400, "remoteSourceAlreadyExists"),
        ("admin", "POST", "/remotesources", {**GITEA, "name": ""}, 400, "invalidRemoteSourceName"),
        ("admin", "POST", "/remotesources", {**GITEA, "name": "x", "apiurl": ""}, 400, "invalidRemoteSourceAPIURL"),
        ("admin", "POST", "/remotesources", {**GITEA, "name": "x", "type": "svn"}, 400, "invalidRemoteSourceType"),
        ("admin", "POST", "/remotesources", {**GITEA, "name": "x", "type": "github"}, 400, "invalidRemoteSourceAuthType"),
        ("admin", "POST", "/remotesources", {**GITEA, "name": "x", "auth_type": "oauth2"}, 400, "invalidOauth2ClientID"),
        ("admin", "POST", "/remotesources", {**GITEA, "name": "x", "auth_type": "oauth2", "oauth_2_client_id": "i"}, 400, "invalidOauth2ClientSecret"),
        ("", "GET", "/remotesources", None, 200, wire.many(wire.SOURCE)),
        ("", "GET", "/remotesources/git", None, 401, "missingToken"),
        ("eve", "GET", "/remotesources/git", None, 200, wire.SOURCE),
        ("eve", "GET", "/remotesources/none", None, 404, "remoteSourceDoesNotExist"),
        ("admin", "PUT", "/remotesources/git", {"name": "git2", "login_enabled": False}, 201, wire.SOURCE),
        ("admin", "PUT", "/remotesources/git2", {"apiurl": ""}, 400, "invalidRemoteSourceAPIURL"),
        ("admin", "PUT", "/remotesources/git2", {"name": "hub"}, 400, "remoteSourceAlreadyExists"),
        ("admin", "PUT", "/remotesources/none", {}, 404, "remoteSourceDoesNotExist"),
        ("ada", "PUT", "/remotesources/git2", {}, 403, ""),
        ("ada", "DELETE", "/remotesources/git2", None, 403, ""),
        ("ada", "POST", "/projects", {"name": "x", "visibility": "public", "remote_source_name": "git2", "repo_path": "a/b"}, 404, "linkedAccountDoesNotExist"),
        ("admin", "DELETE", "/remotesources/git2", None, 204, None),
        ("admin", "DELETE", "/remotesources/git2", None, 404, "remoteSourceDoesNotExist"),
    ])  # fmt: skip
    shown = await w.done("eve", "GET", "/remotesources/hub")
    assert shown == {
        "id": shown["id"],
        "name": "hub",
        "auth_type": "oauth2",
        "registration_enabled": True,
        "login_enabled": True,
    }
    stored = b"".join(message.data for stream in w.log.streams for message in stream.messages)
    assert b"hunter2" not in stored


async def test_lists_have_pages(w: ConfigWorld) -> None:
    for path, names in (("/users", ["ada", "bob", "eve", "root"]), ("/orgs", ["acme", "open"])):
        for direction in ("asc", "desc"):
            found, cursor = [], ""
            while True:
                query = f"limit=1&cursor={cursor}" if cursor else f"limit=1&sortdirection={direction}"
                answer = await w.ask("admin", "GET", f"{path}?{query}")
                found += [one.get("username") or one["name"] for one in answer.json()]
                cursor = answer.headers["x-agola-cursor"].replace("+", "%2B").replace("=", "%3D").replace("/", "%2F")
                if not cursor:
                    break
            assert found == (names if direction == "asc" else names[::-1])
    assert len(await w.done("admin", "GET", "/users?limit=0")) == 4


async def test_a_cursor_that_the_model_made_continues_a_list(w: ConfigWorld) -> None:
    for start, direction, names in (("bob", "asc", ["eve", "root"]), ("bob", "desc", ["ada"]), ("root", "asc", [])):
        text = json.dumps({"Start": start, "SortDirection": direction}, separators=(",", ":"))
        cursor = base64.b64encode(text.encode()).decode()
        page = await w.http.get(
            "http://gateway/api/v1alpha/users",
            params={"cursor": cursor, "limit": "2"},
            headers={"Authorization": f"token {w.tokens['admin']}"},
        )
        assert [one["username"] for one in page.json()] == names
        assert page.headers["x-agola-cursor"] == ""


async def test_a_wrong_page_is_refused(w: ConfigWorld) -> None:
    users = (await w.ask("admin", "GET", "/users?limit=1")).headers["x-agola-cursor"]
    forged = base64.b64encode(
        json.dumps({"Start": "a", "SortDirection": "up", "Of": "/api/v1alpha/users"}).encode()
    ).decode()
    await play(w, [
        ("admin", "GET", "/users?limit=-1", None, 400, "invalidLimit"),
        ("admin", "GET", "/users?limit=x", None, 400, "invalidLimit"),
        ("admin", "GET", "/users?limit=100", None, 200, wire.many(wire.PRIVATE_USER)),
        ("admin", "GET", "/users?sortdirection=up", None, 400, "invalidSortDirection"),
        ("admin", "GET", f"/users?cursor={users}&sortdirection=asc", None, 400, "invalidCursor"),
        ("admin", "GET", "/users?cursor=x", None, 400, "invalidCursor"),
        ("admin", "GET", f"/users?cursor={forged}", None, 400, "invalidCursor"),
        ("admin", "GET", f"/orgs?cursor={users}", None, 400, "invalidCursor"),
        ("ada", "GET", f"/orgs/acme/members?cursor={users}", None, 400, "invalidCursor"),
    ])  # fmt: skip


async def test_a_bad_body_is_400(w: ConfigWorld) -> None:
    headers = {"Authorization": f"token {w.tokens['ada']}"}
    for content in (b"", b"null", b"[]", b"7", b'"x"', b"{", b'{"name": 7}', b'{"name": "a", "name": "b"}', b"\xff"):
        answer = await w.http.post("http://gateway/api/v1alpha/orgs", content=content, headers=headers)
        assert answer.status_code == 400, content
        jsonschema.validate(answer.json(), wire.ERROR)
    ignored = {"name": "new", "visibility": "public", "further": {"x": None}}
    await play(w, [("ada", "POST", "/orgs", ignored, 201, wire.ORG)])


async def test_of_two_clients_that_create_the_same_name_at_once_one_is_refused(w: ConfigWorld) -> None:
    for path, body, code in (
        ("/orgs", {"name": "twice", "visibility": "public"}, "organizationAlreadyExists"),
        (
            "/projectgroups",
            {"name": "twice", "parent_ref": "org/acme", "visibility": "public"},
            "projectGroupAlreadyExists",
        ),
        (
            "/projects",
            {"name": "twice", "parent_ref": "org/acme", "visibility": "public", "repository": REPOSITORY},
            "projectAlreadyExists",
        ),
        ("/users/ada/tokens", {"token_name": "twice"}, "userTokenAlreadyExists"),
    ):
        answers = await asyncio.gather(*(w.ask("ada", "POST", path, body) for _ in range(4)))
        assert sorted(one.status_code for one in answers) == [201, 400, 400, 400]
        assert {one.json()[0]["code"] for one in answers if one.is_error} == {code}


async def test_a_change_is_seen_where_its_position_is_asked_for(w: ConfigWorld) -> None:
    changed = await w.ask("ada", "POST", "/orgs", {"name": "new", "visibility": "public"})
    position = changed.headers["runstream-config-position"]
    seen = await w.ask("ada", "GET", "/orgs/new", headers={"Runstream-Config-Position": position})
    assert seen.status_code == 200
    wrong = await w.ask("ada", "GET", "/orgs/new", headers={"Runstream-Config-Position": "x"})
    assert wrong.status_code == 400

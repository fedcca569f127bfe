"""Every route that clients of the model know: it is there, and asks for a login where the model does.

The routes that reach git hosts (linked accounts, remote repositories, webhooks, deliveries, logins with a password)
are not there yet, and not in this table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from runstream.domain.config.permissions import Action
from runstream.gateway.access import LOGIN, LoginNeed
from tests.gateway.config_world import ConfigWorld, config_world

RUNS = tuple(
    (method, f"/{owner}/{{ref}}/runs{below}", need)
    for owner in ("projects", "users")
    for method, below, need in (
        ("GET", "", "F"),
        ("GET", "/{number}", "O"),
        ("PUT", "/{number}/actions", "F"),
        ("GET", "/{number}/tasks/{task}", "O"),
        ("PUT", "/{number}/tasks/{task}/actions", "F"),
        ("GET", "/{number}/tasks/{task}/logs", "O"),
        ("DELETE", "/{number}/tasks/{task}/logs", "F"),
    )
)
INHERITED = tuple(
    (method, f"/{place}/{{ref}}/{kind}{below}", "F")
    for place in ("projects", "projectgroups")
    for kind in ("secrets", "variables")
    for method, below in (("GET", ""), ("POST", ""), ("PUT", "/{name}"), ("DELETE", "/{name}"))
)
TABLE = (
    ("GET", "/projectgroups/{group}", "F"),
    ("GET", "/projectgroups/{group}/subgroups", "F"),
    ("GET", "/projectgroups/{group}/projects", "F"),
    ("POST", "/projectgroups", "F"),
    ("PUT", "/projectgroups/{group}", "F"),
    ("DELETE", "/projectgroups/{group}", "F"),
    ("GET", "/projects/{project}", "O"),
    ("POST", "/projects", "F"),
    ("PUT", "/projects/{project}", "F"),
    ("DELETE", "/projects/{project}", "F"),
    ("POST", "/projects/{project}/createrun", "F"),
    *RUNS,
    *INHERITED,
    ("GET", "/user", "F"),
    ("GET", "/users/{user}", "F"),
    ("GET", "/users", "F"),
    ("POST", "/users", "F"),
    ("DELETE", "/users/{user}", "F"),
    ("POST", "/user/createrun", "F"),
    ("GET", "/user/orgs", "F"),
    ("GET", "/user/org_invitations", "F"),
    ("PUT", "/user/org_invitations/{org}/actions", "F"),
    ("POST", "/users/{user}/linkedaccounts", "F"),
    ("DELETE", "/users/{user}/linkedaccounts/{account}", "F"),
    ("POST", "/auth/login", "N"),
    ("POST", "/auth/authorize", "N"),
    ("POST", "/auth/register", "N"),
    ("GET", "/auth/oauth2/callback", "N"),
    ("GET", "/user/remoterepos/{source}", "F"),
    ("POST", "/users/{user}/tokens", "F"),
    ("DELETE", "/users/{user}/tokens/{name}", "F"),
    ("GET", "/remotesources", "N"),
    ("GET", "/remotesources/{source}", "F"),
    ("POST", "/remotesources", "F"),
    ("PUT", "/remotesources/{source}", "F"),
    ("DELETE", "/remotesources/{source}", "F"),
    ("GET", "/orgs", "F"),
    ("GET", "/orgs/{org}", "F"),
    ("POST", "/orgs", "F"),
    ("PUT", "/orgs/{org}", "F"),
    ("DELETE", "/orgs/{org}", "F"),
    ("GET", "/orgs/{org}/members", "F"),
    ("PUT", "/orgs/{org}/members/{user}", "F"),
    ("DELETE", "/orgs/{org}/members/{user}", "F"),
    ("GET", "/orgs/{org}/invitations", "F"),
    ("POST", "/orgs/{org}/invitations", "F"),
    ("GET", "/orgs/{org}/invitations/{user}", "F"),
    ("DELETE", "/orgs/{org}/invitations/{user}", "F"),
    ("GET", "/badges/{project}", "N"),
    ("GET", "/version", "N"),
)
ADMIN_ONLY = (
    *((method, "/maintenance/{service}") for method in ("GET", "PUT", "DELETE")),
    ("GET", "/export/{service}"),
    ("POST", "/import/{service}"),
)
NEEDS = {"F": LoginNeed.REQUIRED, "O": LoginNeed.OPTIONAL, "N": LoginNeed.NONE}


@pytest.fixture
async def w() -> AsyncIterator[ConfigWorld]:
    async with config_world() as w:
        await w.user("ada")
        yield w


async def test_a_route_asks_for_a_login_where_the_model_does(w: ConfigWorld) -> None:
    for method, route, need in TABLE:
        assert LOGIN[method, route] is NEEDS[need], (method, route)
        path = route.replace("{number}", "1")
        for name in ("group", "project", "ref", "user", "org", "source", "task", "name", "account"):
            path = path.replace(f"{{{name}}}", "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11")
        body: dict[str, str] | None = {} if method in ("POST", "PUT") else None
        answer = await w.ask("", method, path, body)
        code = answer.json()[0]["code"] if answer.is_error else ""
        assert (answer.status_code == 401) is (need == "F"), (method, path, answer.text)
        assert code not in ("routeDoesNotExist", "methodNotAllowed"), (method, path)
        assert (code == "missingToken") is (need == "F"), (method, path)
        # A token that is not valid is refused also where none is needed, but not where none is looked at.
        refused = await w.ask("", method, path, body, headers={"Authorization": f"token {'x' * 40}"})
        assert (refused.status_code in (401, 429)) is (need != "N"), (method, path, refused.text)


def test_maintenance_export_and_import_are_for_administrators() -> None:
    for route in ADMIN_ONLY:
        assert LOGIN[route] is Action.MAINTAIN


async def test_a_body_that_is_not_json_of_an_object_is_400_on_every_route(w: ConfigWorld) -> None:
    await w.done("ada", "POST", "/orgs", {"name": "acme", "visibility": "public"})
    repository = {"url": "https://git.example.com/x.git"}
    await w.done("ada", "POST", "/projects", {"name": "web", "visibility": "public", "repository": repository})
    web = "/projects/user%2Fada%2Fweb"
    routes = (
        ("ada", "POST", "/projectgroups"),
        ("ada", "PUT", "/projectgroups/user%2Fada"),
        ("ada", "POST", "/projects"),
        ("ada", "PUT", web),
        ("ada", "POST", f"{web}/createrun"),
        ("ada", "POST", f"{web}/secrets"),
        ("ada", "PUT", f"{web}/secrets/x"),
        ("ada", "POST", f"{web}/variables"),
        ("ada", "PUT", f"{web}/variables/x"),
        ("admin", "POST", "/users"),
        ("ada", "POST", "/users/ada/tokens"),
        ("ada", "POST", "/user/createrun"),
        ("ada", "PUT", "/user/org_invitations/acme/actions"),
        ("admin", "POST", "/remotesources"),
        ("ada", "POST", "/orgs"),
        ("ada", "PUT", "/orgs/acme"),
        ("ada", "PUT", "/orgs/acme/members/ada"),
        ("ada", "POST", "/orgs/acme/invitations"),
    )
    for who, method, path in routes:
        for content in (b"", b"{", b"[]", b"7", b'"x"'):
            headers = {"Authorization": f"token {w.tokens[who]}"}
            answer = await w.http.request(method, f"http://gateway/api/v1alpha{path}", content=content, headers=headers)
            assert answer.status_code == 400, (method, path, content, answer.text)
            assert isinstance(answer.json(), list)

"""A cursor continues the list that it was taken from, with the same filters; any other list refuses it with 400."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from runstream.api import Cache
from tests.gateway.config_world import ConfigWorld, config_world
from tests.gateway.test_public_api import GITEA

UUID = "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"
FIRST_PAGES = {
    "/users": ("/users?limit=1", "/users?limit=1&sortdirection=desc"),
    "/orgs": ("/orgs?limit=1",),
    "/user/orgs": ("/user/orgs?limit=1",),
    "/orgs/{org}/members": ("/orgs/acme/members?limit=1", "/orgs/open/members?limit=1"),
    "/remotesources": ("/remotesources?limit=1",),
    "/audit": ("/audit?limit=1", "/audit?limit=1&user=ada", "/audit?limit=1&since=2020-01-01T00:00:00Z"),
    "/caches": (
        *("/caches?limit=1", "/caches?limit=1&group=a", "/caches?limit=1&group=a&prefix=k"),
        "/caches?limit=1&group=b",
    ),
}
"""For each route, lists of at least two entries."""
OF_RUNS = {"/runs", "/runs/group/{escaped_group}", "/projects/{ref}/runs", "/users/{ref}/runs"}
"""Routes whose own cursors test_owned_runs and test_reading_runs take; here they refuse those of the others."""


async def test_any_other_list_refuses_a_cursor() -> None:
    async with config_world() as w:
        project = await _filled(w)
        described = (await w.ask("admin", "GET", "/openapi.json")).json()
        assert set(_routes_with_cursors(described)) == {*FIRST_PAGES, *OF_RUNS}
        cursors = {}
        for lists in FIRST_PAGES.values():
            for one in lists:
                answer = await w.ask("root", "GET", one)
                assert answer.is_success, (one, answer.text)
                body = answer.json()
                cursors[one] = answer.headers.get("x-agola-cursor") or body["cursor"]
                assert cursors[one], one
        of_runs = (
            "/runs?",
            f"/runs/group/{quote('/project/x', safe='')}?",
            f"/projects/{project}/runs?",
            "/users/ada/runs?",
        )
        for taken, cursor in cursors.items():
            for other in (*cursors, *of_runs):
                asked = other.replace("&sortdirection=desc", "")
                if asked == taken.replace("&sortdirection=desc", ""):
                    continue
                answer = await w.ask("root", "GET", f"{asked}&cursor={quote(cursor, safe='')}")
                assert answer.status_code == 400, (taken, other, answer.text)
                assert answer.json()[0]["code"] == "invalidCursor", (taken, other, answer.text)
            again = await w.ask(
                "root", "GET", f"{taken.replace('&sortdirection=desc', '')}&cursor={quote(cursor, safe='')}"
            )
            assert again.is_success, (taken, again.text)


async def _filled(w: ConfigWorld) -> str:
    for name in ("ada", "bob", "root"):
        await w.user(name)
    await w.done("admin", "PUT", "/users/root", {"admin": True})
    for name in ("acme", "open"):
        await w.done("root", "POST", "/orgs", {"name": name, "visibility": "public"})
        await w.done("root", "PUT", f"/orgs/{name}/members/bob", {"role": "member"})
    for name in ("git", "git2"):
        await w.done("admin", "POST", "/remotesources", {**GITEA, "name": name})
    for name in ("one", "two"):
        await w.done("ada", "POST", "/projectgroups", {"name": name, "parent_ref": "", "visibility": "public"})
    w.world.caches.found = [
        Cache(group, key, 7, datetime(2026, 1, 2, tzinfo=UTC)) for group in ("a", "b") for key in ("k1", "k2")
    ]
    new = {"name": "site", "parent_ref": "", "visibility": "public", "repository": {"url": "https://git.example.com/x"}}
    return str((await w.done("ada", "POST", "/projects", new))["id"])


def _routes_with_cursors(described: dict[str, Any]) -> Iterator[str]:
    for path, methods in described["paths"].items():
        if any(one["name"] == "cursor" for one in methods.get("get", {}).get("parameters", ())):
            yield path.removeprefix("/api/v1alpha")

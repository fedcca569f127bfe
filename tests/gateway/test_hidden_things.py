"""To a stranger, a private thing of an organization reads like a missing one: the same status, the same body."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from runstream.gateway.access import LOGIN
from tests.gateway.config_world import ConfigWorld, config_world

REPOSITORY = {"url": "https://git.example.com/site.git"}
BADGES = "/badges/{project}"
"""Badges of private projects are for everyone, as existing clients know it."""
ELSEWHERE: dict[str, str] = {
    "user": "ada",
    "name": "deploy",
    "number": "1",
    "task": "t",
    "account": "x",
    "source": "x",
    "service": "config",
    "run_id": "x",
    "task_id": "x",
    "session_id": "x",
    "executor_id": "x",
    "instance_id": "x",
}


def new_project(name: str, parent: str, visibility: str) -> dict[str, Any]:
    return {"name": name, "parent_ref": parent, "visibility": visibility, "repository": REPOSITORY}


async def world_with_hidden_things(w: ConfigWorld) -> dict[str, list[str]]:
    """Make a private organization, and private things in a public one; return references to them and below them."""
    for name in ("ada", "eve"):
        await w.user(name)
    for name, visibility in (("acme", "private"), ("open", "public")):
        await w.done("ada", "POST", "/orgs", {"name": name, "visibility": visibility})
        for group, seen in (("web", "public"), ("lab", "private")):
            parent = {"name": group, "parent_ref": f"org/{name}", "visibility": seen}
            await w.done("ada", "POST", "/projectgroups", parent)
            await w.done("ada", "POST", "/projects", new_project("site", f"org/{name}/{group}", "public"))
        await w.done("ada", "POST", "/projects", new_project("plan", f"org/{name}", "private"))
    state = w.store.state
    org = state.named("org", "", "acme") or ""
    hidden_group = state.named("projectgroup", state.root_group(state.named("org", "", "open") or "").id, "lab") or ""
    hidden_project = state.named("project", hidden_group, "site") or ""
    root = state.root_group(org).id
    return {
        "orgs": ["acme", org],
        "projectgroups": [
            *("org/acme", "org/acme/web", "org/acme/nothing", "org/acme/web/nothing", "org/open/lab"),
            *("org/open/lab/nothing", root, hidden_group),
        ],
        "projects": [
            *("org/acme/plan", "org/acme/web/site", "org/acme/web/nothing", "org/acme/nothing/x", "org/open/plan"),
            *("org/open/lab/site", "org/open/lab/nothing", hidden_project),
        ],
    }


def requests_about(references: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Return a request of each route for each reference that its path takes, and for those that queries take."""
    found = []
    for method, route in LOGIN:
        kind = route.split("/")[1]
        if kind not in references or route == BADGES or "{" not in route:
            continue
        for reference in references[kind]:
            first, rest = re.sub(r"{(org|group|project|ref)}", quote(reference, safe=""), route, count=1), ELSEWHERE
            path = re.sub(r"{(\w+)(:path)?}", lambda found, rest=rest: rest[found[1]], first)  # type: ignore[misc]
            found.append((method, path))
    for project in references["projects"]:
        found.append(("GET", f"/audit?project={quote(project, safe='')}"))
        if "/" not in project:
            found += [
                ("GET", f"/runs?group=/project/{project}"),
                ("GET", f"/runs/group/{quote(f'/project/{project}/branch/main', safe='')}"),
                ("GET", f"/events?group=/project/{project}"),
            ]
    return found


async def test_a_stranger_cannot_tell_hidden_things_from_missing_ones() -> None:
    async with config_world() as w:
        asked = requests_about(await world_with_hidden_things(w))
        hidden = {one: await w.ask("eve", *one, {} if one[0] in ("PUT", "POST") else None) for one in asked}
        await w.done("ada", "DELETE", "/orgs/acme")
        await w.done("ada", "DELETE", "/projects/org%2Fopen%2Fplan")
        await w.done("ada", "DELETE", "/projectgroups/org%2Fopen%2Flab")
        compared = 0
        for one in asked:
            missing = await w.ask("eve", *one, {} if one[0] in ("PUT", "POST") else None)
            # Clients know 400 and 403 for changes of what a stranger does not own, and for invitations.
            if one[0] == "GET" and "/invitations" not in one[1]:
                assert (hidden[one].status_code, hidden[one].text) == (missing.status_code, missing.text), one
                compared += 1
        assert compared > 100


async def test_the_past_of_hidden_things_reads_like_that_of_missing_ones() -> None:
    async with config_world() as w:
        before = str(w.store.position)
        references = await world_with_hidden_things(w)
        now = str(w.store.position)
        asked = [one for one in requests_about(references) if one[0] == "GET" and "?" not in one[1]]
        compared = 0
        for method, path in asked:
            then = await w.ask("eve", method, f"{path}?at={quote(now, safe='')}")
            if then.status_code == 400 and then.json()[0]["code"] == "unknownParameter":
                continue
            missing = await w.ask("eve", method, f"{path}?at={quote(before, safe='')}")
            if path.split("/")[2].startswith("org%2Fopen"):
                continue  # the organization itself did not exist then
            assert (then.status_code, then.text) == (missing.status_code, missing.text), path
            compared += 1
        assert compared > 20

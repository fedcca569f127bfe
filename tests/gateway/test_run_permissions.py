"""Who may see runs, act on them and create them, over HTTP: it follows from the group root of a run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest

from runstream.api import Cache
from runstream.events.run import RunArchived, RunCancelled, RunDeleted
from runstream.gateway.access import LOGIN
from runstream.log.runs import locate_run
from tests.gateway.config_world import ConfigWorld, config_world
from tests.gateway.world import run_body

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SENDERS = ("", "stranger", "member", "owner", "reader", "root", "admin")
PLACES = ("open", "hidden", "helped", "direct", "ad hoc")
SEES = {
    "open": set(SENDERS),
    "hidden": {"member", "owner", "reader", "root", "admin"},
    "helped": {"member", "owner", "reader", "root", "admin"},
    "direct": {"owner", "reader", "root", "admin"},
    "ad hoc": {"root", "admin"},
}
OWNS = {
    "open": {"owner", "root", "admin"},
    "hidden": {"owner", "root", "admin"},
    "helped": {"owner", "root", "admin"},
    "direct": {"owner", "root", "admin"},
    "ad hoc": {"root", "admin"},
}
ACTS = {**OWNS, "helped": {"owner", "member", "root", "admin"}}
"""`helped` is a project that lets members act on its runs. `reader` is the owner with a token that only reads."""


class Runs(ConfigWorld):
    """A run of each place."""

    runs: dict[str, str]
    groups: dict[str, str]


@pytest.fixture
async def w() -> AsyncIterator[Runs]:
    async with config_world() as made:
        w = Runs(made.world, made.store, made.log, made.http, made.tokens)
        users = {name: await w.user(name) for name in ("stranger", "member", "owner", "root")}
        await w.done("admin", "PUT", "/users/root", {"admin": True})
        new = {"token_name": "reading", "scope": "read"}
        w.tokens["reader"] = (await w.done("owner", "POST", "/users/owner/tokens", new))["token"]
        await w.done("owner", "POST", "/orgs", {"name": "acme", "visibility": "public"})
        await w.done("owner", "PUT", "/orgs/acme/members/member", {"role": "member"})
        w.groups = {"direct": f"/user/{users['owner']}/branch/main", "ad hoc": "/project/web/branch/main"}
        for name in ("open", "hidden", "helped"):
            project = {
                "name": name,
                "parent_ref": "org/acme",
                "visibility": "public" if name == "open" else "private",
                "repository": {"url": "https://git.example.com/x.git"},
                "members_can_perform_run_actions": name == "helped",
            }
            w.groups[name] = f"/project/{(await w.done('owner', 'POST', '/projects', project))['id']}/branch/main"
        w.runs = {}
        for name, group in w.groups.items():
            created = await w.done("admin", "POST", "/runs", run_body(group=group))
            w.runs[name] = created["run"]["id"]
        yield w


READS = (
    "/runs/{run}",
    "/runs/{run}/history",
    "/runs/{run}/diff?vs={run}",
    "/runs/{run}/restart/preview",
    "/runs/{run}/failures",
    "/logs?runid={run}&taskid={task}&step=0",
    "/logs/lines?runid={run}&taskid={task}&step=0",
    "/runs/group/{group}",
)


async def test_a_run_does_not_exist_for_those_who_may_not_see_it(w: Runs) -> None:
    task = "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"
    for place in PLACES:
        group = w.groups[place].replace("/", "%2F")
        for path in READS:
            for who in SENDERS:
                answer = await w.ask(who, "GET", path.format(run=w.runs[place], task=task, group=group))
                codes = {one["code"] for one in answer.json()} if answer.is_error else set()
                hidden = answer.status_code == 404 and codes <= {"runDoesNotExist", "projectDoesNotExist"}
                assert hidden is (who not in SEES[place]), (place, path, who, answer.text)


async def test_a_run_was_deleted_for_those_who_could_see_it(w: Runs) -> None:
    for place in PLACES:
        address = await locate_run(w.world.log, w.runs[place])
        await w.world.append(address, RunCancelled(""), RunArchived(), RunDeleted(""))
        for who in SENDERS:
            answer = await w.ask(who, "GET", f"/runs/{address.id}")
            expected = "runDeleted" if who in SEES[place] else "runDoesNotExist"
            assert (answer.status_code, answer.json()[0]["code"]) == (404, expected), (place, who, answer.text)
            past = await w.ask(who, "GET", f"/runs/{address.id}/history")
            assert past.status_code == (200 if who in SEES[place] else 404), (place, who, past.text)


async def test_only_those_who_may_act_on_a_run_do(w: Runs) -> None:
    for place in PLACES:
        for who in SENDERS:
            answer = await w.ask(who, "PUT", f"/runs/{w.runs[place]}/actions", {"action_type": "pause"})
            await w.ask("admin", "PUT", f"/runs/{w.runs[place]}/actions", {"action_type": "resume"})
            assert answer.status_code == _expected(place, who, ACTS), (place, who, answer.text)
            answer = await w.ask(who, "DELETE", f"/runs/{w.runs[place]}")
            expected = _expected(place, who, OWNS)
            assert answer.status_code == (409 if expected == 200 else expected), (place, who, answer.text)


async def test_a_task_is_approved_by_an_owner_who_is_logged_in_as_a_user(w: Runs) -> None:
    """The admin token approves only in runs that no project or user owns, where there is nobody else."""
    for place in PLACES:
        path = f"/runs/{w.runs[place]}/tasks/gone/actions"
        for who in SENDERS:
            answer = await w.ask(who, "PUT", path, {"action_type": "approve"})
            may = who in OWNS[place] and (who != "admin" or place == "ad hoc")
            assert (answer.json()[0]["code"] == "runTaskDoesNotExist") is may, (place, who, answer.text)
            expected = 404 if may or who not in SEES[place] else 403
            assert answer.status_code == (expected if who else 401), (place, who, answer.text)


async def test_only_those_who_may_create_runs_do(w: Runs) -> None:
    for place in PLACES:
        for who in SENDERS:
            answer = await w.ask(who, "POST", "/runs", run_body(group=w.groups[place]))
            expected = _expected(place, who, OWNS)
            assert answer.status_code == (201 if expected == 200 else expected), (place, who, answer.text)
            file = {"config": {"name": "config.yml", "content": "runs: []"}, "group": w.groups[place]}
            answer = await w.ask(who, "POST", "/createruns", file)
            assert (answer.status_code in (401, 403, 404)) is (expected != 200), (place, who, answer.text)


def _expected(place: str, who: str, allowed: dict[str, set[str]]) -> int:
    if not who:
        return 401
    if who not in SEES[place]:
        return 404
    return 200 if who in allowed[place] else 403


async def test_members_may_repeat_a_run_but_not_change_it(w: Runs) -> None:
    again = {"run_id": w.runs["helped"], "from_start": True}
    assert (await w.ask("member", "POST", "/runs", again)).status_code != 403
    changed = await w.ask("member", "POST", "/runs", {**again, "environment": {"BASH_ENV": "x"}})
    assert changed.status_code == 403


async def test_a_run_shares_the_caches_of_those_for_whom_its_sender_may_create_runs(w: Runs) -> None:
    direct = w.groups["direct"].removesuffix("/branch/main")
    elsewhere = (await w.done("stranger", "GET", "/user"))["id"]
    config = {"name": "config.yml", "content": "runs: [{name: r, tasks: [{name: t, runtime: {type: host}}]}]"}
    shared = {
        direct: {"owner", "root", "admin"},
        w.groups["hidden"]: {"owner", "root", "admin"},
        f"/user/{elsewhere}": {"root", "admin"},
        "/project/web": {"root", "admin"},
        "anything": {"root", "admin"},
    }
    for cache_group, may in shared.items():
        for who in ("owner", "root", "admin"):
            body = run_body(group=w.groups["open"], cache_group=cache_group)
            file = {"config": config, "group": w.groups["open"], "branch": "main", "cache_group": cache_group}
            for path, sent in (("/runs", body), ("/createruns", file)):
                answer = await w.ask(who, "POST", path, sent)
                assert answer.status_code == (201 if who in may else 403), (cache_group, who, answer.text)
                if who in may:
                    created = answer.json()["runs"][0] if path == "/createruns" else answer.json()
                    assert created["run_config"]["cache_group"] == cache_group
        if "owner" not in may:
            commit = {"branch": "main", "cache_group": cache_group}
            refused = await w.ask("owner", "POST", "/projects/org%2Facme%2Fopen/createrun", commit)
            assert (refused.status_code, "not yours to share" in refused.text) == (403, True)


async def test_caches_are_for_those_who_may_act_on_the_runs_of_their_group(w: Runs) -> None:
    clone = f"{w.groups['direct'].split('/')[2]}-0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"
    groups = {place: [group.removesuffix("/branch/main")] for place, group in w.groups.items()}
    groups["direct"].append(clone)
    groups["ad hoc"] += ["anything", f"{w.runs['open']}-{w.runs['open']}"]  # no user has this id
    for place, group in ((place, group) for place, found in groups.items() for group in found):
        for who in SENDERS:
            cache = Cache(group, "k", 7, CREATED)
            w.world.caches.found = [cache, Cache("other", "k", 7, CREATED)]
            expected = _expected(place, who, ACTS)
            answer = await w.ask(who, "GET", f"/caches?{urlencode({'group': group})}")
            assert answer.status_code == expected, (group, who, answer.text)
            assert answer.is_error or [one["group"] for one in answer.json()["caches"]] == [group]
            answer = await w.ask(who, "DELETE", f"/caches?{urlencode({'group': group, 'key': 'k'})}")
            assert answer.status_code == (204 if expected == 200 else expected), (group, who, answer.text)
            assert (cache in w.world.caches.found) is (expected != 200)
    for who in SENDERS:
        answer = await w.ask(who, "GET", "/caches")
        assert answer.status_code == (200 if who in ("root", "admin") else 403 if who else 401), (who, answer.text)
        assert answer.status_code != 403 or "name a group" in answer.text


async def test_a_list_has_the_runs_that_its_reader_may_see(w: Runs) -> None:
    projects = {name: group.removesuffix("/branch/main") for name, group in w.groups.items()}
    for who, names in (("owner", {"open", "hidden", "helped", "direct"}), ("member", {"open", "hidden", "helped"})):
        w.world.reads.queries.clear()
        await w.done(who, "GET", "/runs")
        (query,) = w.world.reads.queries
        own = {*query.groups} - {f"/user/{user.id}" for user in w.store.state.users.values()}
        assert own | ({projects["direct"]} & {*query.groups}) == {projects[name] for name in names}
    assert (await w.ask("stranger", "GET", f"/runs?group={projects['hidden']}")).status_code == 404
    assert (await w.ask("stranger", "GET", "/runs?group=/project")).status_code == 404
    assert (await w.ask("stranger", "GET", f"/runs?group={projects['open']}")).status_code == 200


async def test_the_author_of_a_commit_is_the_user(w: Runs) -> None:
    created = await w.done("owner", "POST", "/runs", run_body(group=w.groups["direct"]))
    await w.done("root", "PUT", f"/runs/{created['run']['id']}/actions", {"action_type": "pause"})
    texts = [message.data for stream in w.world.log.streams for message in stream.messages]
    assert sum(b"user:owner" in text for text in texts) >= 1
    assert sum(b"user:root" in text for text in texts) == 1


_OF_SERVICE = ("/maintenance", "/export", "/import", "/epochs", "/storage", "/health", "/fsck", "/parked")
"""Routes that a whole service adds to the gateway."""


async def test_what_is_about_the_deployment_is_for_administrators(w: Runs) -> None:
    for (method, path), need in LOGIN.items():
        if not hasattr(need, "value") or path.startswith(_OF_SERVICE):
            continue
        if need.__class__.__name__ != "Action":
            continue
        named = path.format(executor_id="e1")
        assert (await w.ask("", method, named)).status_code == 401, path
        assert (await w.ask("owner", method, named)).status_code == 403, path
        assert (await w.ask("root", method, named)).status_code not in (401, 403), path
    for who, status in (("", 401), ("owner", 403)):
        assert (await w.ask(who, "GET", "/events")).status_code == status
    assert (await w.ask("", "GET", "/runs/events")).status_code == 401


async def test_a_user_of_many_projects_lists_their_runs(w: Runs) -> None:
    for number in range(110):
        project = {"name": f"p{number}", "parent_ref": "org/acme", "visibility": "private"}
        repository = {"repository": {"url": "https://git.example.com/x.git"}}
        await w.done("owner", "POST", "/projects", project | repository)
    await w.done("member", "GET", "/runs")
    assert len(w.world.reads.queries[-1].groups) == 114

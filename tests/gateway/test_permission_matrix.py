"""Every route, for each of the six relations that a sender can have to a thing: who is refused, and with which status.

The thing is of a private organization. A new route without a row here fails.
"""

from __future__ import annotations

import pytest

from runstream.domain.config.permissions import Action
from runstream.gateway.access import LOGIN, LoginNeed
from tests.gateway.config_world import ConfigWorld, config_world
from tests.gateway.world import run_body

SENDERS = ("", "stranger", "member", "owner", "root", "admin")
"""Anonymous, stranger, member, owner, administrator, and the admin token."""
ANY = (0, 0, 0, 0, 0, 0)
"""Of each sender the status of the refusal; 0 for none."""
LOGGED_IN = (401, 0, 0, 0, 0, 0)
USERS = (401, 0, 0, 0, 0, 403)
SEEN = (401, 404, 0, 0, 0, 0)
SEEN_OPTIONALLY = (403, 404, 0, 0, 0, 0)
OWNERS = (401, 403, 403, 0, 0, 0)
OWNING_USERS = (401, 403, 403, 0, 0, 403)
ADMINS = (401, 403, 403, 403, 0, 0)
OWN = (401, 400, 400, 0, 0, 0)
RUN = (404, 404, 0, 0, 0, 0)
ACTS = (401, 404, 403, 0, 0, 0)
NOT_DIRECT = (401, 403, 403, 0, 0, 0)
NOT_DIRECT_OPTIONALLY = (403, 403, 403, 0, 0, 0)
RUN_CREATION = (401, 404, 403, 0, 0, 0)
GROUP, PROJECT = "/projectgroups/org%2Facme%2Fweb", "/projects/org%2Facme%2Fweb%2Fsite"
REPOSITORY = {"url": "https://git.example.com/x.git"}
SECRET = {"name": "s", "type": "internal", "data": {"k": "v"}}
VARIABLE = {"name": "v", "values": [{"secret_name": "deploy", "secret_var": "k"}]}
SOURCE = {"name": "gitea", "apiurl": "https://gitea.example", "type": "gitea", "auth_type": "password"}
CREATED_RUNS = {"config": {"name": "config.yml", "content": "runs: []"}}
UUID = "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"
Row = tuple[tuple[int, ...], str, object]
"""Refusals, the path of the request (empty: as the route is), its body."""

ROWS: dict[tuple[str, str], Row] = {
    ("GET", "/user"): (USERS, "", None),
    ("GET", "/users"): ((401, 401, 401, 401, 0, 0), "", None),
    ("POST", "/users"): (ADMINS, "", {"username": "new"}),
    ("GET", "/users/{user}"): (LOGGED_IN, "/users/owner", None),
    ("PUT", "/users/{user}"): (ADMINS, "/users/owner", {"username": "renamed"}),
    ("DELETE", "/users/{user}"): (ADMINS, "/users/stranger", None),
    ("GET", "/users/{user}/tokens"): (OWN, "/users/owner/tokens", None),
    ("POST", "/users/{user}/tokens"): (OWN, "/users/owner/tokens", {"token_name": "x"}),
    ("DELETE", "/users/{user}/tokens/{name}"): (OWN, "/users/owner/tokens/test", None),
    ("POST", "/users/{user}/linkedaccounts"): ((401, 400, 400, 0, 403, 403), "/users/owner/linkedaccounts", {}),
    ("DELETE", "/users/{user}/linkedaccounts/{account}"): (OWN, f"/users/owner/linkedaccounts/{UUID}", None),
    ("GET", "/user/orgs"): (USERS, "", None),
    ("GET", "/user/remoterepos/{source}"): (USERS, "/user/remoterepos/none", None),
    ("GET", "/user/org_invitations"): (USERS, "", None),
    ("PUT", "/user/org_invitations/{org}/actions"): (
        USERS,
        "/user/org_invitations/acme/actions",
        {"action_type": "accept"},
    ),
    ("GET", "/orgs"): (LOGGED_IN, "", None),
    ("POST", "/orgs"): (LOGGED_IN, "", {"name": "new", "visibility": "public"}),
    ("GET", "/orgs/{org}"): (SEEN, "/orgs/acme", None),
    ("PUT", "/orgs/{org}"): (OWNERS, "/orgs/acme", {"visibility": "public"}),
    ("DELETE", "/orgs/{org}"): (OWNERS, "/orgs/acme", None),
    ("GET", "/orgs/{org}/members"): (SEEN, "/orgs/acme/members", None),
    ("PUT", "/orgs/{org}/members/{user}"): (OWNERS, "/orgs/acme/members/stranger", {"role": "member"}),
    ("DELETE", "/orgs/{org}/members/{user}"): (OWNERS, "/orgs/acme/members/member", None),
    ("GET", "/orgs/{org}/invitations"): (OWNING_USERS, "/orgs/acme/invitations", None),
    ("POST", "/orgs/{org}/invitations"): (
        (401, 400, 400, 400, 400, 400),
        "/orgs/acme/invitations",
        {"user_ref": "stranger", "role": "member"},
    ),
    ("GET", "/orgs/{org}/invitations/{user}"): (OWNING_USERS, "/orgs/acme/invitations/root", None),
    ("DELETE", "/orgs/{org}/invitations/{user}"): (OWNING_USERS, "/orgs/acme/invitations/root", None),
    ("POST", "/projectgroups"): (OWNING_USERS, "", {"name": "n", "parent_ref": "org/acme", "visibility": "public"}),
    ("GET", "/projectgroups/{group}"): (SEEN, GROUP, None),
    ("PUT", "/projectgroups/{group}"): (OWNERS, GROUP, {"name": "renamed"}),
    ("DELETE", "/projectgroups/{group}"): (OWNERS, GROUP, None),
    ("GET", "/projectgroups/{group}/subgroups"): (SEEN, f"{GROUP}/subgroups", None),
    ("GET", "/projectgroups/{group}/projects"): (SEEN, f"{GROUP}/projects", None),
    ("POST", "/projects"): (
        (401, 403, 403, 0, 0, 400),
        "",
        {"name": "n", "parent_ref": "org/acme", "visibility": "public", "repository": REPOSITORY},
    ),
    ("GET", "/projects/{project}"): (SEEN_OPTIONALLY, PROJECT, None),
    ("PUT", "/projects/{project}"): (OWNERS, PROJECT, {"name": "renamed"}),
    ("DELETE", "/projects/{project}"): (OWNERS, PROJECT, None),
    **{
        (method, f"/{kind}/{{ref}}/{things}{'' if method in ('GET', 'POST') else '/{name}'}"): (
            SEEN if method == "GET" else OWNERS,
            f"{place}/{things}{'' if method in ('GET', 'POST') else '/none'}",
            None if method in ("GET", "DELETE") else body,
        )
        for kind, place in (("projects", PROJECT), ("projectgroups", GROUP))
        for things, body in (("secrets", SECRET), ("variables", VARIABLE))
        for method in ("GET", "POST", "PUT", "DELETE")
    },
    ("GET", "/audit"): (LOGGED_IN, "", None),
    ("POST", "/auth/login"): (ANY, "", {}),
    ("POST", "/auth/authorize"): (ANY, "", {}),
    ("POST", "/auth/register"): (ANY, "", {}),
    ("GET", "/auth/oauth2/callback"): (ANY, "", None),
    ("POST", "/auth/loginlink"): (LOGGED_IN, "", {}),
    ("POST", "/auth/session"): ((401,) * 6, "", {}),
    ("GET", "/auth/session"): (LOGGED_IN, "", None),
    ("DELETE", "/auth/session"): (LOGGED_IN, "", None),
    ("GET", "/auth/sessions"): (LOGGED_IN, "", None),
    ("DELETE", "/auth/sessions/{session_id}"): (LOGGED_IN, f"/auth/sessions/{UUID}", None),
    ("GET", "/remotesources"): (ANY, "", None),
    ("POST", "/remotesources"): (ADMINS, "", SOURCE),
    ("GET", "/remotesources/{source}"): (LOGGED_IN, "/remotesources/none", None),
    ("PUT", "/remotesources/{source}"): (ADMINS, "/remotesources/none", {}),
    ("DELETE", "/remotesources/{source}"): (ADMINS, "/remotesources/none", None),
    ("POST", "/projects/{project}/createrun"): (OWNING_USERS, f"{PROJECT}/createrun", {"branch": "main"}),
    ("POST", "/user/createrun"): (USERS, "", {"repo_path": "x"}),
    ("GET", "/badges/{project}"): (ANY, "/badges/org%2Facme%2Fweb%2Fsite", None),
    **{
        (method, f"/{owners}/{{ref}}/runs{below}"): (refusals, f"{place}/runs{path}", body)
        for owners, place, refused in (
            ("projects", PROJECT, (SEEN, SEEN_OPTIONALLY, OWNERS, OWNING_USERS)),
            ("users", "/users/owner", (NOT_DIRECT, NOT_DIRECT_OPTIONALLY, OWNERS, OWNING_USERS)),
        )
        for method, below, path, refusals, body in (
            ("GET", "", "", refused[0], None),
            ("GET", "/{number}", "/1", refused[1], None),
            ("PUT", "/{number}/actions", "/1/actions", refused[2], {"action_type": "stop"}),
            ("GET", "/{number}/tasks/{task}", f"/1/tasks/{UUID}", refused[1], None),
            (
                "PUT",
                "/{number}/tasks/{task}/actions",
                f"/1/tasks/{UUID}/actions",
                refused[3],
                {"action_type": "approve"},
            ),
            ("GET", "/{number}/tasks/{task}/logs", f"/1/tasks/{UUID}/logs?step=0", refused[1], None),
            ("DELETE", "/{number}/tasks/{task}/logs", f"/1/tasks/{UUID}/logs?step=0", refused[2], None),
        )
    },
    ("POST", "/runs"): (RUN_CREATION, "", {}),
    ("POST", "/createruns"): (RUN_CREATION, "", {}),
    ("GET", "/runs"): (LOGGED_IN, "", None),
    ("GET", "/flaky"): (LOGGED_IN, "", None),
    **{
        ("GET", path): (RUN, path.replace("{escaped_group:path}", "ESCAPED").replace("{run_id}", "RUN"), None)
        for path in (
            *("/groups/{escaped_group:path}", "/runs/group/{escaped_group:path}", "/runs/{run_id}"),
            *("/runs/{run_id}/history", "/runs/{run_id}/diff", "/runs/{run_id}/restart/preview", "/runs/{run_id}/why"),
            "/runs/{run_id}/failures",
        )
    },
    ("GET", "/caches"): (ACTS, "/caches?group=ESCAPED", None),
    ("DELETE", "/caches"): (ACTS, "/caches?group=ESCAPED&key=none", None),
    ("DELETE", "/runs/{run_id}"): (ACTS, "/runs/RUN", None),
    ("PUT", "/runs/{run_id}/actions"): (ACTS, "/runs/RUN/actions", {"action_type": "stop"}),
    ("PUT", "/runs/{run_id}/tasks/{task_id}/actions"): (
        (401, 404, 403, 0, 0, 403),
        f"/runs/RUN/tasks/{UUID}/actions",
        {"action_type": "approve"},
    ),
    **{
        ("GET", path): (RUN, f"{path}?runid=RUN&taskid={UUID}&step=0{more}", None)
        for path, more in (("/logs", ""), ("/logs/lines", ""), ("/logs/search", "&q=x"))
    },
}
"""By method and path."""
STREAMS = {("GET", "/events"), ("GET", "/runs/events")}
"""Streams without an end: tests/gateway/test_streams.py and test_run_permissions.py have their senders."""
HIDDEN = {"organizationDoesNotExist", "projectGroupDoesNotExist", "projectDoesNotExist", "userDoesNotExist"}
HIDDEN |= {"runDoesNotExist"}


async def made_world(w: ConfigWorld) -> tuple[str, str]:
    """Make the users and the organization; return a run of its project, and the run's group."""
    for name in SENDERS[1:5]:
        await w.user(name)
    await w.done("admin", "PUT", "/users/root", {"admin": True})
    await w.done("owner", "POST", "/orgs", {"name": "acme", "visibility": "private"})
    await w.done("owner", "PUT", "/orgs/acme/members/member", {"role": "member"})
    await w.done("owner", "POST", "/projectgroups", {"name": "web", "parent_ref": "org/acme", "visibility": "public"})
    new = {"name": "site", "parent_ref": "org/acme/web", "visibility": "public", "repository": REPOSITORY}
    project = await w.done("owner", "POST", "/projects", new)
    await w.done("owner", "POST", f"{PROJECT}/secrets", {"name": "deploy", "type": "internal", "data": {"k": "v"}})
    group = f"/project/{project['id']}/branch/main"
    return (await w.done("admin", "POST", "/runs", run_body(group=group)))["run"]["id"], group


def test_every_route_has_a_row_or_is_decided_by_the_table_of_logins() -> None:
    by_table = {route for route, need in LOGIN.items() if isinstance(need, Action)}
    public = {("GET", "/version"), ("GET", "/openapi.json")}
    assert {*LOGIN} == {*ROWS} | STREAMS | by_table | public
    assert all(LOGIN[route] is LoginNeed.NONE for route in public)


@pytest.mark.parametrize(("method", "route"), ROWS, ids=lambda text: text)
async def test_who_is_refused_and_how(method: str, route: str) -> None:
    refusals, path, body = ROWS[method, route]
    found: dict[str, int] = {}
    harmless = [who for who, status in zip(SENDERS, refusals, strict=True) if status or method == "GET"]
    for senders in (harmless, *([who] for who in SENDERS if who not in harmless)):
        async with config_world() as w:
            run, group = await made_world(w)
            sent = (path or route).replace("RUN", run).replace("ESCAPED", group.replace("/", "%2F"))
            if method == "POST" and route in ("/runs", "/createruns"):
                body = run_body(group=group) if route == "/runs" else {**CREATED_RUNS, "group": group}
            for who in senders:
                answer = await w.ask(who, method, sent, body)
                code = answer.json()[0]["code"] if answer.is_error else ""
                code = "" if code == "runDoesNotExist" and "1" in sent.split("/") else code
                refused = answer.status_code in (401, 403) or code in HIDDEN or (answer.status_code == 400 and not code)
                found[who] = answer.status_code if refused or code == "cannotCreateInvitation" else 0
    assert tuple(found[who] for who in SENDERS) == refusals

"""Which routes need a login, and which sender may do what.

Each route of the application has an entry in LOGIN; a route without one answers nothing. An entry that is an action is
about the deployment. What a sender may do with the thing that a request names, the route asks of
`runstream.domain.config.permissions`, with the state on which it is decided.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, auto

from starlette.requests import Request

from runstream.domain.config.permissions import Action, require
from runstream.errors import InternalError, UnauthorizedError
from runstream.gateway.sender import Sender, sender_of

PREFIX = "/api/v1alpha"


class LoginNeed(Enum):
    """Whether a route needs a login."""

    NONE = auto()
    """Credentials are not looked at."""
    OPTIONAL = auto()
    """Public things are shown without a login, too."""
    REQUIRED = auto()


_CONFIG: Mapping[tuple[str, str], LoginNeed | Action] = {
    ("GET", "/user"): LoginNeed.REQUIRED,
    ("GET", "/users"): LoginNeed.REQUIRED,
    ("POST", "/users"): LoginNeed.REQUIRED,
    ("GET", "/users/{user}"): LoginNeed.REQUIRED,
    ("PUT", "/users/{user}"): LoginNeed.REQUIRED,
    ("DELETE", "/users/{user}"): LoginNeed.REQUIRED,
    ("GET", "/users/{user}/tokens"): LoginNeed.REQUIRED,
    ("POST", "/users/{user}/tokens"): LoginNeed.REQUIRED,
    ("DELETE", "/users/{user}/tokens/{name}"): LoginNeed.REQUIRED,
    ("POST", "/users/{user}/linkedaccounts"): LoginNeed.REQUIRED,
    ("DELETE", "/users/{user}/linkedaccounts/{account}"): LoginNeed.REQUIRED,
    ("GET", "/user/remoterepos/{source}"): LoginNeed.REQUIRED,
    ("GET", "/user/orgs"): LoginNeed.REQUIRED,
    ("GET", "/user/org_invitations"): LoginNeed.REQUIRED,
    ("PUT", "/user/org_invitations/{org}/actions"): LoginNeed.REQUIRED,
    ("GET", "/orgs"): LoginNeed.REQUIRED,
    ("POST", "/orgs"): LoginNeed.REQUIRED,
    ("GET", "/orgs/{org}"): LoginNeed.REQUIRED,
    ("PUT", "/orgs/{org}"): LoginNeed.REQUIRED,
    ("DELETE", "/orgs/{org}"): LoginNeed.REQUIRED,
    ("GET", "/orgs/{org}/members"): LoginNeed.REQUIRED,
    ("PUT", "/orgs/{org}/members/{user}"): LoginNeed.REQUIRED,
    ("DELETE", "/orgs/{org}/members/{user}"): LoginNeed.REQUIRED,
    ("GET", "/orgs/{org}/invitations"): LoginNeed.REQUIRED,
    ("POST", "/orgs/{org}/invitations"): LoginNeed.REQUIRED,
    ("GET", "/orgs/{org}/invitations/{user}"): LoginNeed.REQUIRED,
    ("DELETE", "/orgs/{org}/invitations/{user}"): LoginNeed.REQUIRED,
    ("POST", "/projectgroups"): LoginNeed.REQUIRED,
    ("GET", "/projectgroups/{group}"): LoginNeed.REQUIRED,
    ("PUT", "/projectgroups/{group}"): LoginNeed.REQUIRED,
    ("DELETE", "/projectgroups/{group}"): LoginNeed.REQUIRED,
    ("GET", "/projectgroups/{group}/subgroups"): LoginNeed.REQUIRED,
    ("GET", "/projectgroups/{group}/projects"): LoginNeed.REQUIRED,
    ("POST", "/projects"): LoginNeed.REQUIRED,
    ("GET", "/projects/{project}"): LoginNeed.OPTIONAL,
    ("PUT", "/projects/{project}"): LoginNeed.REQUIRED,
    ("DELETE", "/projects/{project}"): LoginNeed.REQUIRED,
    **{
        (method, f"/{place}/{kind}"): LoginNeed.REQUIRED
        for place in ("projects/{ref}", "projectgroups/{ref}")
        for kind in ("secrets", "variables")
        for method in ("GET", "POST")
    },
    **{
        (method, f"/{place}/{kind}/{{name}}"): LoginNeed.REQUIRED
        for place in ("projects/{ref}", "projectgroups/{ref}")
        for kind in ("secrets", "variables")
        for method in ("PUT", "DELETE")
    },
    ("GET", "/audit"): LoginNeed.REQUIRED,
    ("POST", "/auth/login"): LoginNeed.NONE,
    ("POST", "/auth/authorize"): LoginNeed.NONE,
    ("POST", "/auth/register"): LoginNeed.NONE,
    ("GET", "/auth/oauth2/callback"): LoginNeed.NONE,
    ("POST", "/auth/loginlink"): LoginNeed.REQUIRED,
    ("POST", "/auth/session"): LoginNeed.NONE,
    ("GET", "/auth/session"): LoginNeed.REQUIRED,
    ("DELETE", "/auth/session"): LoginNeed.REQUIRED,
    ("GET", "/auth/sessions"): LoginNeed.REQUIRED,
    ("DELETE", "/auth/sessions/{session_id}"): LoginNeed.REQUIRED,
    ("GET", "/remotesources"): LoginNeed.NONE,
    ("POST", "/remotesources"): LoginNeed.REQUIRED,
    ("GET", "/remotesources/{source}"): LoginNeed.REQUIRED,
    ("PUT", "/remotesources/{source}"): LoginNeed.REQUIRED,
    ("DELETE", "/remotesources/{source}"): LoginNeed.REQUIRED,
}
_COMMIT_RUNS: Mapping[tuple[str, str], LoginNeed | Action] = {
    ("POST", "/projects/{project}/createrun"): LoginNeed.REQUIRED,
    ("POST", "/user/createrun"): LoginNeed.REQUIRED,
    ("GET", "/badges/{project}"): LoginNeed.NONE,
    **{
        (method, f"/{owners}/{{ref}}/runs{below}"): login
        for owners in ("projects", "users")
        for method, below, login in (
            ("GET", "", LoginNeed.REQUIRED),
            ("GET", "/{number}", LoginNeed.OPTIONAL),
            ("PUT", "/{number}/actions", LoginNeed.REQUIRED),
            ("GET", "/{number}/tasks/{task}", LoginNeed.OPTIONAL),
            ("PUT", "/{number}/tasks/{task}/actions", LoginNeed.REQUIRED),
            ("GET", "/{number}/tasks/{task}/logs", LoginNeed.OPTIONAL),
            ("DELETE", "/{number}/tasks/{task}/logs", LoginNeed.REQUIRED),
        )
    },
}
_RUNS: Mapping[tuple[str, str], LoginNeed | Action] = {
    ("POST", "/runs"): LoginNeed.REQUIRED,
    ("POST", "/createruns"): LoginNeed.REQUIRED,
    ("GET", "/runs"): LoginNeed.REQUIRED,
    ("GET", "/flaky"): LoginNeed.REQUIRED,
    ("GET", "/groups/{escaped_group:path}"): LoginNeed.OPTIONAL,
    ("GET", "/runs/group/{escaped_group:path}"): LoginNeed.OPTIONAL,
    ("GET", "/runs/{run_id}"): LoginNeed.OPTIONAL,
    ("DELETE", "/runs/{run_id}"): LoginNeed.REQUIRED,
    ("GET", "/runs/{run_id}/history"): LoginNeed.OPTIONAL,
    ("GET", "/runs/{run_id}/diff"): LoginNeed.OPTIONAL,
    ("GET", "/runs/{run_id}/restart/preview"): LoginNeed.OPTIONAL,
    ("GET", "/runs/{run_id}/why"): LoginNeed.OPTIONAL,
    ("GET", "/runs/{run_id}/failures"): LoginNeed.OPTIONAL,
    ("PUT", "/runs/{run_id}/actions"): LoginNeed.REQUIRED,
    ("PUT", "/runs/{run_id}/tasks/{task_id}/actions"): LoginNeed.REQUIRED,
    ("GET", "/logs"): LoginNeed.OPTIONAL,
    ("GET", "/logs/lines"): LoginNeed.OPTIONAL,
    ("GET", "/logs/search"): LoginNeed.OPTIONAL,
    ("GET", "/events"): LoginNeed.REQUIRED,
    ("GET", "/runs/events"): LoginNeed.REQUIRED,
}
_SERVICE: Mapping[tuple[str, str], LoginNeed | Action] = {
    ("GET", "/caches"): LoginNeed.REQUIRED,
    ("DELETE", "/caches"): LoginNeed.REQUIRED,
    ("GET", "/storage"): Action.ADMINISTER,
    ("GET", "/health"): Action.ADMINISTER,
    ("POST", "/fsck"): Action.ADMINISTER,
    ("GET", "/fsck"): Action.ADMINISTER,
    ("GET", "/parked"): Action.ADMINISTER,
    ("GET", "/parked/skipped"): Action.ADMINISTER,
    ("PUT", "/parked/actions"): Action.ADMINISTER,
    ("GET", "/parked/{epoch}/{partition}/{sequence}"): Action.ADMINISTER,
    ("PUT", "/parked/{epoch}/{partition}/{sequence}/actions"): Action.ADMINISTER,
    ("GET", "/executors"): Action.ADMINISTER,
    ("PUT", "/executors/{executor_id}/actions"): Action.ADMINISTER,
    ("DELETE", "/executors/{executor_id}"): Action.ADMINISTER,
    ("DELETE", "/executor/{executor_id}"): Action.ADMINISTER,
    ("GET", "/version"): LoginNeed.NONE,
    ("GET", "/openapi.json"): LoginNeed.NONE,
    **{
        (method, f"/maintenance{service}"): Action.MAINTAIN
        for service in ("", "/{service}")
        for method in ("GET", "PUT", "DELETE")
    },
    ("DELETE", "/maintenance/{service}/instances/{instance_id}"): Action.MAINTAIN,
    **{
        (method, f"{path}{service}"): Action.MAINTAIN
        for service in ("", "/{service}")
        for method, path in (("GET", "/export"), ("GET", "/import"), ("POST", "/import"), ("GET", "/epochs"))
    },
}
LOGIN: Mapping[tuple[str, str], LoginNeed | Action] = {**_CONFIG, **_COMMIT_RUNS, **_RUNS, **_SERVICE}
"""Whether each route needs a login, by method and path below PREFIX; or what its sender must be allowed to do."""
WITHOUT_LOGIN = frozenset(
    {
        ("GET", "/"),
        ("GET", "/oauth2/callback"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("POST", "/webhooks"),
        *((method, f"{PREFIX}{path}") for (method, path), login in LOGIN.items() if login is LoginNeed.NONE),
    }
)
"""Methods and paths for which credentials are not looked at."""

_OF_CONFIG: dict[str, list[re.Pattern[str]]] = {}
for _method, _path in _CONFIG:
    _OF_CONFIG.setdefault(_method, []).append(re.compile(PREFIX + re.sub("{[^}]+}", "[^/]+", _path)))


def of_config(method: str, path: str) -> bool:
    """Return whether a request is about users, projects and secrets alone: the service `runs` has no part in it."""
    return any(pattern.fullmatch(path) for pattern in _OF_CONFIG.get(method, ()))


async def require_login(request: Request) -> None:
    """Raise UnauthorizedError for a request without a login to a route that needs one."""
    path = request.scope["route"].path.removeprefix(PREFIX)
    login = LOGIN.get((request.method, path))
    if login is None:
        raise InternalError(f"{request.method} {path} has no entry in the table of logins", code="internal")
    sender = sender_of(request)
    if login not in (LoginNeed.NONE, LoginNeed.OPTIONAL) and sender.anonymous:
        raise UnauthorizedError(
            "the request has no token",
            code="missingToken",
            hint="send the header Authorization: token <token>",
        )
    if isinstance(login, Action):
        require(None, sender.actor, login)


def require_administrator(sender: Sender) -> None:
    """Raise ForbiddenError for a sender who does not administer the deployment."""
    require(None, sender.actor, Action.ADMINISTER)

"""GitLab (API v4)."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from runstream.errors import BadRequestError
from runstream.hosts.client import DEFAULT_CLOCK, DEFAULT_LIMITS, HostClient, HostClock, HostLimits, segments
from runstream.hosts.errors import HostError, missing
from runstream.hosts.github_like import delete, same_key
from runstream.hosts.oauth2 import OAuth2
from runstream.hosts.port import (
    CommitStatus,
    HostCommit,
    HostRepository,
    HostSettings,
    HostType,
    HostUser,
    PasswordLogin,
    RefKind,
    RefName,
    RefNames,
    StatusState,
)

_MAINTAINER = 40
_PAGE = {"per_page": "100"}
_STATES = {
    StatusState.PENDING: "pending",
    StatusState.SUCCESS: "success",
    StatusState.FAILURE: "failed",
    StatusState.ERROR: "failed",
}


class GitLabAccess(msgspec.Struct):
    """The role of the user in a project or its group."""

    access_level: int = 0


class GitLabPermissions(msgspec.Struct):
    """The roles of the user."""

    project_access: GitLabAccess | None = None
    group_access: GitLabAccess | None = None


class GitLabProject(msgspec.Struct):
    """A project."""

    id: int
    path_with_namespace: str
    ssh_url_to_repo: str
    http_url_to_repo: str
    web_url: str
    default_branch: str | None = None
    visibility: str = "private"
    permissions: GitLabPermissions | None = None

    def as_host(self, *, administered: bool = False) -> HostRepository:
        """Return it as the port has it."""
        told = self.permissions or GitLabPermissions()
        roles = [one.access_level for one in (told.project_access, told.group_access) if one is not None]
        return HostRepository(
            str(self.id),
            self.path_with_namespace,
            self.default_branch or "",
            self.ssh_url_to_repo,
            self.http_url_to_repo,
            self.web_url,
            self.visibility != "public",
            administered or max(roles, default=0) >= _MAINTAINER,
        )


class GitLabUser(msgspec.Struct):
    """A user."""

    id: int
    username: str
    email: str | None = None
    avatar_url: str | None = None


class GitLabKey(msgspec.Struct):
    """A deploy key."""

    id: int
    title: str
    key: str
    can_push: bool = False


class GitLabHook(msgspec.Struct):
    """A webhook."""

    id: int
    url: str


class _GitLabCommit(msgspec.Struct):
    id: str
    message: str = ""
    web_url: str = ""


class _GitLabNamed(msgspec.Struct):
    """A branch or a tag."""

    commit: _GitLabCommit


class _MergeRequest(msgspec.Struct):
    sha: str | None


class GitLabHost:
    """GitLab.com or a GitLab server."""

    type: HostType = "gitlab"
    refs = RefNames("refs/merge-requests/")

    def __init__(
        self, settings: HostSettings, limits: HostLimits = DEFAULT_LIMITS, clock: HostClock = DEFAULT_CLOCK
    ) -> None:
        web = settings.api_url.rstrip("/").removesuffix("/api/v4")
        self._client = HostClient(f"{web}/api/v4", settings, limits, clock)
        # Deploy keys and webhooks need the scope `api`.
        oauth2 = OAuth2(self._client, settings, f"{web}/oauth/authorize", f"{web}/oauth/token", "api", clock.now)
        self.authorization_url = oauth2.authorization_url
        self.exchange_code = oauth2.exchange_code
        self.refresh = oauth2.refresh

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def repository(self, token: str, path: str) -> HostRepository:
        """Return the repository of a path."""
        return (await self._client.get(_project(path), GitLabProject, token)).as_host()

    async def repository_by_id(self, token: str, repository_id: str) -> HostRepository:
        """Return the repository of an id."""
        return (await self._client.get(_project(repository_id), GitLabProject, token)).as_host()

    async def administered_repositories(self, token: str) -> list[HostRepository]:
        """Return the repositories of which the token's user is a maintainer."""
        query = {"membership": "true", "min_access_level": str(_MAINTAINER), **_PAGE}
        found = await self._client.get_all("/projects", GitLabProject, token, query)
        return [each.as_host(administered=True) for each in found]

    async def file(self, token: str, path: str, commit: str, name: str, *, limit: int) -> bytes | None:
        """Return a file at a commit."""
        segments(name)
        place = f"{_project(path)}/repository/files/{quote(name, safe='')}/raw"
        try:
            return (await self._client.send("GET", place, token=token, query={"ref": commit}, limit=limit)).content
        except HostError as error:
            if missing(error):
                return None
            raise

    async def resolve(self, token: str, path: str, ref: RefName) -> str:
        """Return the commit of a ref."""
        if ref.kind is RefKind.PULL_REQUEST:
            place = f"{_project(path)}/merge_requests/{segments(ref.name)}"
            if (sha := (await self._client.get(place, _MergeRequest, token)).sha) is None:
                raise HostError(f"{path} has no {ref.ref}", code="hostObjectDoesNotExist", status=404)
            return sha
        kind = "branches" if ref.kind is RefKind.BRANCH else "tags"
        place = f"{_project(path)}/repository/{kind}/{quote(ref.name, safe='')}"
        return (await self._client.get(place, _GitLabNamed, token)).commit.id

    async def commit(self, token: str, path: str, sha: str) -> HostCommit:
        """Return a commit."""
        found = await self._client.get(f"{_project(path)}/repository/commits/{segments(sha)}", _GitLabCommit, token)
        return HostCommit(found.id, found.message, found.web_url)

    async def put_deploy_key(self, token: str, path: str, title: str, public_key: str) -> None:
        """Add or replace a deploy key."""
        place = f"{_project(path)}/deploy_keys"
        for key in await self._client.get_all(place, GitLabKey, token, _PAGE):
            if key.title == title:
                if same_key(key.key, public_key) and not key.can_push:
                    return
                await delete(self._client, f"{place}/{key.id}", token)
        body = {"title": title, "key": public_key, "can_push": False}
        await self._client.send("POST", place, token=token, body=body)

    async def delete_deploy_key(self, token: str, path: str, title: str) -> None:
        """Delete the deploy keys of a title."""
        place = f"{_project(path)}/deploy_keys"
        for key in await self._client.get_all(place, GitLabKey, token, _PAGE):
            if key.title == title:
                await delete(self._client, f"{place}/{key.id}", token)

    async def put_webhook(self, token: str, path: str, url: str, secret: str) -> None:
        """Add or update a webhook."""
        place = f"{_project(path)}/hooks"
        body = {
            "url": url,
            "token": secret,
            "push_events": True,
            "tag_push_events": True,
            "merge_requests_events": True,
            "enable_ssl_verification": True,
        }
        same = await self._hooks(place, token, url)
        if same:
            await self._client.send("PUT", f"{place}/{same[0]}", token=token, body=body)
        else:
            await self._client.send("POST", place, token=token, body=body)
        for doubled in same[1:]:
            await delete(self._client, f"{place}/{doubled}", token)

    async def delete_webhook(self, token: str, path: str, url: str) -> None:
        """Delete the webhooks to a URL."""
        place = f"{_project(path)}/hooks"
        for hook in await self._hooks(place, token, url):
            await delete(self._client, f"{place}/{hook}", token)

    async def put_status(self, token: str, path: str, sha: str, status: CommitStatus) -> None:
        """Set the status of a commit."""
        body = {
            "name": status.context,
            "state": _STATES[status.state],
            "description": status.description,
            "target_url": status.target_url,
        }
        try:
            await self._client.send("POST", f"{_project(path)}/statuses/{segments(sha)}", token=token, body=body)
        except HostError as error:
            # GitLab refuses a state that the status already has.
            if not (error.status == 400 and "Cannot transition status" in error.message):
                raise

    async def user(self, token: str) -> HostUser:
        """Return the token's user."""
        found = await self._client.get("/user", GitLabUser, token)
        return HostUser(str(found.id), found.username, found.email or "", found.avatar_url or "")

    async def login(self, username: str, password: str, token_name: str) -> PasswordLogin:
        """Raise BadRequestError: GitLab has no login with a password."""
        raise BadRequestError("GitLab has no login with a password", code="invalidRemoteSourceAuthType")

    async def delete_login(self, username: str, password: str, token_name: str) -> None:
        """Raise BadRequestError: GitLab has no login with a password."""
        await self.login(username, password, token_name)

    def commit_link(self, repository: HostRepository, sha: str) -> str:
        """Return the page of a commit."""
        return f"{repository.page_url}/-/commit/{quote(sha)}"

    def ref_link(self, repository: HostRepository, ref: RefName) -> str:
        """Return the page of a ref."""
        kinds = {RefKind.BRANCH: "tree", RefKind.TAG: "tags", RefKind.PULL_REQUEST: "merge_requests"}
        return f"{repository.page_url}/-/{kinds[ref.kind]}/{quote(ref.name)}"

    async def _hooks(self, place: str, token: str, url: str) -> list[int]:
        return [hook.id for hook in await self._client.get_all(place, GitLabHook, token, _PAGE) if hook.url == url]


def _project(path: str) -> str:
    segments(path)
    return f"/projects/{quote(path, safe='')}"

"""Gitea and Forgejo (API v1)."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from runstream.hosts.client import DEFAULT_CLOCK, DEFAULT_LIMITS, HostClient, HostClock, HostLimits, segments
from runstream.hosts.errors import HostError, missing
from runstream.hosts.oauth2 import OAuth2
from runstream.hosts.port import (
    CommitStatus,
    HostCommit,
    HostRepository,
    HostSettings,
    HostType,
    HostUser,
    OAuth2Tokens,
    PasswordLogin,
    RefKind,
    RefName,
    RefNames,
)

GITEA_REFS = RefNames("refs/pull/")
_SCOPES = ("write:repository", "read:user")
"""Deploy keys, webhooks and commit statuses need `write:repository`."""
_EVENTS = ["push", "delete", "pull_request", "pull_request_sync"]
_PAGE = {"limit": "50"}


class GiteaPermissions(msgspec.Struct):
    """What the user may do with a repository."""

    admin: bool = False


class GiteaRepository(msgspec.Struct):
    """A repository."""

    id: int
    full_name: str
    default_branch: str
    ssh_url: str
    clone_url: str
    html_url: str
    private: bool
    permissions: GiteaPermissions | None = None

    def as_host(self) -> HostRepository:
        """Return it as the port has it."""
        return HostRepository(
            str(self.id),
            self.full_name,
            self.default_branch,
            self.ssh_url,
            self.clone_url,
            self.html_url,
            self.private,
            self.permissions is not None and self.permissions.admin,
        )


class GiteaUser(msgspec.Struct):
    """A user."""

    id: int
    login: str
    email: str = ""
    avatar_url: str = ""

    def as_host(self) -> HostUser:
        """Return it as the port has it."""
        return HostUser(str(self.id), self.login, self.email, self.avatar_url)


class GiteaKey(msgspec.Struct):
    """A deploy key."""

    id: int
    title: str
    key: str
    read_only: bool = False


class GiteaHook(msgspec.Struct):
    """A webhook."""

    id: int
    config: dict[str, str]


class _Object(msgspec.Struct):
    sha: str
    type: str = "commit"


class _Ref(msgspec.Struct):
    ref: str
    object: _Object


class _BranchCommit(msgspec.Struct):
    id: str


class _Branch(msgspec.Struct):
    commit: _BranchCommit


class _Tag(msgspec.Struct):
    commit: _Object


class _CommitText(msgspec.Struct):
    message: str


class _Commit(msgspec.Struct):
    sha: str
    html_url: str
    commit: _CommitText


class _AccessToken(msgspec.Struct):
    sha1: str


class GiteaHost:
    """A Gitea or Forgejo server."""

    type: HostType = "gitea"
    refs = GITEA_REFS

    def __init__(
        self, settings: HostSettings, limits: HostLimits = DEFAULT_LIMITS, clock: HostClock = DEFAULT_CLOCK
    ) -> None:
        self._web = settings.api_url.rstrip("/").removesuffix("/api/v1")
        self._client = HostClient(f"{self._web}/api/v1", settings, limits, clock)
        place = f"{self._web}/login/oauth"
        self._oauth2 = OAuth2(
            self._client, settings, f"{place}/authorize", f"{place}/access_token", " ".join(_SCOPES), clock.now
        )
        self.authorization_url = self._oauth2.authorization_url

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def repository(self, token: str, path: str) -> HostRepository:
        """Return the repository of a path."""
        return (await self._client.get(f"/repos/{segments(path)}", GiteaRepository, token)).as_host()

    async def repository_by_id(self, token: str, repository_id: str) -> HostRepository:
        """Return the repository of an id."""
        found = await self._client.get(f"/repositories/{segments(repository_id)}", GiteaRepository, token)
        return found.as_host()

    async def administered_repositories(self, token: str) -> list[HostRepository]:
        """Return the repositories that the token's user administers."""
        found = await self._client.get_all("/user/repos", GiteaRepository, token, _PAGE)
        return [one for one in (each.as_host() for each in found) if one.administered]

    async def file(self, token: str, path: str, commit: str, name: str, *, limit: int) -> bytes | None:
        """Return a file at a commit."""
        place = f"/repos/{segments(path)}/raw/{segments(name)}"
        try:
            return (await self._client.send("GET", place, token=token, query={"ref": commit}, limit=limit)).content
        except HostError as error:
            if missing(error):
                return None
            raise

    async def resolve(self, token: str, path: str, ref: RefName) -> str:
        """Return the commit of a ref."""
        place = f"/repos/{segments(path)}"
        match ref.kind:
            case RefKind.BRANCH:
                return (await self._client.get(f"{place}/branches/{segments(ref.name)}", _Branch, token)).commit.id
            case RefKind.TAG:
                return (await self._client.get(f"{place}/tags/{segments(ref.name)}", _Tag, token)).commit.sha
        where = f"{place}/git/refs/{segments(ref.ref.removeprefix('refs/'))}"
        answer = await self._client.send("GET", where, token=token)
        # Gitea answers with all refs that begin like this, and with an object if there is exactly this one.
        alone = answer.content.lstrip().startswith(b"{")
        for one in [answer.decode(_Ref)] if alone else answer.decode(list[_Ref]):
            if one.ref == ref.ref:
                return one.object.sha
        raise HostError(f"{path} has no {ref.ref}", code="hostObjectDoesNotExist", status=404)

    async def commit(self, token: str, path: str, sha: str) -> HostCommit:
        """Return a commit."""
        found = await self._client.get(f"/repos/{segments(path)}/git/commits/{segments(sha)}", _Commit, token)
        return HostCommit(found.sha, found.commit.message, found.html_url)

    async def put_deploy_key(self, token: str, path: str, title: str, public_key: str) -> None:
        """Add or replace a deploy key."""
        place = f"/repos/{segments(path)}/keys"
        for key in await self._client.get_all(place, GiteaKey, token, _PAGE):
            if key.title == title:
                if same_key(key.key, public_key) and key.read_only:
                    return
                await self._delete(f"{place}/{key.id}", token)
        body = {"title": title, "key": public_key, "read_only": True}
        await self._client.send("POST", place, token=token, body=body)

    async def delete_deploy_key(self, token: str, path: str, title: str) -> None:
        """Delete the deploy keys of a title."""
        place = f"/repos/{segments(path)}/keys"
        for key in await self._client.get_all(place, GiteaKey, token, _PAGE):
            if key.title == title:
                await self._delete(f"{place}/{key.id}", token)

    async def put_webhook(self, token: str, path: str, url: str, secret: str) -> None:
        """Add or update a webhook."""
        place = f"/repos/{segments(path)}/hooks"
        config = {"url": url, "content_type": "json", "secret": secret}
        same = [hook.id for hook in await self._hooks(place, token) if hook.config.get("url") == url]
        if same:
            body = {"config": config, "events": _EVENTS, "active": True}
            await self._client.send("PATCH", f"{place}/{same[0]}", token=token, body=body)
        else:
            new = {"type": "gitea", "config": config, "events": _EVENTS, "active": True}
            await self._client.send("POST", place, token=token, body=new)
        for doubled in same[1:]:
            await self._delete(f"{place}/{doubled}", token)

    async def delete_webhook(self, token: str, path: str, url: str) -> None:
        """Delete the webhooks to a URL."""
        place = f"/repos/{segments(path)}/hooks"
        for hook in await self._hooks(place, token):
            if hook.config.get("url") == url:
                await self._delete(f"{place}/{hook.id}", token)

    async def put_status(self, token: str, path: str, sha: str, status: CommitStatus) -> None:
        """Set the status of a commit."""
        body = {
            "context": status.context,
            "state": status.state.value,
            "description": status.description,
            "target_url": status.target_url,
        }
        place = f"/repos/{segments(path)}/statuses/{segments(sha)}"
        await self._client.send("POST", place, token=token, body=body)

    async def user(self, token: str) -> HostUser:
        """Return the token's user."""
        return (await self._client.get("/user", GiteaUser, token)).as_host()

    async def login(self, username: str, password: str, token_name: str) -> PasswordLogin:
        """Create an access token with a password."""
        answer = await self._client.send(
            "POST",
            f"/users/{segments(username)}/tokens",
            login=(username, password),
            body={"name": token_name, "scopes": list(_SCOPES)},
        )
        token = answer.decode(_AccessToken).sha1
        return PasswordLogin(await self.user(token), token)

    async def exchange_code(self, code: str, redirect_url: str, verifier: str) -> OAuth2Tokens:
        """Return the tokens for a code."""
        return await self._oauth2.exchange_code(code, redirect_url, verifier)

    async def refresh(self, refresh_token: str) -> OAuth2Tokens:
        """Return new tokens."""
        return await self._oauth2.refresh(refresh_token)

    def commit_link(self, repository: HostRepository, sha: str) -> str:
        """Return the page of a commit."""
        return f"{repository.page_url}/commit/{quote(sha)}"

    def ref_link(self, repository: HostRepository, ref: RefName) -> str:
        """Return the page of a ref."""
        kinds = {RefKind.BRANCH: "src/branch", RefKind.TAG: "src/tag", RefKind.PULL_REQUEST: "pulls"}
        return f"{repository.page_url}/{kinds[ref.kind]}/{quote(ref.name)}"

    async def _hooks(self, place: str, token: str) -> list[GiteaHook]:
        return await self._client.get_all(place, GiteaHook, token, _PAGE)

    async def _delete(self, place: str, token: str) -> None:
        await delete(self._client, place, token)


def same_key(one: str, other: str) -> bool:
    """Return whether two public keys are the same; their comments may differ."""
    return one.split()[:2] == other.split()[:2]


async def delete(client: HostClient, place: str, token: str) -> None:
    """Delete an object, or find it deleted."""
    try:
        await client.send("DELETE", place, token=token)
    except HostError as error:
        if not missing(error):
            raise

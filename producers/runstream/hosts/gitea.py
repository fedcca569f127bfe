"""Gitea and Forgejo (API v1)."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import quote

import msgspec

from runstream.hosts.client import DEFAULT_CLOCK, DEFAULT_LIMITS, HostClient, HostClock, HostLimits, segments
from runstream.hosts.errors import HostError, missing
from runstream.hosts.github_like import GitHubLikeHost
from runstream.hosts.oauth2 import OAuth2
from runstream.hosts.port import (
    HostCommit,
    HostRepository,
    HostSettings,
    HostType,
    PasswordLogin,
    RefKind,
    RefName,
)

_SCOPES = ("write:repository", "read:user")
"""Deploy keys, webhooks and commit statuses need `write:repository`."""


class _GiteaObject(msgspec.Struct):
    sha: str


class _GiteaRef(msgspec.Struct):
    ref: str
    object: _GiteaObject


class _BranchCommit(msgspec.Struct):
    id: str


class _Branch(msgspec.Struct):
    commit: _BranchCommit


class _Tag(msgspec.Struct):
    commit: _GiteaObject


class _GiteaCommitText(msgspec.Struct):
    message: str


class _GiteaCommit(msgspec.Struct):
    sha: str
    html_url: str
    commit: _GiteaCommitText


class _AccessToken(msgspec.Struct):
    sha1: str


class GiteaHost(GitHubLikeHost):
    """A Gitea or Forgejo server."""

    type: HostType = "gitea"
    hook_type: ClassVar[dict[str, str]] = {"type": "gitea"}
    hook_events: ClassVar[list[str]] = ["push", "delete", "pull_request", "pull_request_sync"]
    page: ClassVar[dict[str, str]] = {"limit": "50"}

    def __init__(
        self, settings: HostSettings, limits: HostLimits = DEFAULT_LIMITS, clock: HostClock = DEFAULT_CLOCK
    ) -> None:
        web = settings.api_url.rstrip("/").removesuffix("/api/v1")
        client, place = HostClient(f"{web}/api/v1", settings, limits, clock), f"{web}/login/oauth"
        scopes = " ".join(_SCOPES)
        super().__init__(
            client, OAuth2(client, settings, f"{place}/authorize", f"{place}/access_token", scopes, clock.now)
        )

    async def file(self, token: str, path: str, commit: str, name: str, *, limit: int) -> bytes | None:
        """Return a file at a commit."""
        place = f"/repos/{segments(path)}/raw/{segments(name)}"
        try:
            return (await self.client.send("GET", place, token=token, query={"ref": commit}, limit=limit)).content
        except HostError as error:
            if missing(error):
                return None
            raise

    async def resolve(self, token: str, path: str, ref: RefName) -> str:
        """Return the commit of a ref."""
        place = f"/repos/{segments(path)}"
        match ref.kind:
            case RefKind.BRANCH:
                return (await self.client.get(f"{place}/branches/{segments(ref.name)}", _Branch, token)).commit.id
            case RefKind.TAG:
                return (await self.client.get(f"{place}/tags/{segments(ref.name)}", _Tag, token)).commit.sha
        where = f"{place}/git/refs/{segments(ref.ref.removeprefix('refs/'))}"
        answer = await self.client.send("GET", where, token=token)
        # Gitea answers with all refs that begin like this, and with an object if there is exactly this one.
        alone = answer.content.lstrip().startswith(b"{")
        for one in [answer.decode(_GiteaRef)] if alone else answer.decode(list[_GiteaRef]):
            if one.ref == ref.ref:
                return one.object.sha
        raise HostError(f"{path} has no {ref.ref}", code="hostObjectDoesNotExist", status=404)

    async def commit(self, token: str, path: str, sha: str) -> HostCommit:
        """Return a commit."""
        found = await self.client.get(f"/repos/{segments(path)}/git/commits/{segments(sha)}", _GiteaCommit, token)
        return HostCommit(found.sha, found.commit.message, found.html_url)

    async def login(self, username: str, password: str, token_name: str) -> PasswordLogin:
        """Create an access token with a password."""
        answer = await self.client.send(
            "POST",
            f"/users/{segments(username)}/tokens",
            login=(username, password),
            body={"name": token_name, "scopes": list(_SCOPES)},
        )
        token = answer.decode(_AccessToken).sha1
        return PasswordLogin(await self.user(token), token)

    async def delete_login(self, username: str, password: str, token_name: str) -> None:
        """Delete an access token with a password."""
        place = f"/users/{segments(username)}/tokens/{segments(token_name)}"
        try:
            await self.client.send("DELETE", place, login=(username, password))
        except HostError as error:
            if not missing(error):
                raise

    def ref_link(self, repository: HostRepository, ref: RefName) -> str:
        """Return the page of a ref."""
        kinds = {RefKind.BRANCH: "src/branch", RefKind.TAG: "src/tag", RefKind.PULL_REQUEST: "pulls"}
        return f"{repository.page_url}/{kinds[ref.kind]}/{quote(ref.name)}"

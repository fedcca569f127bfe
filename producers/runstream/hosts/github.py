"""GitHub, also Enterprise (REST API of 2022-11-28), and tokens of a GitHub App."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar
from urllib.parse import quote

import msgspec
from cachetools import LRUCache
from joserfc import jwt
from joserfc.jwk import RSAKey

from runstream.errors import BadRequestError
from runstream.hosts.client import DEFAULT_CLOCK, DEFAULT_LIMITS, HostClient, HostClock, HostLimits, segments
from runstream.hosts.errors import HostError, missing
from runstream.hosts.github_like import GitHubLikeHost
from runstream.hosts.oauth2 import OAuth2
from runstream.hosts.port import HostCommit, HostRepository, HostSettings, HostType, PasswordLogin, RefKind, RefName

_PUBLIC = "https://api.github.com"
_JWT_SECONDS = 540
"""Lifetime of an App's own token; GitHub takes at most 10 minutes."""
_CLOCK_SECONDS = 60
"""How far GitHub's clock may be behind."""
_RENEWED_SECONDS = 300
"""An installation's token is replaced this long before it expires."""


class _GitHubObject(msgspec.Struct):
    sha: str
    type: str


class _GitHubRef(msgspec.Struct):
    object: _GitHubObject


class _GitHubCommitText(msgspec.Struct):
    message: str


class _GitHubCommit(msgspec.Struct):
    sha: str
    html_url: str
    commit: _GitHubCommitText


class _Installation(msgspec.Struct):
    id: int


class _InstallationToken(msgspec.Struct):
    token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class GitHubApp:
    """An App, as which Runstream acts where it is installed: its runs do not depend on a person."""

    id: str
    private_key: str = field(repr=False)
    """In PEM."""


class GitHubHost(GitHubLikeHost):
    """GitHub or GitHub Enterprise Server."""

    type: HostType = "github"
    hook_type: ClassVar[dict[str, str]] = {"name": "web"}
    hook_events: ClassVar[list[str]] = ["push", "pull_request"]
    page: ClassVar[dict[str, str]] = {"per_page": "100"}

    def __init__(
        self,
        settings: HostSettings,
        limits: HostLimits = DEFAULT_LIMITS,
        clock: HostClock = DEFAULT_CLOCK,
        app: GitHubApp | None = None,
    ) -> None:
        given = settings.api_url.rstrip("/").removesuffix("/api/v3")
        api, web = (_PUBLIC, "https://github.com") if given == _PUBLIC else (f"{given}/api/v3", given)
        client = HostClient(api, settings, limits, clock, {"X-GitHub-Api-Version": "2022-11-28"})
        place = f"{web}/login/oauth"
        super().__init__(
            client, OAuth2(client, settings, f"{place}/authorize", f"{place}/access_token", "repo", clock.now)
        )
        self._clock = clock
        self._app = app
        self._tokens: LRUCache[str, _InstallationToken] = LRUCache(1000)

    async def file(self, token: str, path: str, commit: str, name: str, *, limit: int) -> bytes | None:
        """Return a file at a commit."""
        place = f"/repos/{segments(path)}/contents/{segments(name)}"
        raw = "application/vnd.github.raw+json"
        try:
            answer = await self.client.send("GET", place, token=token, query={"ref": commit}, accept=raw, limit=limit)
        except HostError as error:
            if missing(error):
                return None
            raise
        return answer.content

    async def resolve(self, token: str, path: str, ref: RefName) -> str:
        """Return the commit of a ref."""
        place = f"/repos/{segments(path)}/git"
        found = (
            await self.client.get(f"{place}/ref/{segments(ref.ref.removeprefix('refs/'))}", _GitHubRef, token)
        ).object
        for _ in range(10):  # a tag may be of a tag
            if found.type != "tag":
                break
            found = (await self.client.get(f"{place}/tags/{segments(found.sha)}", _GitHubRef, token)).object
        return found.sha

    async def commit(self, token: str, path: str, sha: str) -> HostCommit:
        """Return a commit."""
        found = await self.client.get(f"/repos/{segments(path)}/commits/{segments(sha)}", _GitHubCommit, token)
        return HostCommit(found.sha, found.commit.message, found.html_url)

    async def login(self, username: str, password: str, token_name: str) -> PasswordLogin:
        """Raise BadRequestError: GitHub has no login with a password."""
        raise BadRequestError("GitHub has no login with a password", code="invalidRemoteSourceAuthType")

    async def delete_login(self, username: str, password: str, token_name: str) -> None:
        """Raise BadRequestError: GitHub has no login with a password."""
        await self.login(username, password, token_name)

    def ref_link(self, repository: HostRepository, ref: RefName) -> str:
        """Return the page of a ref."""
        kind = "pull" if ref.kind is RefKind.PULL_REQUEST else "tree"
        return f"{repository.page_url}/{kind}/{quote(ref.name)}"

    async def app_token(self, path: str) -> str:
        """Return a token of the App for one repository, with the least rights. Raises BadRequestError without an App.

        It is used again until shortly before it expires.
        """
        kept = self._tokens.get(path)
        if kept is not None and kept.expires_at.timestamp() - _RENEWED_SECONDS > self._clock.now():
            return kept.token
        own = self._own_token()
        installation = await self.client.get(f"/repos/{segments(path)}/installation", _Installation, own)
        body = {
            "repositories": [path.rpartition("/")[2]],
            "permissions": {
                "administration": "write",
                "contents": "read",
                "pull_requests": "read",
                "repository_hooks": "write",
                "statuses": "write",
            },
        }
        place = f"/app/installations/{installation.id}/access_tokens"
        made = (await self.client.send("POST", place, token=own, body=body)).decode(_InstallationToken)
        self._tokens[path] = made
        return made.token

    def _own_token(self) -> str:
        if self._app is None:
            raise BadRequestError("the remote source has no GitHub App", code="noGitHubApp")
        try:
            key = RSAKey.import_key(self._app.private_key)
        except ValueError as error:
            raise BadRequestError(
                "the private key of the GitHub App cannot be read", code="invalidAppKey", hint="give its PEM"
            ) from error
        now = int(self._clock.now())
        claims = {"iss": self._app.id, "iat": now - _CLOCK_SECONDS, "exp": now + _JWT_SECONDS}
        return jwt.encode({"alg": "RS256"}, claims, key)

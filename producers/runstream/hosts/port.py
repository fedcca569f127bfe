"""What Runstream needs of a git host: typed calls, the same for every host.

A repository is named by its path (`owner/name`) on the host; its id stays the same when it is renamed or moved. Every
call that takes a `token` acts as the token's user, or as a GitHub App. Calls raise HostError.

Calls that change something may be repeated: adding what is there updates it, and deleting what is not there succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

from runstream.errors import BadRequestError

HostType = Literal["gitea", "github", "gitlab"]


@dataclass(frozen=True, slots=True)
class HostSettings:
    """Where a host is, and how Runstream talks to it."""

    type: HostType
    api_url: str
    oauth2_client_id: str = ""
    oauth2_client_secret: str = field(default="", repr=False)
    verify_tls: bool = True
    ca_certificates: str = ""
    """Certificate authorities in PEM that are trusted beside those of the system."""


class RefKind(StrEnum):
    """What a ref of git names."""

    BRANCH = "branch"
    TAG = "tag"
    PULL_REQUEST = "pull_request"


@dataclass(frozen=True, slots=True)
class RefName:
    """A ref, and the name of the branch or tag, or the number of the pull request."""

    kind: RefKind
    name: str
    ref: str


@dataclass(frozen=True, slots=True)
class RefNames:
    """The names of the refs of a host."""

    pull_requests: str
    """What the refs of pull requests begin with."""

    def branch(self, name: str) -> RefName:
        """Return the ref of a branch."""
        return RefName(RefKind.BRANCH, name, f"refs/heads/{name}")

    def tag(self, name: str) -> RefName:
        """Return the ref of a tag."""
        return RefName(RefKind.TAG, name, f"refs/tags/{name}")

    def pull_request(self, number: int) -> RefName:
        """Return the ref of the head of a pull request."""
        return RefName(RefKind.PULL_REQUEST, str(number), f"{self.pull_requests}{number}/head")

    def parse(self, ref: str) -> RefName:
        """Return what a ref names. Raises BadRequestError `invalidRef`."""
        for prefix, named in (("refs/heads/", self.branch), ("refs/tags/", self.tag)):
            if ref.startswith(prefix) and len(ref) > len(prefix):
                return named(ref.removeprefix(prefix))
        number = ref.removeprefix(self.pull_requests).removesuffix("/head")
        if ref == f"{self.pull_requests}{number}/head" and number.isascii() and number.isdigit():
            return self.pull_request(int(number))
        raise BadRequestError(
            f"{ref[:200]!r} is not the ref of a branch, a tag or a pull request",
            code="invalidRef",
            hint=f"use refs/heads/NAME, refs/tags/NAME or {self.pull_requests}NUMBER/head",
        )


@dataclass(frozen=True, slots=True)
class HostRepository:
    """A repository of a host."""

    id: str
    path: str
    default_branch: str
    ssh_url: str
    http_url: str
    page_url: str
    private: bool
    administered: bool
    """True if the token's user may change the settings of the repository."""


@dataclass(frozen=True, slots=True)
class HostCommit:
    """A commit of a repository."""

    sha: str
    message: str
    page_url: str


@dataclass(frozen=True, slots=True)
class HostUser:
    """A user of a host."""

    id: str
    name: str
    email: str
    """Empty if the user does not show it."""
    avatar_url: str


@dataclass(frozen=True, slots=True)
class OAuth2Tokens:
    """Tokens that a host issued."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    """Empty for a token that is never refreshed."""
    expires_at: datetime | None
    """When the access token expires, in UTC; None if it does not."""


@dataclass(frozen=True, slots=True)
class PasswordLogin:
    """A user who logged in with a password, and the access token made for that."""

    user: HostUser
    token: str = field(repr=False)


class StatusState(StrEnum):
    """The states of a commit, as GitHub names them."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """What a host shows beside a commit, one for each context."""

    context: str
    state: StatusState
    description: str
    target_url: str


class GitHost(Protocol):
    """A git host."""

    @property
    def type(self) -> HostType:
        """The type of the host."""

    @property
    def refs(self) -> RefNames:
        """The names of its refs."""

    async def close(self) -> None:
        """Close all connections."""

    async def repository(self, token: str, path: str) -> HostRepository:
        """Return the repository of a path, also of one that it had before."""

    async def repository_by_id(self, token: str, repository_id: str) -> HostRepository:
        """Return the repository of an id, wherever it has moved."""

    async def administered_repositories(self, token: str) -> list[HostRepository]:
        """Return the repositories whose settings the token's user may change."""

    async def file(self, token: str, path: str, commit: str, name: str, *, limit: int) -> bytes | None:
        """Return a file at a commit; None without it. Raises HostError `hostAnswerTooLarge` above `limit` bytes."""

    async def resolve(self, token: str, path: str, ref: RefName) -> str:
        """Return the commit that a ref leads to; for an annotated tag the tagged commit."""

    async def commit(self, token: str, path: str, sha: str) -> HostCommit:
        """Return a commit by its id, which may be short."""

    async def put_deploy_key(self, token: str, path: str, title: str, public_key: str) -> None:
        """Add a read-only deploy key; replace another key of that title."""

    async def delete_deploy_key(self, token: str, path: str, title: str) -> None:
        """Delete the deploy keys of a title."""

    async def put_webhook(self, token: str, path: str, url: str, secret: str) -> None:
        """Have pushes, deleted refs and pull requests sent to a URL, signed with the secret."""

    async def delete_webhook(self, token: str, path: str, url: str) -> None:
        """Delete the webhooks to a URL."""

    async def put_status(self, token: str, path: str, sha: str, status: CommitStatus) -> None:
        """Set the status of a commit."""

    async def user(self, token: str) -> HostUser:
        """Return the token's user."""

    async def login(self, username: str, password: str, token_name: str) -> PasswordLogin:
        """Create an access token of this name with a password. Raises BadRequestError where a host has only OAuth2."""

    async def delete_login(self, username: str, password: str, token_name: str) -> None:
        """Delete the access token that `login` created. Raises BadRequestError where a host has only OAuth2."""

    def authorization_url(self, state: str, redirect_url: str, challenge: str) -> str:
        """Return where a browser goes to authorize; `challenge` is of PKCE (S256)."""

    async def exchange_code(self, code: str, redirect_url: str, verifier: str) -> OAuth2Tokens:
        """Return the tokens for the code of a callback; `verifier` is of PKCE."""

    async def refresh(self, refresh_token: str) -> OAuth2Tokens:
        """Return new tokens for a refresh token."""

    def commit_link(self, repository: HostRepository, sha: str) -> str:
        """Return the page of a commit."""

    def ref_link(self, repository: HostRepository, ref: RefName) -> str:
        """Return the page of a branch, a tag or a pull request."""

"""Proof that a browser or a client acts for a user of a git host: a password, or the code of an OAuth2 callback.

The host checks a password by making an access token for it. Only a linked account keeps that token; it is deleted after
a login, and when the link is refused. Each token has a name of its own: no other account loses its token.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from runstream.config.sealed import open_text, seal_text
from runstream.domain.config.decisions.users import NewAccount
from runstream.domain.config.remote_source import RemoteSource
from runstream.errors import BadRequestError, UnauthorizedError
from runstream.events.run_config import Sealed
from runstream.events.user import AccountCredentials
from runstream.gateway.failed_logins import FailedLogins, too_many
from runstream.hosts.errors import HostError
from runstream.hosts.gitea import GiteaHost
from runstream.hosts.github import GitHubHost
from runstream.hosts.gitlab import GitLabHost
from runstream.hosts.port import GitHost, HostSettings, HostUser, OAuth2Tokens
from runstream.ids import new_id
from runstream.sealing import Keyring

log = structlog.get_logger()


@dataclass(slots=True)
class HostLogin:
    """A user of a git host who has proven to be that user, and the host's tokens for it."""

    id: str
    source: RemoteSource
    user: HostUser
    token: str = field(default="", repr=False)
    """Made with a password; empty after OAuth2."""
    oauth2: OAuth2Tokens | None = None
    kept: bool = False
    """Set once a linked account has the token."""

    def account(self, keyring: Keyring) -> NewAccount:
        """Return an account to link."""
        return NewAccount(
            self.id,
            self.source.id,
            self.user.id,
            self.user.name,
            self.user.avatar_url,
            self.credentials(keyring, self.id),
            self.expires_at,
        )

    def credentials(self, keyring: Keyring, account_id: str) -> AccountCredentials:
        """Return the tokens, sealed for an account."""
        if self.oauth2 is not None:
            return sealed_tokens(keyring, account_id, self.oauth2)
        sealed = seal_text(keyring, self.token, "linkedaccount", account_id, "user_access_token")
        return AccountCredentials(sealed, None, None)

    @property
    def expires_at(self) -> datetime | None:
        """When the OAuth2 access token expires."""
        return self.oauth2.expires_at if self.oauth2 is not None else None


def sealed_tokens(keyring: Keyring, account_id: str, tokens: OAuth2Tokens) -> AccountCredentials:
    """Seal the tokens of OAuth2 for an account. Raises InternalError without a key."""

    def sealed(text: str, name: str) -> Sealed | None:
        return seal_text(keyring, text, "linkedaccount", account_id, name) if text else None

    return AccountCredentials(
        None, sealed(tokens.access_token, "oauth2_access_token"), sealed(tokens.refresh_token, "oauth2_refresh_token")
    )


@asynccontextmanager
async def password_login(
    keyring: Keyring, failures: FailedLogins, address: str, source: RemoteSource, name: str, password: str
) -> AsyncIterator[HostLogin]:
    """Check a password at a git host. The token made for it is deleted unless the login is kept.

    Raises UnauthorizedError `invalidPassword`, BadRequestError, HostError.
    """
    # A password can be guessed: unlike a token, even a right one is refused from an address with many failures.
    if failures.limited(address):
        raise too_many()
    login_id = new_id()
    token_name = f"runstream-{login_id}"
    async with open_host(source, keyring) as host:
        try:
            made = await host.login(name, password, token_name)
        except HostError as error:
            if error.code not in ("hostCredentialsRefused", "hostObjectDoesNotExist"):
                raise
            raise UnauthorizedError(
                f"remote source {source.name!r} refused the name or the password",
                code="invalidPassword",
                hint="log in with the name and the password of the git host",
            ) from error
        login = HostLogin(login_id, source, made.user, made.token)
        try:
            yield login
        finally:
            if not login.kept:
                await _delete_token(host, source, name, password, token_name)


async def _delete_token(host: GitHost, source: RemoteSource, name: str, password: str, token_name: str) -> None:
    try:
        await host.delete_login(name, password, token_name)
    except HostError as error:
        # The request has its own answer; the token stays at the host, and nothing here knows it any more.
        log.warning("a token stays at the git host", action="delete_host_token", source=source.name, error=str(error))


async def code_login(keyring: Keyring, source: RemoteSource, code: str, redirect_url: str, verifier: str) -> HostLogin:
    """Exchange the code of a callback for tokens, and ask the host whose they are.

    Raises BadRequestError `invalidOAuth2Code`, HostError.
    """
    async with open_host(source, keyring) as host:
        try:
            tokens = await host.exchange_code(code, redirect_url, verifier)
        except HostError as error:
            if error.code != "hostCredentialsRefused":
                raise
            raise BadRequestError(
                f"remote source {source.name!r} refused the code",
                code="invalidOAuth2Code",
                hint="begin the login again; if that fails, too, check the client id and secret of the remote source",
            ) from error
        return HostLogin(new_id(), source, await host.user(tokens.access_token), oauth2=tokens)


@asynccontextmanager
async def open_host(source: RemoteSource, keyring: Keyring) -> AsyncIterator[GitHost]:
    """Open a client of a remote source, with its settings of now."""
    found = source.settings
    secret = open_text(keyring, found.oauth2_client_secret, "remotesource", source.id, "oauth2_client_secret")
    settings = HostSettings(found.type, found.apiurl, found.oauth2_client_id, secret, verify_tls=not found.skip_verify)
    host: GitHost
    match found.type:
        case "gitea":
            host = GiteaHost(settings)
        case "github":
            host = GitHubHost(settings)
        case "gitlab":
            host = GitLabHost(settings)
    try:
        yield host
    finally:
        await host.close()

"""The token with which the service acts for a linked account; that of OAuth2 is refreshed before it expires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from weakref import WeakValueDictionary

from runstream.config.sealed import open_text
from runstream.config.store import ConfigStore
from runstream.domain.config.decisions.users import decide_change_account
from runstream.domain.config.references import find_user
from runstream.domain.config.refusals import missing
from runstream.domain.config.state import ConfigState, Decision
from runstream.domain.config.user import LinkedAccount, User
from runstream.errors import BadRequestError
from runstream.gateway.host_logins import sealed_tokens
from runstream.hosts.errors import HostError
from runstream.hosts.port import GitHost, OAuth2Tokens
from runstream.sealing import Keyring
from runstream.telemetry import current_traceparent

_EARLY = timedelta(seconds=60)
"""Time before its end at which a token is refreshed."""


@dataclass(frozen=True, slots=True)
class HostTokens:
    """The tokens of linked accounts."""

    store: ConfigStore
    keyring: Keyring
    now: Callable[[], datetime]
    refreshing: WeakValueDictionary[str, asyncio.Lock]
    """By account, shared by all requests: a refresh token works once."""

    async def usable(self, host: GitHost, account_id: str) -> str:
        """Return a token that the host takes.

        Raises NotExistError `linkedAccountDoesNotExist`, BadRequestError `linkedAccountExpired`, HostError.
        """
        lock = self.refreshing.setdefault(account_id, asyncio.Lock())
        async with lock:
            user, account = self._found(account_id)
            if account.credentials.user_access_token is not None:
                return self._opened(account, "user_access_token")
            if account.oauth2_expires_at is None or self.now() < account.oauth2_expires_at - _EARLY:
                return self._opened(account, "oauth2_access_token")
            return await self._refreshed(host, user, account)

    async def _refreshed(self, host: GitHost, user: User, account: LinkedAccount) -> str:
        refresh_token = self._opened(account, "oauth2_refresh_token")
        if not refresh_token:
            raise _expired(account)
        try:
            tokens = await host.refresh(refresh_token)
        except HostError as error:
            if error.code != "hostCredentialsRefused":
                raise
            _, renewed = self._found(account.id)
            if renewed.credentials == account.credentials:
                raise _expired(account) from error
            # Another gateway has used the refresh token.
            return self._opened(renewed, "oauth2_access_token")
        kept = OAuth2Tokens(tokens.access_token, tokens.refresh_token or refresh_token, tokens.expires_at)
        credentials = sealed_tokens(self.keyring, account.id, kept)

        def decide(state: ConfigState) -> Decision:
            return decide_change_account(
                find_user(state, user.id),
                account.id,
                remote_username=account.remote_username,
                remote_user_avatar_url=account.remote_user_avatar_url,
                credentials=credentials,
                oauth2_expires_at=kept.expires_at,
            )

        await self.store.change(decide, actor=f"user:{user.name}", trace=current_traceparent())
        return kept.access_token

    def _found(self, account_id: str) -> tuple[User, LinkedAccount]:
        found = self.store.state.account(account_id)
        if found is None:
            raise missing("linked account", account_id, code="linkedAccountDoesNotExist")
        return found

    def _opened(self, account: LinkedAccount, name: str) -> str:
        return open_text(self.keyring, getattr(account.credentials, name), "linkedaccount", account.id, name)


def _expired(account: LinkedAccount) -> BadRequestError:
    return BadRequestError(
        f"the authorization of the linked account {account.remote_username!r} has expired, or was revoked",
        code="linkedAccountExpired",
        hint="log in through the remote source, which authorizes the account again",
    )

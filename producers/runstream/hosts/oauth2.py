"""OAuth2 with a git host: the URL for the browser, and tokens for a code or a refresh token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import msgspec

from runstream.hosts.client import HostClient, HostRequest
from runstream.hosts.errors import HostError
from runstream.hosts.port import HostSettings, OAuth2Tokens


class _TokenAnswer(msgspec.Struct):
    access_token: str = ""
    refresh_token: str = ""
    expires_in: int | None = None
    error: str = ""
    error_description: str = ""


@dataclass(frozen=True, slots=True)
class OAuth2:
    """The OAuth2 endpoints of a host, and the scopes that Runstream asks for."""

    client: HostClient
    settings: HostSettings
    authorize_url: str
    token_url: str
    scopes: str
    now: Callable[[], float]

    def authorization_url(self, state: str, redirect_url: str, challenge: str) -> str:
        """Return where the browser goes."""
        query = {
            "client_id": self.settings.oauth2_client_id,
            "redirect_uri": redirect_url,
            "response_type": "code",
            "scope": self.scopes,
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{self.authorize_url}?{urlencode(query)}"

    async def exchange_code(self, code: str, redirect_url: str, verifier: str) -> OAuth2Tokens:
        """Return the tokens for a code."""
        return await self._tokens(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": redirect_url,
                "code_verifier": verifier,
            }
        )

    async def refresh(self, refresh_token: str) -> OAuth2Tokens:
        """Return the tokens for a refresh token."""
        return await self._tokens({"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def _tokens(self, form: Mapping[str, str]) -> OAuth2Tokens:
        known = {"client_id": self.settings.oauth2_client_id, "client_secret": self.settings.oauth2_client_secret}
        request = HostRequest("POST", self.token_url, form={**form, **known})
        try:
            answer = await self.client.request(request)
        except HostError as error:
            if error.status in (400, 401):
                raise _refused(error.message) from error
            raise
        told = answer.decode(_TokenAnswer)
        if not told.access_token:  # GitHub refuses with 200
            raise _refused(f"{self.token_url} gives no token: {request.shown(told.error_description or told.error)}")
        expires_at = None
        if told.expires_in is not None:
            expires_at = datetime.fromtimestamp(self.now(), UTC) + timedelta(seconds=min(told.expires_in, 10**9))
        return OAuth2Tokens(told.access_token, told.refresh_token, expires_at)


def _refused(message: str) -> HostError:
    return HostError(
        message, code="hostCredentialsRefused", status=401, hint="authorize at the host again, which gives a new code"
    )

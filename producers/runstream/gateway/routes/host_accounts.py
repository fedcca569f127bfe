"""Accounts at git hosts, by password: links, logins, registrations.

The host checks a password by making an access token for it. Only a linked account keeps that token; it is deleted after
a login, and when the link is refused. Each token has a name of its own: no other account loses its token.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from fastapi import APIRouter
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from runstream import api
from runstream.config.sealed import open_text, seal_text
from runstream.domain.config.decisions.users import NewAccount, decide_add_account, decide_create_user
from runstream.domain.config.permissions import Action
from runstream.domain.config.references import find_remote_source, find_user
from runstream.domain.config.refusals import missing
from runstream.domain.config.remote_source import RemoteSource
from runstream.domain.config.state import ConfigState, Decision
from runstream.domain.config.user import User
from runstream.errors import BadRequestError, ForbiddenError, UnauthorizedError
from runstream.events.user import AccountCredentials
from runstream.gateway.config_bodies import HostLoginBody, LinkAccountBody, RegisterBody
from runstream.gateway.config_requests import ConfigRequest, Ref
from runstream.gateway.context import GatewayContext, documented, json_response
from runstream.gateway.failed_logins import address_of, too_many
from runstream.gateway.routers import api_router
from runstream.gateway.routes.logins import require_own_site, sessions_of, with_headers
from runstream.gateway.views import user_view
from runstream.hosts.errors import HostError
from runstream.hosts.gitea import GiteaHost
from runstream.hosts.github import GitHubHost
from runstream.hosts.gitlab import GitLabHost
from runstream.hosts.port import GitHost, HostSettings, HostUser
from runstream.ids import new_id
from runstream.sealing import Keyring
from runstream.telemetry import current_traceparent

log = structlog.get_logger()
_NO_CREDENTIALS = AccountCredentials(None, None, None)


def host_account_routes(context: GatewayContext) -> APIRouter:
    """Return the routes of linked accounts, and of logins and registrations through a git host."""
    router = api_router("git hosts")
    _login_routes(router, context)
    _linking_routes(router, context)
    return router


def _login_routes(router: APIRouter, context: GatewayContext) -> None:
    @router.post(
        "/auth/login", status_code=201, openapi_extra=documented(HostLoginBody, api.HostLoginAnswer, statuses=(201,))
    )
    async def log_in_at_host(request: Request) -> Response:
        """Log in with a password of a git host, as the user to whom the account is linked; sets a session's cookies."""
        asked = ConfigRequest(context, request)
        body, sessions = await asked.body(HostLoginBody), sessions_of(context)
        require_own_site(request)
        source = find_remote_source(await asked.fresh(), body.remote_source_name)
        _require_enabled(source, "logins", enabled=source.settings.login_enabled)
        async with _passed(context, request, source, body.login_name, body.password) as login:
            remote = login.user
        found = asked.state.remote_user(source.id, remote.id)
        if found is None:
            raise missing("an account linked to the remote user", remote.name, code="linkedAccountDoesNotExist")
        _, headers = await sessions.begin(found[0].id, request.headers.get("user-agent", ""))
        return with_headers(json_response(api.HostLoginAnswer(user_view(found[0])), status=201), headers)

    @router.post(
        "/auth/authorize",
        status_code=201,
        openapi_extra=documented(HostLoginBody, api.HostAuthorizedAnswer, statuses=(201,)),
    )
    async def authorize_at_host(request: Request) -> Response:
        """Check a password of a git host; return its user there."""
        asked = ConfigRequest(context, request)
        body = await asked.body(HostLoginBody)
        source = find_remote_source(await asked.fresh(), body.remote_source_name)
        async with _passed(context, request, source, body.login_name, body.password) as login:
            info = api.RemoteUserInfo(login.user.id, login.user.name, login.user.email)
        headers = {"Cache-Control": "no-store"}
        return json_response(api.HostAuthorizedAnswer(info, source.name), status=201, headers=headers)

    @router.post(
        "/auth/register", status_code=201, openapi_extra=documented(RegisterBody, api.RegisteredAnswer, statuses=(201,))
    )
    async def register(request: Request) -> Response:
        """Create a user with a linked account, for a user of a git host with the right password."""
        asked = ConfigRequest(context, request)
        body, user_id, root_id = await asked.body(RegisterBody), new_id(), new_id()

        def decide(state: ConfigState, account: NewAccount) -> Decision:
            _registering(state, body.remote_source_name)
            return decide_create_user(
                state, user_id=user_id, root_group_id=root_id, name=body.username, account=account
            )

        source = _registering(await asked.fresh(), body.remote_source_name)
        name, password = body.remote_source_login_name, body.remote_source_login_password
        async with _passed(context, request, source, name, password) as login:
            account = login.account(context.keyring)
            await context.config.change(
                lambda state: decide(state, account), actor=f"user:{body.username}", trace=current_traceparent()
            )
            login.kept = True
        return json_response(api.RegisteredAnswer(), status=201)


def _linking_routes(router: APIRouter, context: GatewayContext) -> None:
    @router.post(
        "/users/{user}/linkedaccounts",
        status_code=201,
        openapi_extra=documented(LinkAccountBody, api.LinkedAnswer, statuses=(201,)),
    )
    async def link_account(request: Request, user: Ref) -> Response:
        """Link an account at a git host to the user who asks."""
        asked = ConfigRequest(context, request)
        body = await asked.body(LinkAccountBody)
        state = await asked.fresh()
        _own(asked, state, user)
        source = find_remote_source(state, body.remote_source_name)
        name, password = body.remote_source_login_name, body.remote_source_login_password
        async with _passed(context, request, source, name, password) as login:
            account = login.account(context.keyring)
            headers = await asked.change(lambda state: decide_add_account(state, _own(asked, state, user), account))
            login.kept = True
        view = api.CreatedAccountView(
            account.id,
            account.remote_user_id,
            account.remote_username,
            account.remote_user_avatar_url,
            account.remote_source_id,
        )
        return json_response(api.LinkedAnswer(view), status=201, headers=headers)


def _own(asked: ConfigRequest, state: ConfigState, name: str) -> User:
    """Return the user who asks, whom the path names. Raises the refusal for another user."""
    user = find_user(state, name)
    asked.require(state, Action.USER_TOKENS, user)
    if user.id != asked.actor.user_id:
        raise ForbiddenError(f"an account can be linked by user {user.name!r} alone", hint="log in as that user")
    return user


def _registering(state: ConfigState, name: str) -> RemoteSource:
    source = find_remote_source(state, name)
    _require_enabled(source, "registrations", enabled=source.settings.registration_enabled)
    return source


def _require_enabled(source: RemoteSource, what: str, *, enabled: bool) -> None:
    if not enabled:
        raise BadRequestError(
            f"remote source {source.name!r} does not allow {what}",
            code="remoteSourceDisabled",
            hint="an administrator can allow them: `runstream remotesource update`",
        )


@dataclass(slots=True)
class _Login:
    """A user of a git host who gave the right password."""

    id: str
    source: RemoteSource
    user: HostUser
    token: str
    kept: bool = False
    """Set once a linked account has the token."""

    def account(self, keyring: Keyring) -> NewAccount:
        sealed = seal_text(keyring, self.token, "linkedaccount", self.id, "user_access_token")
        return NewAccount(
            self.id,
            self.source.id,
            self.user.id,
            self.user.name,
            self.user.avatar_url,
            replace(_NO_CREDENTIALS, user_access_token=sealed),
            None,
        )


@asynccontextmanager
async def _passed(
    context: GatewayContext, request: Request, source: RemoteSource, name: str, password: str
) -> AsyncIterator[_Login]:
    """Check a password at a git host. The token made for it is deleted unless the login is kept.

    Raises UnauthorizedError `invalidPassword`, BadRequestError, HostError.
    """
    if source.settings.auth_type != "password":
        raise BadRequestError(
            f"remote source {source.name!r} has no login with a password",
            code="invalidRemoteSourceAuthType",
            hint="OAuth2 is not supported yet: use a remote source with the authentication type password",
        )
    sessions = sessions_of(context)
    # A password can be guessed: unlike a token, even a right one is refused from an address with many failures.
    if sessions.failures.limited(address_of(request.scope)):
        raise too_many()
    login_id = new_id()
    token_name = f"runstream-{login_id}"
    async with _host(source, context.keyring) as host:
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
        login = _Login(login_id, source, made.user, made.token)
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


@asynccontextmanager
async def _host(source: RemoteSource, keyring: Keyring) -> AsyncIterator[GitHost]:
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

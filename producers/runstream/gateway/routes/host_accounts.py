"""Accounts at git hosts: links, logins and registrations, by password or by OAuth2.

With OAuth2, the first request answers where the browser goes. The host sends it back to `/oauth2/callback`, which ends
on the page; a client that shows a page of its own asks `/auth/oauth2/callback`, which answers JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from html import escape
from types import MappingProxyType
from typing import Annotated, TypeAlias
from weakref import WeakValueDictionary

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from runstream import api
from runstream.api.answer import Answer
from runstream.domain.config.decisions.users import (
    NewAccount,
    decide_add_account,
    decide_change_account,
    decide_create_user,
)
from runstream.domain.config.permissions import Action
from runstream.domain.config.references import find_remote_source, find_user
from runstream.domain.config.refusals import missing
from runstream.domain.config.remote_source import RemoteSource
from runstream.domain.config.state import ConfigState, Decision
from runstream.domain.config.user import User
from runstream.errors import BadRequestError, ForbiddenError, RunstreamError
from runstream.gateway.config_bodies import HostLoginBody, LinkAccountBody, RegisterBody
from runstream.gateway.config_requests import ConfigRequest, Ref
from runstream.gateway.context import GatewayContext, documented, json_response
from runstream.gateway.errors import error_response
from runstream.gateway.failed_logins import address_of
from runstream.gateway.host_logins import HostLogin, code_login, open_host, password_login
from runstream.gateway.host_tokens import HostTokens
from runstream.gateway.oauth2_states import OAuth2RequestType, OAuth2State, OAuth2States
from runstream.gateway.routers import api_router
from runstream.gateway.routes.logins import require_own_site, sessions_of, with_headers
from runstream.gateway.routes.users import own_user
from runstream.gateway.views import user_view
from runstream.gateway.web_page import PREFIX as PAGE
from runstream.gateway.web_page import SAFETY
from runstream.hosts.port import HostRepository
from runstream.ids import new_id
from runstream.limits import MAX_WORD_BYTES
from runstream.telemetry import current_traceparent

CALLBACK = "/oauth2/callback"
"""Where a git host sends the browser back, below the URL of the gateway."""
_Headers: TypeAlias = list[tuple[str, str]]
_Word = Annotated[str, Query(max_length=MAX_WORD_BYTES)]
_Long = Annotated[str, Query(max_length=8192)]
_FAILED = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Login failed - Runstream</title>
<h1>The login failed</h1>
<p>{message}</p>
<p>{hint}</p>
<p><a href="{page}/login">Log in</a></p>
</html>
"""


def host_account_routes(context: GatewayContext) -> APIRouter:
    """Return the routes of linked accounts, and of logins and registrations through a git host."""
    router = api_router("git hosts")
    accounts = _HostAccounts(context)
    _login_routes(router, accounts)
    _callback_routes(router, accounts)
    _repository_routes(router, context)
    return router


def _login_routes(router: APIRouter, accounts: _HostAccounts) -> None:
    @router.post(
        "/auth/login",
        status_code=201,
        openapi_extra=documented(HostLoginBody, api.HostLoginAnswer, api.HostRedirectAnswer, statuses=(201,)),
    )
    async def log_in_at_host(request: Request) -> Response:
        """Log in as the user to whom an account at a git host is linked; sets a session's cookies."""
        asked = ConfigRequest(accounts.context, request)
        body = await asked.body(HostLoginBody)
        require_own_site(request)
        source = find_remote_source(await asked.fresh(), body.remote_source_name)
        _logins(source)
        if source.settings.auth_type == "oauth2":
            return await accounts.redirect(request, "loginuser", source)
        async with accounts.passed(request, source, body.login_name, body.password) as login:
            pass
        answer, headers = await accounts.log_in(request, login)
        return with_headers(json_response(answer, status=201), headers)

    @router.post(
        "/auth/authorize",
        status_code=201,
        openapi_extra=documented(HostLoginBody, api.HostAuthorizedAnswer, api.HostRedirectAnswer, statuses=(201,)),
    )
    async def authorize_at_host(request: Request) -> Response:
        """Return the user of a git host, as one who registers; the user needs no account here."""
        asked = ConfigRequest(accounts.context, request)
        body = await asked.body(HostLoginBody)
        require_own_site(request)
        source = find_remote_source(await asked.fresh(), body.remote_source_name)
        if source.settings.auth_type == "oauth2":
            return await accounts.redirect(request, "authorize", source)
        async with accounts.passed(request, source, body.login_name, body.password) as login:
            pass
        return with_headers(json_response(_authorized(login), status=201), [])

    @router.post(
        "/auth/register",
        status_code=201,
        openapi_extra=documented(RegisterBody, api.HostRedirectAnswer, statuses=(201,)),
    )
    async def register(request: Request) -> Response:
        """Create a user with a linked account, for a user of a git host."""
        asked = ConfigRequest(accounts.context, request)
        body = await asked.body(RegisterBody)
        require_own_site(request)
        source = find_remote_source(await asked.fresh(), body.remote_source_name)
        _registrations(source)
        if source.settings.auth_type == "oauth2":
            return await accounts.redirect(request, "registeruser", source, body.username)
        name, password = body.remote_source_login_name, body.remote_source_login_password
        async with accounts.passed(request, source, name, password) as login:
            await accounts.register(login, body.username)
        return json_response(api.HostRedirectAnswer(), status=201)

    @router.post(
        "/users/{user}/linkedaccounts",
        status_code=201,
        openapi_extra=documented(LinkAccountBody, api.LinkedAnswer, api.HostRedirectAnswer, statuses=(201,)),
    )
    async def link_account(request: Request, user: Ref) -> Response:
        """Link an account at a git host to the user who asks."""
        asked = ConfigRequest(accounts.context, request)
        body = await asked.body(LinkAccountBody)
        state = await asked.fresh()
        found = _own(asked, state, user)
        source = find_remote_source(state, body.remote_source_name)
        if source.settings.auth_type == "oauth2":
            return await accounts.redirect(request, "createuserla", source, found.id)
        name, password = body.remote_source_login_name, body.remote_source_login_password
        async with accounts.passed(request, source, name, password) as login:
            account = login.account(accounts.context.keyring)
            headers = await asked.change(lambda state: decide_add_account(state, _own(asked, state, user), account))
            login.kept = True
        return json_response(_linked(account), status=201, headers=headers)


def _callback_routes(router: APIRouter, accounts: _HostAccounts) -> None:
    @router.get("/auth/oauth2/callback", openapi_extra=documented(None, api.OAuth2CallbackAnswer))
    async def finish_oauth2(
        request: Request, state: _Long = "", code: _Long = "", error: _Word = "", error_description: _Long = ""
    ) -> Response:
        """Do what was asked for before the browser went to the git host; a login sets a session's cookies."""
        asked, answer, headers = await accounts.finish(request, state, code, error_description or error)
        shown = api.OAuth2CallbackAnswer(asked.request_type, msgspec.to_builtins(answer))
        return with_headers(json_response(shown), headers)

    async def finish_on_page(request: Request) -> Response:
        query = request.query_params
        try:
            asked, _, headers = await accounts.finish(
                request,
                query.get("state", ""),
                query.get("code", ""),
                query.get("error_description", "") or query.get("error", ""),
                log_in=True,
            )
        except RunstreamError as error:
            status = error_response(error).status_code
            page = _FAILED.format(message=escape(error.message), hint=escape(error.hint), page=PAGE)
            return with_headers(HTMLResponse(page, status, headers=dict(SAFETY)), [])
        place = {"createuserla": "/user?tab=hosts", "authorize": "/login"}.get(asked.request_type, "/")
        return with_headers(RedirectResponse(f"{PAGE}{place}", 303, headers=dict(SAFETY)), headers)

    router.routes.append(Route(CALLBACK, finish_on_page, methods=["GET"]))


def _repository_routes(router: APIRouter, context: GatewayContext) -> None:
    refreshing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @router.get("/user/remoterepos/{source}", openapi_extra=documented(None, list[api.RemoteRepositoryView]))
    async def get_remote_repositories(request: Request, source: Ref) -> Response:
        """Return the repositories of a git host that the linked account of the user who asks administers, by path."""
        asked = ConfigRequest(context, request)
        state = await asked.fresh()
        user, found = own_user(asked, state), find_remote_source(state, source)
        account = next((one for one in user.accounts.values() if one.remote_source_id == found.id), None)
        if account is None:
            raise missing("an account linked to the remote source", found.name, code="linkedAccountDoesNotExist")
        tokens = HostTokens(context.config, context.keyring, sessions_of(context).now, refreshing)
        async with open_host(found, context.keyring) as host:
            listed = await host.administered_repositories(await tokens.usable(host, account.id))
        return json_response([api.RemoteRepositoryView(one.id, one.path) for one in sorted(listed, key=_by_path)])


def _by_path(repository: HostRepository) -> str:
    return repository.path


@dataclass(frozen=True, slots=True)
class _HostAccounts:
    """What the routes share: logins at hosts, and what follows from one."""

    context: GatewayContext

    def passed(
        self, request: Request, source: RemoteSource, name: str, password: str
    ) -> AbstractAsyncContextManager[HostLogin]:
        failures = sessions_of(self.context).failures
        return password_login(self.context.keyring, failures, address_of(request.scope), source, name, password)

    async def redirect(
        self, request: Request, request_type: OAuth2RequestType, source: RemoteSource, name: str = ""
    ) -> Response:
        """Return where the browser goes, and the cookie with which it comes back."""
        base = self.context.settings.exposed_url or str(request.base_url)
        redirect_url = f"{base.rstrip('/')}{CALLBACK}"
        begun = self._states.begin(request_type, source.id, name, redirect_url)
        async with open_host(source, self.context.keyring) as host:
            url = host.authorization_url(begun.state, redirect_url, begun.challenge)
        return with_headers(json_response(api.HostRedirectAnswer(url), status=201), [begun.header])

    async def finish(
        self, request: Request, state: str, code: str, problem: str, *, log_in: bool = False
    ) -> tuple[OAuth2State, Answer, _Headers]:
        """Do what a state stands for; return the answer, and the headers of a session for a login.

        With `log_in`, a user who registers is logged in, too.
        """
        asked = await self._states.redeem(state, request.cookies)
        if not code:
            raise BadRequestError(
                f"the git host sent no code: {problem[:200]!r}" if problem else "the git host sent no code",
                code="invalidOAuth2Code",
                hint="begin the login again, and allow the access at the host",
            )
        source = find_remote_source(self.context.config.state, asked.remote_source_id)
        if asked.request_type in _ENABLED:
            _ENABLED[asked.request_type](source)
        login = await code_login(self.context.keyring, source, code, asked.redirect_url, asked.verifier)
        match asked.request_type:
            case "loginuser":
                return asked, *await self.log_in(request, login)
            case "authorize":
                return asked, _authorized(login), []
            case "registeruser":
                await self.register(login, asked.name)
                headers = (await self.log_in(request, login))[1] if log_in else []
                return asked, api.HostRedirectAnswer(), headers
            case "createuserla":
                return asked, await self._link(login, asked.name), []

    async def log_in(self, request: Request, login: HostLogin) -> tuple[api.HostLoginAnswer, _Headers]:
        """Begin a session of the user to whom the account is linked. The account takes the new tokens of OAuth2."""
        found = self.context.config.state.remote_user(login.source.id, login.user.id)
        if found is None:
            raise missing("an account linked to the remote user", login.user.name, code="linkedAccountDoesNotExist")
        user, account = found
        if login.oauth2 is not None and not login.kept:
            renewed = partial(
                decide_change_account,
                account_id=account.id,
                remote_username=login.user.name,
                remote_user_avatar_url=login.user.avatar_url,
                credentials=login.credentials(self.context.keyring, account.id),
                oauth2_expires_at=login.expires_at,
            )
            await self._change(lambda state: renewed(find_user(state, user.id)), user.name)
        _, headers = await sessions_of(self.context).begin(user.id, request.headers.get("user-agent", ""))
        return api.HostLoginAnswer(user_view(user)), headers

    async def register(self, login: HostLogin, username: str) -> None:
        account, user_id, root_id = login.account(self.context.keyring), new_id(), new_id()

        def decide(state: ConfigState) -> Decision:
            _registrations(find_remote_source(state, login.source.id))
            return decide_create_user(state, user_id=user_id, root_group_id=root_id, name=username, account=account)

        await self._change(decide, username)
        login.kept = True

    async def _link(self, login: HostLogin, user_id: str) -> api.LinkedAnswer:
        account = login.account(self.context.keyring)
        user = find_user(self.context.config.state, user_id)
        await self._change(lambda state: decide_add_account(state, find_user(state, user_id), account), user.name)
        return _linked(account)

    async def _change(self, decide: Callable[[ConfigState], Decision], username: str) -> None:
        await self.context.config.change(decide, actor=f"user:{username}", trace=current_traceparent())

    @property
    def _states(self) -> OAuth2States:
        return OAuth2States(self.context.keyring, sessions_of(self.context))


def _authorized(login: HostLogin) -> api.HostAuthorizedAnswer:
    info = api.RemoteUserInfo(login.user.id, login.user.name, login.user.email)
    return api.HostAuthorizedAnswer(info, login.source.name)


def _linked(account: NewAccount) -> api.LinkedAnswer:
    return api.LinkedAnswer(
        api.CreatedAccountView(
            account.id,
            account.remote_user_id,
            account.remote_username,
            account.remote_user_avatar_url,
            account.remote_source_id,
        )
    )


def _own(asked: ConfigRequest, state: ConfigState, name: str) -> User:
    """Return the user who asks, whom the path names. Raises the refusal for another user."""
    user = find_user(state, name)
    asked.require(state, Action.USER_TOKENS, user)
    if user.id != asked.actor.user_id:
        raise ForbiddenError(f"an account can be linked by user {user.name!r} alone", hint="log in as that user")
    return user


def _logins(source: RemoteSource) -> None:
    _require_enabled(source, "logins", enabled=source.settings.login_enabled)


def _registrations(source: RemoteSource) -> None:
    _require_enabled(source, "registrations", enabled=source.settings.registration_enabled)


def _require_enabled(source: RemoteSource, what: str, *, enabled: bool) -> None:
    if not enabled:
        raise BadRequestError(
            f"remote source {source.name!r} does not allow {what}",
            code="remoteSourceDisabled",
            hint="an administrator can allow them: `runstream remotesource update`",
        )


_ENABLED: Mapping[OAuth2RequestType, Callable[[RemoteSource], None]] = MappingProxyType(
    {"loginuser": _logins, "registeruser": _registrations}
)

"""Logins of browsers: /auth/loginlink, /auth/session, /auth/sessions.

The secret of a link is in its fragment, which a browser does not send: no log of a server or proxy has it, and programs
that look at links (chats, mail) do not use it up.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream import api
from runstream.domain.config.permissions import Action, Actor
from runstream.domain.config.references import find_user
from runstream.domain.config.refusals import missing
from runstream.errors import BadRequestError, ForbiddenError
from runstream.gateway.config_bodies import LoginLinkBody, LoginTokenBody
from runstream.gateway.config_requests import ConfigRequest
from runstream.gateway.context import GatewayContext, documented, json_response
from runstream.gateway.failed_logins import address_of
from runstream.gateway.routers import api_router
from runstream.gateway.routes.users import own_user
from runstream.gateway.sender import sender_of
from runstream.gateway.sessions import ADMIN, BrowserSession, Sessions
from runstream.limits import MAX_WORD_BYTES

_User = Annotated[str, Query(max_length=MAX_WORD_BYTES, description="a user, by name or id; the sender without it")]


def login_routes(context: GatewayContext) -> APIRouter:
    """Return the routes of logins and sessions."""
    router = api_router("logins")

    @router.post(
        "/auth/loginlink", status_code=201, openapi_extra=documented(LoginLinkBody, api.LoginLink, statuses=(201,))
    )
    async def create_link(request: Request) -> Response:
        """Make a link that logs a user in once, within five minutes; without a name, the sender."""
        asked = ConfigRequest(context, request)
        body, sessions = await asked.body(LoginLinkBody), sessions_of(context)
        asked_for = _owner(asked, body.username or "")
        text, ends = await sessions.link("" if asked_for == ADMIN else asked_for)
        link = api.LoginLink(login_url(context.settings.exposed_url or str(request.base_url), text), ends)
        return json_response(link, status=201, headers={"Cache-Control": "no-store"})

    @router.post(
        "/auth/session", status_code=201, openapi_extra=documented(LoginTokenBody, api.LoginView, statuses=(201,))
    )
    async def log_in(request: Request) -> Response:
        """Log in with the secret of a login link, or with a token; the response sets the cookies of a session."""
        body = await ConfigRequest(context, request).body(LoginTokenBody)
        actor, headers = await _logged_in(context, request, body.token)
        return with_headers(json_response(_login(context, actor), status=201), headers)

    @router.get("/auth/session", openapi_extra=documented(None, api.LoginView))
    async def get_login(request: Request) -> Response:
        """Return who sends the request: by a session's cookies, or a token."""
        return json_response(_login(context, sender_of(request).actor), headers={"Cache-Control": "no-store"})

    @router.delete("/auth/session", status_code=204)
    async def log_out(request: Request) -> Response:
        """End the session of the request."""
        sender, sessions = sender_of(request), sessions_of(context)
        if not sender.session:
            raise BadRequestError("the request has no session", code="sessionDoesNotExist", hint="tokens have none")
        await sessions.revoke(sender.actor.user_id or ADMIN, sender.session)
        return with_headers(Response(status_code=204), sessions.ended_cookies())

    @router.get("/auth/sessions", openapi_extra=documented(None, list[api.SessionView]))
    async def get_sessions(request: Request, user: _User = "") -> Response:
        """Return the sessions of a user, the oldest first."""
        asked = ConfigRequest(context, request)
        found = await sessions_of(context).of(_owner(asked, user))
        return json_response([_view(one, asked.sender.session) for one in found])

    @router.delete("/auth/sessions/{session_id}", status_code=204)
    async def end_session(request: Request, session_id: str, user: _User = "") -> Response:
        """End a session of a user."""
        if not await sessions_of(context).revoke(_owner(ConfigRequest(context, request), user), session_id):
            raise missing("session", session_id, code="sessionDoesNotExist")
        return Response(status_code=204)

    return router


def _view(session: BrowserSession, current: str) -> api.SessionView:
    return api.SessionView(
        session.id, session.created_at, session.expires_at, session.user_agent, session.id == current
    )


def sessions_of(context: GatewayContext) -> Sessions:
    """Return the sessions of browsers. Raises BadRequestError in a gateway without them."""
    if context.sessions is None:
        raise BadRequestError("this gateway has no sessions", code="sessionDoesNotExist", hint="use a token")
    return context.sessions


def _owner(asked: ConfigRequest, name: str) -> str:
    """Return whose sessions a request is about: the user that it names, or its sender."""
    if not name and not asked.actor.user_id:
        # A token that only reads makes no logins that do more.
        asked.require(asked.state, Action.ADMINISTER)
        return ADMIN
    user = find_user(asked.state, name) if name else own_user(asked, asked.state)
    asked.require(asked.state, Action.USER_TOKENS, user)
    return user.id


def login_url(base: str, secret: str, then: str = "") -> str:
    """Return a login link below the URL of a gateway, which leads to the path `then` of the page."""
    return f"{base.rstrip('/')}/ui/login{f'?next={quote(then)}' if then else ''}#{quote(secret)}"


def _login(context: GatewayContext, actor: Actor) -> api.LoginView:
    user = context.config.state.users[actor.user_id] if actor.user_id else None
    shown = api.UserView(user.id, user.name) if user is not None else None
    return api.LoginView(shown, actor.admin, actor.scope)


def require_own_site(request: Request) -> None:
    """Raise ForbiddenError for a login that the page of another site asks for."""
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise ForbiddenError(
            "a page of another site may not log you in", code="crossSiteRequest", hint="open the link itself"
        )


async def _logged_in(context: GatewayContext, request: Request, token: str) -> tuple[Actor, list[tuple[str, str]]]:
    require_own_site(request)
    return await sessions_of(context).log_in(token, address_of(request.scope), request.headers.get("user-agent", ""))


def with_headers(response: Response, headers: list[tuple[str, str]]) -> Response:
    """Add the headers of a session to a response, which no cache keeps."""
    for name, value in headers:
        response.headers.append(name, value)
    response.headers["Cache-Control"] = "no-store"
    return response

"""Users and their tokens: /user, /users."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream import api
from runstream.config.tokens import new_token
from runstream.domain.config.decisions.users import (
    NewToken,
    decide_create_token,
    decide_create_user,
    decide_delete_token,
    decide_delete_user,
    decide_remove_account,
    decide_rename_user,
    decide_set_admin,
)
from runstream.domain.config.lists import list_users
from runstream.domain.config.permissions import Action
from runstream.domain.config.references import find_remote_source, find_user
from runstream.domain.config.refusals import missing, shown
from runstream.domain.config.state import ConfigState, Decision
from runstream.domain.config.user import User
from runstream.errors import BadRequestError
from runstream.gateway.config_bodies import CreateTokenBody, CreateUserBody, UpdateUserBody
from runstream.gateway.config_requests import At, ConfigRequest, Ref
from runstream.gateway.context import GatewayContext, documented, json_response
from runstream.gateway.cursors import Page
from runstream.gateway.routers import api_router
from runstream.gateway.views import private_user_view, token_entry, user_view
from runstream.ids import new_id
from runstream.limits import MAX_WORD_BYTES

_Word = Annotated[str, Query(max_length=MAX_WORD_BYTES)]


def user_routes(context: GatewayContext) -> APIRouter:
    """Return the routes of users and their tokens."""
    router = api_router("users")
    _reading_routes(router, context)
    _changing_routes(router, context)
    _token_routes(router, context)
    return router


def own_user(asked: ConfigRequest, state: ConfigState) -> User:
    """Return the user who sends a request. Raises ForbiddenError for the admin token, which is no user."""
    asked.require(state, Action.READ_SELF)
    return state.users[asked.actor.user_id]


def _reading_routes(router: APIRouter, context: GatewayContext) -> None:
    @router.get("/user", openapi_extra=documented(None, api.PrivateUserView))
    async def get_own_user(request: Request) -> Response:
        """Return the user who asks, with the names of the tokens and the linked accounts."""
        asked = ConfigRequest(context, request)
        return json_response(private_user_view(own_user(asked, await asked.fresh())))

    @router.get("/users/{user}", openapi_extra=documented(None, api.UserView))
    async def get_user(request: Request, user: Ref, at: At = "") -> Response:
        """Return a user, by name or id."""
        asked = ConfigRequest(context, request)
        state = await asked.state_at(at)
        asked.require(asked.state, Action.READ_USER)
        return json_response(user_view(asked.seen(state, find_user, user, at)))

    @router.get("/users", openapi_extra=documented(None, list[api.PrivateUserView]))
    async def get_users(
        request: Request,
        page: Page,
        query_type: _Word = "",
        remoteuserid: _Word = "",
        remotesourceref: _Word = "",
    ) -> Response:
        """Return users by name; or with `query_type=byremoteuser` the user to whom an account is linked."""
        asked = ConfigRequest(context, request)
        state = await asked.fresh()
        asked.require(state, Action.LIST_USERS)
        if query_type:
            return json_response([private_user_view(_linked(state, query_type, remotesourceref, remoteuserid))])
        found, more = list_users(state, page.page)
        headers = page.headers(found[-1].name if found else "", more=more)
        return json_response([private_user_view(user) for user in found], headers=headers)


def _linked(state: ConfigState, query_type: str, source: str, remote_user_id: str) -> User:
    if query_type != "byremoteuser":
        raise BadRequestError(
            f"query_type must be byremoteuser (got {shown(query_type)})",
            code="invalidQueryType",
            hint="leave it out for all users",
        )
    found = state.remote_user(find_remote_source(state, source).id, remote_user_id)
    if found is None:
        raise missing("an account linked to the remote user", remote_user_id, code="linkedAccountDoesNotExist")
    return found[0]


def _changing_routes(router: APIRouter, context: GatewayContext) -> None:
    @router.post("/users", status_code=201, openapi_extra=documented(CreateUserBody, api.UserView, statuses=(201,)))
    async def create_user(request: Request) -> Response:
        """Create a user, with a public root project group."""
        asked = ConfigRequest(context, request)
        body, key, root = await asked.body(CreateUserBody), new_id(), new_id()

        def decide(state: ConfigState) -> Decision:
            asked.require(state, Action.CHANGE_USERS)
            return decide_create_user(state, user_id=key, root_group_id=root, name=body.username)

        return await asked.changed(decide, lambda state: user_view(state.users[key]), status=201)

    @router.put("/users/{user}", openapi_extra=documented(UpdateUserBody, api.UserView))
    async def update_user(request: Request, user: Ref) -> Response:
        """Rename a user, or make the user an administrator of the deployment, or none any more."""
        asked = ConfigRequest(context, request)
        body = await asked.body(UpdateUserBody)
        key = ""

        def decide(state: ConfigState) -> Decision:
            nonlocal key
            asked.require(state, Action.CHANGE_USERS)
            found = find_user(state, user)
            key = found.id
            renamed = decide_rename_user(state, found, body.username) if body.username is not None else []
            return _one_commit(
                [*renamed, *(decide_set_admin(found, admin=body.admin) if body.admin is not None else [])]
            )

        return await asked.changed(decide, lambda state: user_view(state.users[key]))

    @router.delete("/users/{user}", status_code=204)
    async def delete_user(request: Request, user: Ref) -> Response:
        """Delete a user with everything that belongs to the user; refused for the last owner of an organization."""
        asked = ConfigRequest(context, request)

        def decide(state: ConfigState) -> Decision:
            asked.require(state, Action.CHANGE_USERS)
            return decide_delete_user(state, find_user(state, user))

        return Response(status_code=204, headers=await asked.change(decide))

    @router.delete("/users/{user}/linkedaccounts/{account}", status_code=204)
    async def delete_account(request: Request, user: Ref, account: Ref) -> Response:
        """Unlink an account at a git host."""
        asked = ConfigRequest(context, request)

        def decide(state: ConfigState) -> Decision:
            found = find_user(state, user)
            asked.require(state, Action.USER_TOKENS, found)
            return decide_remove_account(found, account)

        return Response(status_code=204, headers=await asked.change(decide))


def _one_commit(decision: Decision) -> Decision:
    """Join changes of one thing."""
    if not decision:
        return []
    first = decision[0]
    return [type(first)(first.kind, first.id, tuple(event for change in decision for event in change.events))]


def _token_routes(router: APIRouter, context: GatewayContext) -> None:
    @router.get("/users/{user}/tokens", openapi_extra=documented(None, list[api.TokenEntry]))
    async def get_tokens(request: Request, user: Ref) -> Response:
        """Return the tokens of a user, without their texts, by name."""
        asked = ConfigRequest(context, request)
        state = await asked.fresh()
        found = find_user(state, user)
        asked.require(state, Action.USER_TOKENS, found)
        return json_response([token_entry(one) for one in sorted(found.tokens.values(), key=lambda one: one.name)])

    @router.post(
        "/users/{user}/tokens",
        status_code=201,
        openapi_extra=documented(CreateTokenBody, api.TokenView, statuses=(201,)),
    )
    async def create_token(request: Request, user: Ref) -> Response:
        """Create a token of a user. Its text is in this response alone."""
        asked = ConfigRequest(context, request)
        body, (text, digest) = await asked.body(CreateTokenBody), new_token()
        new = NewToken(new_id(), body.token_name, digest, body.scope, body.expires_at)

        def decide(state: ConfigState) -> Decision:
            found = find_user(state, user)
            asked.require(state, Action.USER_TOKENS, found)
            return decide_create_token(found, new, context.config.now())

        headers = await asked.change(decide)
        return json_response(api.TokenView(text), status=201, headers={**headers, "Cache-Control": "no-store"})

    @router.delete("/users/{user}/tokens/{name}", status_code=204)
    async def delete_token(request: Request, user: Ref, name: Ref) -> Response:
        """Revoke a token."""
        asked = ConfigRequest(context, request)

        def decide(state: ConfigState) -> Decision:
            found = find_user(state, user)
            asked.require(state, Action.USER_TOKENS, found)
            return decide_delete_token(found, name)

        return Response(status_code=204, headers=await asked.change(decide))

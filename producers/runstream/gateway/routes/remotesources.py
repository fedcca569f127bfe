"""Remote sources, the git hosts of users and projects: /remotesources."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from runstream import api
from runstream.config.sealed import seal_text
from runstream.domain.config.decisions.remote_sources import (
    decide_change_remote_source,
    decide_create_remote_source,
    decide_delete_remote_source,
)
from runstream.domain.config.lists import list_remote_sources
from runstream.domain.config.permissions import Action
from runstream.domain.config.references import find_remote_source
from runstream.domain.config.refusals import missing
from runstream.domain.config.remote_source import RemoteSource
from runstream.domain.config.state import ConfigState, Decision
from runstream.events.remote_source import RemoteAuthType, RemoteSourceSettings, RemoteSourceType
from runstream.events.run_config import Sealed
from runstream.gateway.config_bodies import CreateRemoteSourceBody, UpdateRemoteSourceBody
from runstream.gateway.config_requests import ConfigRequest, Ref
from runstream.gateway.context import GatewayContext, documented, json_response
from runstream.gateway.cursors import Page
from runstream.gateway.routers import api_router
from runstream.gateway.views import remote_source_view
from runstream.ids import new_id
from runstream.sealing import Keyring


def remote_source_routes(context: GatewayContext) -> APIRouter:
    """Return the routes of remote sources."""
    router = api_router("remote sources")
    _reading_routes(router, context)
    _changing_routes(router, context)
    return router


def _reading_routes(router: APIRouter, context: GatewayContext) -> None:
    @router.get("/remotesources", openapi_extra=documented(None, list[api.RemoteSourceView]))
    async def get_sources(request: Request, page: Page) -> Response:
        """Return remote sources by name. Needs no login."""
        asked = ConfigRequest(context, request)
        found, more = list_remote_sources(await asked.fresh(), page.page)
        headers = page.headers(found[-1].name if found else "", more=more)
        return json_response([remote_source_view(one) for one in found], headers=headers)

    @router.get("/remotesources/{source}", openapi_extra=documented(None, api.RemoteSourceView))
    async def get_source(request: Request, source: Ref) -> Response:
        """Return a remote source, by name or id."""
        asked = ConfigRequest(context, request)
        state = await asked.fresh()
        asked.require(state, Action.READ_REMOTE_SOURCE)
        return json_response(remote_source_view(find_remote_source(state, source)))


def _changing_routes(router: APIRouter, context: GatewayContext) -> None:
    @router.post(
        "/remotesources",
        status_code=201,
        openapi_extra=documented(CreateRemoteSourceBody, api.RemoteSourceView, statuses=(201,)),
    )
    async def create_source(request: Request) -> Response:
        """Create a remote source."""
        asked = ConfigRequest(context, request)
        body, key = await asked.body(CreateRemoteSourceBody), new_id()
        secret = _sealed(context.keyring, key, body.oauth_2_client_secret)

        def decide(state: ConfigState) -> Decision:
            asked.require(state, Action.CHANGE_REMOTE_SOURCES)
            return decide_create_remote_source(state, source_id=key, name=body.name, settings=_settings(body, secret))

        return await asked.changed(decide, lambda state: remote_source_view(state.remote_sources[key]), status=201)

    @router.put(
        "/remotesources/{source}",
        status_code=201,
        openapi_extra=documented(UpdateRemoteSourceBody, api.RemoteSourceView, statuses=(201,)),
    )
    async def update_source(request: Request, source: Ref) -> Response:
        """Rename a remote source, or change its settings; its type and its way to log in stay."""
        asked = ConfigRequest(context, request)
        body = await asked.body(UpdateRemoteSourceBody)
        key = ""

        def decide(state: ConfigState) -> Decision:
            nonlocal key
            asked.require(state, Action.CHANGE_REMOTE_SOURCES)
            found = _by_name(state, source)
            key = found.id
            settings = _changed(context.keyring, found, body)
            return decide_change_remote_source(state, found, name=body.name, settings=settings)

        return await asked.changed(decide, lambda state: remote_source_view(state.remote_sources[key]), status=201)

    @router.delete("/remotesources/{source}", status_code=204)
    async def delete_source(request: Request, source: Ref) -> Response:
        """Delete a remote source to which no account is linked."""
        asked = ConfigRequest(context, request)

        def decide(state: ConfigState) -> Decision:
            asked.require(state, Action.CHANGE_REMOTE_SOURCES)
            return decide_delete_remote_source(state, _by_name(state, source))

        return Response(status_code=204, headers=await asked.change(decide))


def _by_name(state: ConfigState, name: str) -> RemoteSource:
    """Return the remote source of this name; changes do not take ids. Raises NotExistError."""
    found = state.named("remotesource", "", name)
    if found is None:
        raise missing("remote source", name, code="remoteSourceDoesNotExist")
    return state.remote_sources[found]


def _sealed(keyring: Keyring, source_id: str, text: str) -> Sealed | None:
    return seal_text(keyring, text, "remotesource", source_id, "oauth2_client_secret") if text else None


def _settings(body: CreateRemoteSourceBody, secret: Sealed | None) -> RemoteSourceSettings:
    return RemoteSourceSettings(
        type=cast("RemoteSourceType", body.type),
        auth_type=cast("RemoteAuthType", body.auth_type),
        apiurl=body.apiurl,
        skip_verify=body.skip_verify,
        oauth2_client_id=body.oauth_2_client_id,
        oauth2_client_secret=secret,
        ssh_host_key=body.ssh_host_key,
        skip_ssh_host_key_check=body.skip_ssh_host_key_check,
        registration_enabled=body.registration_enabled,
        login_enabled=body.login_enabled,
    )


def _changed(keyring: Keyring, source: RemoteSource, body: UpdateRemoteSourceBody) -> RemoteSourceSettings:
    asked: dict[str, object] = {
        "apiurl": body.apiurl,
        "skip_verify": body.skip_verify,
        "oauth2_client_id": body.oauth_2_client_id,
        "ssh_host_key": body.ssh_host_key,
        "skip_ssh_host_key_check": body.skip_ssh_host_key_check,
        "registration_enabled": body.registration_enabled,
        "login_enabled": body.login_enabled,
    }
    if body.oauth_2_client_secret is not None:
        asked["oauth2_client_secret"] = _sealed(keyring, source.id, body.oauth_2_client_secret)
    settings = replace(source.settings, **{key: value for key, value in asked.items() if value is not None})
    if body.oauth_2_client_secret == "":
        settings = replace(settings, oauth2_client_secret=None)
    return settings

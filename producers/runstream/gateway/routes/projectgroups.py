"""Project groups: /projectgroups."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from runstream import api
from runstream.domain.config.decisions.project_groups import (
    decide_change_project_group,
    decide_create_project_group,
    decide_delete_project_group,
)
from runstream.domain.config.permissions import Action
from runstream.domain.config.project_group import ProjectGroup
from runstream.domain.config.references import find_parent_group, find_project_group
from runstream.domain.config.state import ConfigState, Decision
from runstream.events.organization import Visibility
from runstream.gateway.config_bodies import CreateProjectGroupBody, UpdateProjectGroupBody
from runstream.gateway.config_requests import At, ConfigRequest, Ref
from runstream.gateway.context import GatewayContext, documented, json_response
from runstream.gateway.routers import api_router
from runstream.gateway.views import project_group_view, project_view
from runstream.ids import new_id


def own_or_named_group(asked: ConfigRequest, state: ConfigState, reference: str, action: Action) -> ProjectGroup:
    """Return the group in which something is created: the sender's own for an empty reference.

    Raises NotExistError, BadRequestError, and the refusal if the sender may not create it there.
    """
    if not reference and asked.actor.user_id not in state.users:
        asked.require(state, action)
    group = find_parent_group(state, reference) if reference else state.root_group(asked.actor.user_id)
    asked.require(state, action, group)
    return group


def project_group_routes(context: GatewayContext) -> APIRouter:
    """Return the routes of project groups."""
    router = api_router("project groups")
    _reading_routes(router, context)
    _changing_routes(router, context)
    return router


def _reading_routes(router: APIRouter, context: GatewayContext) -> None:
    async def readable(asked: ConfigRequest, reference: str, at: str) -> tuple[ConfigState, ProjectGroup]:
        state = await asked.state_at(at)
        return state, asked.seen(state, find_project_group, reference, at)

    @router.get("/projectgroups/{group}", openapi_extra=documented(None, api.ProjectGroupView))
    async def get_group(request: Request, group: Ref, at: At = "") -> Response:
        """Return a project group, by id or path (`org/acme/web`, escaped)."""
        return json_response(project_group_view(*await readable(ConfigRequest(context, request), group, at)))

    @router.get("/projectgroups/{group}/subgroups", openapi_extra=documented(None, list[api.ProjectGroupView]))
    async def get_subgroups(request: Request, group: Ref, at: At = "") -> Response:
        """Return the groups in a group that the user who asks may see, by name."""
        asked = ConfigRequest(context, request)
        state, found = await readable(asked, group, at)
        inside = [state.groups[key] for _, key in sorted(state.names("projectgroup", found.id).items())]
        seen = (one for one in inside if asked.may_see(state, one, at))
        return json_response([project_group_view(state, one) for one in seen])

    @router.get("/projectgroups/{group}/projects", openapi_extra=documented(None, list[api.ProjectView]))
    async def get_projects(request: Request, group: Ref, at: At = "") -> Response:
        """Return the projects in a group that the user who asks may see, by name."""
        asked = ConfigRequest(context, request)
        state, found = await readable(asked, group, at)
        inside = [state.projects[key] for _, key in sorted(state.names("project", found.id).items())]
        seen = (one for one in inside if asked.may_see(state, one, at))
        return json_response([project_view(state, one) for one in seen])


def _changing_routes(router: APIRouter, context: GatewayContext) -> None:
    @router.post(
        "/projectgroups",
        status_code=201,
        openapi_extra=documented(CreateProjectGroupBody, api.ProjectGroupView, statuses=(201,)),
    )
    async def create_group(request: Request) -> Response:
        """Create a project group in another one."""
        asked = ConfigRequest(context, request)
        body, key = await asked.body(CreateProjectGroupBody), new_id()

        def decide(state: ConfigState) -> Decision:
            parent = own_or_named_group(asked, state, body.parent_ref, Action.CREATE_GROUP)
            return decide_create_project_group(
                state, group_id=key, name=body.name, parent=parent, visibility=cast("Visibility", body.visibility)
            )

        return await asked.changed(decide, lambda state: project_group_view(state, state.groups[key]), status=201)

    @router.put(
        "/projectgroups/{group}",
        status_code=201,
        openapi_extra=documented(UpdateProjectGroupBody, api.ProjectGroupView, statuses=(201,)),
    )
    async def update_group(request: Request, group: Ref) -> Response:
        """Rename a project group, move it, make it public or private."""
        asked = ConfigRequest(context, request)
        body = await asked.body(UpdateProjectGroupBody)
        key = ""

        def decide(state: ConfigState) -> Decision:
            nonlocal key
            found = find_project_group(state, group)
            key = found.id
            asked.require(state, Action.CHANGE, found)
            parent = None
            if body.parent_ref is not None:
                parent = find_parent_group(state, body.parent_ref)
                asked.require(state, Action.MOVE_INTO, parent)
            return decide_change_project_group(
                state,
                found,
                name=body.name,
                parent=parent,
                visibility=cast("Visibility | None", body.visibility),
            )

        return await asked.changed(decide, lambda state: project_group_view(state, state.groups[key]), status=201)

    @router.delete("/projectgroups/{group}", status_code=204)
    async def delete_group(request: Request, group: Ref) -> Response:
        """Delete a project group with everything below it."""
        asked = ConfigRequest(context, request)

        def decide(state: ConfigState) -> Decision:
            found = find_project_group(state, group)
            asked.require(state, Action.CHANGE, found)
            return decide_delete_project_group(state, found)

        return Response(status_code=204, headers=await asked.change(decide))

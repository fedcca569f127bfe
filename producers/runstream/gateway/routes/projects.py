"""Projects: /projects."""

from __future__ import annotations

import secrets
from typing import cast

from fastapi import APIRouter
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from runstream import api
from runstream.config.sealed import seal_text
from runstream.domain.config.decisions.projects import (
    MANUAL,
    decide_change_project,
    decide_create_project,
    decide_delete_project,
)
from runstream.domain.config.permissions import Action
from runstream.domain.config.project import Project
from runstream.domain.config.references import find_parent_group, find_project, find_remote_source
from runstream.domain.config.refusals import missing, require_name, shown
from runstream.domain.config.state import ConfigState, Decision
from runstream.errors import BadRequestError
from runstream.events.organization import Visibility
from runstream.events.project import ProjectSettings, Repository
from runstream.events.run_config import Sealed
from runstream.gateway.config_bodies import CreateProjectBody, RepositoryBody, UpdateProjectBody
from runstream.gateway.config_requests import At, ConfigRequest, Ref
from runstream.gateway.context import GatewayContext, documented, json_response
from runstream.gateway.routers import api_router
from runstream.gateway.routes.projectgroups import own_or_named_group
from runstream.gateway.views import project_view
from runstream.git.sources import allowed_source
from runstream.ids import new_id
from runstream.repository_urls import split_url

_WEBHOOK_SECRET_BYTES = 20


def project_routes(context: GatewayContext) -> APIRouter:
    """Return the routes of projects."""
    router = api_router("projects")

    @router.get("/projects/{project}", openapi_extra=documented(None, api.ProjectView))
    async def get_project(request: Request, project: Ref, at: At = "") -> Response:
        """Return a project, by id or path (`org/acme/web`, escaped). A public one needs no login."""
        asked = ConfigRequest(context, request)
        state = await asked.state_at(at)
        return json_response(project_view(state, asked.seen(state, find_project, project, at)))

    @router.post(
        "/projects", status_code=201, openapi_extra=documented(CreateProjectBody, api.ProjectView, statuses=(201,))
    )
    async def create_project(request: Request) -> Response:
        """Create a project, of a repository at a remote source or of any URL that git can clone."""
        asked = ConfigRequest(context, request)
        body, key = await asked.body(CreateProjectBody), new_id()
        webhook_secret = secrets.token_hex(_WEBHOOK_SECRET_BYTES)
        sealed = seal_text(context.keyring, webhook_secret, "project", key, "webhook_secret")
        settings = ProjectSettings(
            pass_vars_to_forked_pr=body.pass_vars_to_forked_pr,
            default_branch=body.default_branch,
            members_can_perform_run_actions=body.members_can_perform_run_actions,
        )

        def decide(state: ConfigState) -> Decision:
            parent = own_or_named_group(asked, state, body.parent_ref, Action.CREATE_PROJECT)
            require_name(body.name, "a project", code="invalidProjectName")
            return decide_create_project(
                state,
                project_id=key,
                name=body.name,
                parent=parent,
                visibility=cast("Visibility", body.visibility),
                repository=_repository(context, asked, state, key, body),
                settings=settings,
                webhook_secret=sealed,
            )

        return await asked.changed(decide, lambda state: project_view(state, state.projects[key]), status=201)

    @router.put(
        "/projects/{project}",
        status_code=201,
        openapi_extra=documented(UpdateProjectBody, api.ProjectView, statuses=(201,)),
    )
    async def update_project(request: Request, project: Ref) -> Response:
        """Rename a project, move it, change its visibility or settings, or the URL of its repository."""
        asked = ConfigRequest(context, request)
        body = await asked.body(UpdateProjectBody)
        key = ""

        def decide(state: ConfigState) -> Decision:
            nonlocal key
            found = find_project(state, project)
            key = found.id
            asked.require(state, Action.CHANGE, found)
            parent = None
            if body.parent_ref is not None:
                parent = find_parent_group(state, body.parent_ref)
                asked.require(state, Action.MOVE_INTO, parent)
            return decide_change_project(
                state,
                found,
                name=body.name,
                parent=parent,
                visibility=cast("Visibility | None", body.visibility),
                repository=_other_repository(context, found, body.repository),
                pass_vars_to_forked_pr=body.pass_vars_to_forked_pr,
                default_branch=body.default_branch,
                members_can_perform_run_actions=body.members_can_perform_run_actions,
            )

        return await asked.changed(decide, lambda state: project_view(state, state.projects[key]), status=201)

    @router.delete("/projects/{project}", status_code=204)
    async def delete_project(request: Request, project: Ref) -> Response:
        """Delete a project with its secrets and variables; its runs stay."""
        asked = ConfigRequest(context, request)

        def decide(state: ConfigState) -> Decision:
            found = find_project(state, project)
            asked.require(state, Action.CHANGE, found)
            return decide_delete_project(state, found)

        return Response(status_code=204, headers=await asked.change(decide))

    return router


def _repository(
    context: GatewayContext, asked: ConfigRequest, state: ConfigState, project_id: str, body: CreateProjectBody
) -> Repository:
    """Return the repository of a new project. Raises BadRequestError, NotExistError."""
    if body.repository is not None:
        if body.remote_source_name or body.repo_path:
            raise BadRequestError(
                "a project has a repository at a remote source, or one at a URL, not both",
                code="invalidRepositoryURL",
                hint="leave out remote_source_name and repo_path, or repository",
            )
        return replace(
            _at_url(context, project_id, body.repository), skip_ssh_host_key_check=body.skip_ssh_host_key_check
        )
    if not body.remote_source_name:
        raise BadRequestError(
            "the project has no repository",
            code="invalidRepositoryURL",
            hint='give it by its URL, as in "repository": {"url": "https://…"}, or by remote_source_name and repo_path',
        )
    source = find_remote_source(state, body.remote_source_name)
    user = state.users[asked.actor.user_id]
    account = next((one for one in user.accounts.values() if one.remote_source_id == source.id), None)
    if account is None:
        raise missing(
            f"an account of user {user.name!r} at remote source", source.name, code="linkedAccountDoesNotExist"
        )
    # Without a connection to the host, the path is also the id.
    return replace(
        MANUAL,
        kind="remotesource",
        remote_source_id=source.id,
        linked_account_id=account.id,
        repository_id=body.repo_path,
        repository_path=body.repo_path,
        skip_ssh_host_key_check=body.skip_ssh_host_key_check,
    )


def _other_repository(context: GatewayContext, project: Project, body: RepositoryBody | None) -> Repository | None:
    if body is None:
        return None
    if project.repository.kind != "git":
        raise BadRequestError(
            f"the repository of project {shown(project.name)} is at a remote source",
            code="invalidRepositoryURL",
            hint="create another project for a repository with a URL",
        )
    skip = project.repository.skip_ssh_host_key_check
    return replace(_at_url(context, project.id, body), skip_ssh_host_key_check=skip)


def _at_url(context: GatewayContext, project_id: str, body: RepositoryBody) -> Repository:
    """Return a repository at any URL; a password in the URL is taken out of it, and sealed."""
    inside = split_url(body.url)
    source = allowed_source(inside.shown, context.allowed_sources)

    def sealed(text: str, field: str) -> Sealed | None:
        return seal_text(context.keyring, text, "project", project_id, field) if text else None

    return replace(
        MANUAL,
        kind="git",
        url=source.url,
        username=body.username or inside.token,
        password=sealed(body.password or inside.password, "password"),
        ssh_private_key=sealed(body.ssh_private_key, "ssh_private_key"),
        known_hosts=body.known_hosts,
    )

"""Secrets and variables of projects and project groups: /projects/{ref}/secrets, /projectgroups/{ref}/variables.

The texts of secrets are sealed before they are appended, and no response has them.
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from runstream import api
from runstream.config.run_inputs import inherited_secrets
from runstream.config.sealed import seal_secret
from runstream.domain.config.decisions.secrets import (
    decide_change_secret,
    decide_change_variable,
    decide_create_secret,
    decide_create_variable,
    decide_delete_secret,
    decide_delete_variable,
    find_secret,
    find_variable,
    require_secret_data,
)
from runstream.domain.config.permissions import Action
from runstream.domain.config.project import Project
from runstream.domain.config.project_group import ProjectGroup
from runstream.domain.config.references import find_owner, find_project, find_project_group, place_of
from runstream.domain.config.refusals import require_name
from runstream.domain.config.state import ConfigState, Decision
from runstream.domain.config.tree import secrets_of, variables_of
from runstream.errors import BadRequestError
from runstream.events.secret import TreePlace
from runstream.events.variable import NamePattern, NamePatterns, SecretValue, ValueCondition
from runstream.gateway.config_bodies import ConditionsBody, PatternBody, SecretBody, VariableBody, WhenBody
from runstream.gateway.config_requests import At, ConfigRequest, Ref
from runstream.gateway.context import Flag, GatewayContext, documented, flag, json_response
from runstream.gateway.routers import api_router
from runstream.gateway.views import secret_view, variable_view
from runstream.ids import new_id
from runstream.runconfig.when import expression_problem

_Kind = Literal["project", "projectgroup"]


def secret_routes(context: GatewayContext) -> APIRouter:
    """Return the routes of secrets and variables."""
    router = api_router("secrets and variables")
    _secret_routes(router, context, "project")
    _secret_routes(router, context, "projectgroup")
    _variable_routes(router, context, "project")
    _variable_routes(router, context, "projectgroup")
    return router


async def _seen(asked: ConfigRequest, kind: _Kind, ref: str, at: str) -> tuple[ConfigState, Project | ProjectGroup]:
    state = await asked.state_at(at)
    found: Project | ProjectGroup
    if kind == "project":
        found = asked.seen(state, find_project, ref, at)
    else:
        found = asked.seen(state, find_project_group, ref, at)
    asked.require(asked.state, Action.LIST_SECRETS, asked.owner_now(state, found))
    return state, found


def _changed(asked: ConfigRequest, state: ConfigState, kind: _Kind, ref: str) -> TreePlace:
    """Return the project or group whose secrets and variables the sender may change. Raises the refusal."""
    found = find_owner(state, kind, ref)
    asked.require(state, Action.CHANGE_SECRETS, place_of(state, found))
    return found


def _secret_routes(router: APIRouter, context: GatewayContext, kind: _Kind) -> None:
    path = f"/{kind}s/{{ref}}/secrets"

    @router.get(path, openapi_extra=documented(None, list[api.SecretView]))
    async def get_secrets(
        request: Request, ref: Ref, tree: Flag = None, removeoverridden: Flag = None, at: At = ""
    ) -> Response:
        """Return the secrets of a project or group; with `tree` also those of the groups above, the nearest first."""
        state, found = await _seen(ConfigRequest(context, request), kind, ref, at)
        secrets = secrets_of(state, found, tree=flag(tree), remove_overridden=flag(removeoverridden))
        return json_response([secret_view(state, one) for one in secrets])

    @router.post(path, status_code=201, openapi_extra=documented(SecretBody, api.SecretView, statuses=(201,)))
    async def create_secret(request: Request, ref: Ref) -> Response:
        """Create a secret. The response has no parent path."""
        asked = ConfigRequest(context, request)
        body, key = await asked.body(SecretBody), new_id()

        def decide(state: ConfigState) -> Decision:
            place = _changed(asked, state, kind, ref)
            require_name(body.name, "a secret", code="invalidSecretName")
            require_secret_data(body.type, body.data)
            data = seal_secret(context.keyring, key, place, body.data)
            return decide_create_secret(state, secret_id=key, parent=place, name=body.name, data=data)

        return await asked.changed(decide, lambda _: api.SecretView(key, body.name, ""), status=201)

    @router.put(f"{path}/{{name}}", openapi_extra=documented(SecretBody, api.SecretView))
    async def update_secret(request: Request, ref: Ref, name: Ref) -> Response:
        """Replace the name and the texts of a secret."""
        asked = ConfigRequest(context, request)
        body = await asked.body(SecretBody)
        key = ""

        def decide(state: ConfigState) -> Decision:
            nonlocal key
            place = _changed(asked, state, kind, ref)
            require_name(body.name, "a secret", code="invalidSecretName")
            require_secret_data(body.type, body.data)
            secret = find_secret(state, place, name)
            key = secret.id
            data = seal_secret(context.keyring, secret.id, place, body.data)
            return decide_change_secret(state, secret, name=body.name, data=data)

        return await asked.changed(decide, lambda state: secret_view(state, state.secrets[key]))

    @router.delete(f"{path}/{{name}}", status_code=204)
    async def delete_secret(request: Request, ref: Ref, name: Ref) -> Response:
        """Delete a secret; variables that name it have no value any more."""
        asked = ConfigRequest(context, request)

        def decide(state: ConfigState) -> Decision:
            return decide_delete_secret(find_secret(state, _changed(asked, state, kind, ref), name))

        return Response(status_code=204, headers=await asked.change(decide))


def _variable_routes(router: APIRouter, context: GatewayContext, kind: _Kind) -> None:
    path = f"/{kind}s/{{ref}}/variables"

    @router.get(path, openapi_extra=documented(None, list[api.VariableView]))
    async def get_variables(
        request: Request, ref: Ref, tree: Flag = None, removeoverridden: Flag = None, at: At = ""
    ) -> Response:
        """Return the variables of a project or group; with `tree` also those above, the nearest first."""
        state, found = await _seen(ConfigRequest(context, request), kind, ref, at)
        variables = variables_of(state, found, tree=flag(tree), remove_overridden=flag(removeoverridden))
        secrets = inherited_secrets(state, found)
        return json_response([variable_view(state, one, secrets) for one in variables])

    @router.post(path, status_code=201, openapi_extra=documented(VariableBody, api.VariableView, statuses=(201,)))
    async def create_variable(request: Request, ref: Ref) -> Response:
        """Create a variable; its secrets need not exist yet."""
        asked = ConfigRequest(context, request)
        body, key = await asked.body(VariableBody), new_id()
        values = _values(body)

        def decide(state: ConfigState) -> Decision:
            place = _changed(asked, state, kind, ref)
            return decide_create_variable(state, variable_id=key, parent=place, name=body.name, values=values)

        return await asked.changed(decide, lambda state: _shown(state, key), status=201)

    @router.put(f"{path}/{{name}}", openapi_extra=documented(VariableBody, api.VariableView))
    async def update_variable(request: Request, ref: Ref, name: Ref) -> Response:
        """Replace the name and the values of a variable."""
        asked = ConfigRequest(context, request)
        body = await asked.body(VariableBody)
        values, key = _values(body), ""

        def decide(state: ConfigState) -> Decision:
            nonlocal key
            variable = find_variable(state, _changed(asked, state, kind, ref), name)
            key = variable.id
            return decide_change_variable(state, variable, name=body.name, values=values)

        return await asked.changed(decide, lambda state: _shown(state, key))

    @router.delete(f"{path}/{{name}}", status_code=204)
    async def delete_variable(request: Request, ref: Ref, name: Ref) -> Response:
        """Delete a variable."""
        asked = ConfigRequest(context, request)

        def decide(state: ConfigState) -> Decision:
            return decide_delete_variable(find_variable(state, _changed(asked, state, kind, ref), name))

        return Response(status_code=204, headers=await asked.change(decide))


def _shown(state: ConfigState, key: str) -> api.VariableView:
    variable = state.variables[key]
    return variable_view(state, variable, inherited_secrets(state, place_of(state, variable.parent)))


def _values(body: VariableBody) -> tuple[SecretValue, ...]:
    """Return the values of a variable. Raises BadRequestError for an expression that is not RE2."""
    return tuple(SecretValue(one.secret_name, one.secret_var, _condition(one.when)) for one in body.values)


def _condition(when: WhenBody | None) -> ValueCondition | None:
    if when is None:
        return None
    return ValueCondition(_patterns(when.branch), _patterns(when.tag), _patterns(when.ref))


def _patterns(conditions: ConditionsBody | None) -> NamePatterns | None:
    if conditions is None:
        return None
    include, exclude = (tuple(map(_pattern, those)) for those in (conditions.include, conditions.exclude))
    return NamePatterns(include, exclude)


def _pattern(body: PatternBody) -> NamePattern:
    if body.type == "regexp" and (problem := expression_problem(body.match)):
        raise BadRequestError(
            f"{body.match[:80]!r} is {problem}", code="invalidVariableValues", hint="the syntax is RE2's"
        )
    return NamePattern(body.type, body.match)

"""The OpenAPI description: routes from FastAPI, request and response models from msgspec."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from runstream import api
from runstream.domain.config.permissions import Action
from runstream.gateway import config_bodies, requests, responses
from runstream.gateway.access import LOGIN, PREFIX, LoginNeed
from runstream.gateway.errors import JSON_TYPE
from runstream.gateway.requests import MaintenanceBody
from runstream.limits import MAX_GROUP_BYTES, MAX_WORD_BYTES
from runstream.maintenance.records import Doing
from runstream.maintenance.request import SERVICES

_SHAPES: tuple[type[msgspec.Struct], ...] = (
    requests.CreateRunBody,
    requests.CreateRunsBody,
    requests.CommitRunBody,
    requests.DirectRunBody,
    requests.RunActionBody,
    requests.TaskActionBody,
    requests.OwnedRunActionBody,
    requests.OwnedTaskActionBody,
    requests.ExecutorActionBody,
    api.OwnedRunSummary,
    api.OwnedRun,
    api.OwnedTask,
    responses.RunAnswer,
    responses.RunHistoryAnswer,
    api.RunDiff,
    api.RestartPreview,
    responses.RunsCreatedAnswer,
    api.Page,
    api.FlakyList,
    api.GroupView,
    api.ExecutorList,
    responses.ActionAnswer,
    api.Why,
    api.LogLines,
    api.Failures,
    api.CacheList,
    api.StorageStatus,
    api.Health,
    api.FsckState,
    api.ParkedList,
    api.ParkedCommitDetail,
    api.SkippedList,
    api.RetriedCommits,
    requests.ParkedRetryBody,
    requests.ParkedActionBody,
    requests.FsckBody,
    api.Service,
    api.ErrorEntry,
    MaintenanceBody,
    api.Maintenance,
    *config_bodies.BODIES,
    api.UserView,
    api.PrivateUserView,
    api.TokenView,
    api.TokenEntry,
    api.OrganizationView,
    api.MembersView,
    api.AddedMemberView,
    api.MembershipView,
    api.InvitationView,
    api.ProjectGroupView,
    api.ProjectView,
    api.SecretView,
    api.VariableView,
    api.RemoteSourceView,
    api.SessionView,
    api.LoginLink,
    api.LoginView,
    api.LinkedAnswer,
    api.HostLoginAnswer,
    api.HostAuthorizedAnswer,
    api.HostRedirectAnswer,
    api.OAuth2CallbackAnswer,
    api.RemoteRepositoryView,
    api.AuditEntry,
)
_OPTIONAL = frozenset({("Why", "omitted"), ("ErrorEntry", "chain"), ("Part", "under_way"), ("Maintenance", "tag")})
"""Fields that a service may leave out."""
_TEXTS = frozenset({"RunPhase", "RunResult"})
"""Enumerations that are described as texts."""


_OF_FASTAPI = frozenset({"HTTPValidationError", "ValidationError"})
"""FastAPI's models of errors, which this API does not use."""


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the whole description, made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = document.setdefault("components", {})
        shapes_by_name = _schemas()
        known = {name: schema for name, schema in components.get("schemas", {}).items() if name not in _OF_FASTAPI}
        components["schemas"] = known | shapes_by_name
        components["securitySchemes"] = {
            "token": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "token <the token>"}
        }
        components["headers"] = _HEADERS
        components["responses"] = dict(_ERRORS.values())
        document["security"] = [{"token": []}]
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _complete(path, operation, _login(method.upper(), path))
        app.openapi_schema = document
    return app.openapi_schema


def _schemas() -> dict[str, Any]:
    """Return the schemas of requests and responses under their released names."""
    _, found = msgspec.json.schema_components((*_SHAPES, Doing), ref_template="#/components/schemas/{name}")
    schemas: dict[str, Any] = {}
    for name, schema in found.items():
        if name not in _TEXTS:
            kind = getattr(api, name, None)
            if isinstance(kind, type) and issubclass(kind, api.Answer):
                _require_all(name, schema)
            released = responses.SCHEMA_NAMES.get(name, name)
            schemas.setdefault(released, _released({**schema, "title": released}))
    return schemas


def _require_all(name: str, schema: dict[str, Any]) -> None:
    """Say that each field is sent: defaults are those of the client."""
    if getattr(api, name).__struct_config__.omit_defaults:
        return
    schema["required"] = [field for field in schema["properties"] if (name, field) not in _OPTIONAL]
    for field, described in schema["properties"].items():
        if (name, field) not in _OPTIONAL:
            described.pop("default", None)


def _released(schema: Any) -> Any:
    """Return a schema that refers to others by their released names."""
    if isinstance(schema, list):
        return [_released(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        released = responses.SCHEMA_NAMES.get(name, name)
        return {"type": "string"} if name in _TEXTS else {"$ref": f"#/components/schemas/{released}"}
    return {key: _released(value) for key, value in schema.items() if key != "type" or "enum" not in schema}


def _login(method: str, path: str) -> LoginNeed | Action:
    """Return whether a route needs a login; FastAPI describes `{name:path}` as `{name}`."""
    path = path.removeprefix(PREFIX)
    return next(login for route, login in LOGIN.items() if (method, path) == (route[0], route[1].replace(":path", "")))


def _complete(path: str, operation: dict[str, Any], login: LoginNeed | Action) -> None:
    """Add what FastAPI does not know of an operation: its errors, and the forms of its parameters."""
    parameters = operation.setdefault("parameters", [])
    for name in set(_IN_PATH.findall(path)) - {one["name"] for one in parameters}:
        parameters.append({"name": name, "in": "path", "required": True, "schema": {"type": "string"}})
    for parameter in parameters:
        parameter["schema"] |= _FORMS.get(parameter["name"], {})
    statuses = {"400", "405", "408", "431", "500", "503"}
    if login is LoginNeed.NONE:
        operation["security"] = []
    else:
        statuses |= {"401", "403"}
    if login is LoginNeed.OPTIONAL:
        operation["security"] = [{}, {"token": []}]
    if parameters:
        statuses.add("404")
    if path.endswith("/auth/session"):
        statuses |= {"401", "429"}
    if "requestBody" in operation or path.endswith(("/export", "/export/{service}")):
        statuses |= {"404", "409", "413"}
    responses = operation["responses"]
    responses.pop("422", None)
    responses |= {status: {"$ref": f"#/components/responses/{_ERRORS[status][0]}"} for status in sorted(statuses)}
    if "200" in responses and "201" in responses:
        responses["200"]["description"] = "an earlier request with the same idempotency key created it"


_IN_PATH = re.compile(r"\{(\w+)\}")
_UUID: dict[str, Any] = {"format": "uuid", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}
_TOKEN: dict[str, Any] = {"pattern": "^[A-Za-z0-9_-]{1,64}$"}
_FORMS: dict[str, dict[str, Any]] = {
    "run_id": _UUID,
    "task_id": {"minLength": 1, "maxLength": MAX_WORD_BYTES},
    "executor_id": _TOKEN,
    "instance_id": _TOKEN,
    "service": {"enum": [*SERVICES]},
    "escaped_group": {"minLength": 1, "maxLength": MAX_GROUP_BYTES, "description": "a group, its slashes as %2F"},
}
"""Forms of the parameters that routes check themselves."""
_HEADERS: dict[str, Any] = {
    "Allow": {"required": True, "schema": {"type": "string"}, "description": "the methods that the path takes"},
    "Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}, "description": "seconds"},
}


def _error(description: str, *headers: str) -> dict[str, Any]:
    schema = {
        "type": "array",
        "items": {"$ref": "#/components/schemas/ErrorShape"},
        "minItems": 1,
        "maxItems": 1,
    }
    declared = {"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers}} if headers else {}
    return {"description": description, "content": {JSON_TYPE: {"schema": schema}}, **declared}


_ERRORS: dict[str, tuple[str, dict[str, Any]]] = {
    "400": ("BadRequest", _error("the request is wrong")),
    "401": ("Unauthorized", _error("the token is missing or not valid")),
    "403": ("Forbidden", _error("the sender may not do this")),
    "404": ("NotFound", _error("there is no such thing")),
    "405": ("MethodNotAllowed", _error("the path does not take this method", "Allow")),
    "408": ("RequestTimeout", _error("the request did not come in time")),
    "409": ("Conflict", _error("it does not go with what is there, or another request was first")),
    "413": ("BodyTooLarge", _error("the body is larger than this gateway takes")),
    "429": ("TooManyRequests", _error("too many attempts of this kind failed", "Retry-After")),
    "431": ("HeadersTooLarge", _error("path and headers have more than 64 KiB")),
    "500": ("InternalError", _error("the gateway failed")),
    "503": ("Unavailable", _error("what the gateway needs is away, or the service is in maintenance", "Retry-After")),
}
"""The name and the description of the response with each status."""

"""The OpenAPI description: the routes as FastAPI knows them, bodies and answers as msgspec describes them."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from runstream.gateway import bodies, shapes
from runstream.gateway.answers import JSON_TYPE
from runstream.gateway.routes.maintenance import MaintenanceBody
from runstream.maintenance import MaintenanceAnswer

_SHAPES: tuple[type[msgspec.Struct], ...] = (
    bodies.CreateRunBody,
    bodies.CreateRunsBody,
    bodies.RunActionBody,
    bodies.TaskActionBody,
    bodies.ExecutorActionBody,
    shapes.RunAnswer,
    shapes.RunsCreatedAnswer,
    shapes.RunsAnswer,
    shapes.ExecutorsAnswer,
    shapes.ActionAnswer,
    shapes.WhyAnswer,
    shapes.VersionAnswer,
    shapes.ErrorShape,
    MaintenanceBody,
    MaintenanceAnswer,
)


_OF_FASTAPI = frozenset({"HTTPValidationError", "ValidationError"})
"""Its own shape of errors, which is not ours."""


def describe(app: FastAPI) -> dict[str, Any]:
    """The whole description; made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = document.setdefault("components", {})
        _, shapes_by_name = msgspec.json.schema_components(_SHAPES, ref_template="#/components/schemas/{name}")
        known = {name: schema for name, schema in components.get("schemas", {}).items() if name not in _OF_FASTAPI}
        components["schemas"] = known | shapes_by_name
        components["securitySchemes"] = {
            "token": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "token <the token>"}
        }
        document["security"] = [{"token": []}]
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = _ERROR
        app.openapi_schema = document
    return app.openapi_schema


_ERROR = {
    "description": "what is wrong: one entry, in an array",
    "content": {
        JSON_TYPE: {
            "schema": {"type": "array", "items": {"$ref": "#/components/schemas/ErrorShape"}},
        }
    },
}

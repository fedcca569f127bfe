"""The JSON Schema of configurations (draft 7, for editors), made of the decoder's tables of fields.

It accepts what the decoder accepts without a warning, with field names in lower case. Rules that span several places
(unique names, cycles of tasks) are the decoder's alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from runstream.runconfig import fields
from runstream.runconfig.amounts import UNITS
from runstream.runconfig.fields import Field, FieldTable, Kind
from runstream.runconfig.parse import MAX_PRIORITY, MAX_WAITING, POLICIES
from runstream.runconfig.tasks import ARCHS, CONDITIONS, MAX_RETRIES, REASONS, TYPES

Schema = dict[str, Any]
_UNIT = f"({'|'.join(UNITS)})"
_NUMBER = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
_DURATION = f"(0|({_NUMBER}{_UNIT})+)"
_WORDS = [
    form for word in ("yes", "no", "on", "off", "y", "n") for form in dict.fromkeys((word, word.title(), word.upper()))
]
_NULL: Schema = {"type": "null"}
_TEXT: Schema = {"type": "string"}
_LITERAL: Schema = {"type": ["number", "boolean"]}
_ONE_LINE: Schema = {"type": "string", "minLength": 1, "not": {"pattern": "\n"}}


def json_schema() -> Schema:
    """Return the schema."""
    top = _object(fields.TOP)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Runstream run configuration",
        **top,
        "patternProperties": {"^[xX]-": {}},
        "definitions": _DEFINITIONS,
    }


def schema_text() -> str:
    """Return the schema as the text of its file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _object(table: FieldTable) -> Schema:
    """Return the schema of a map with these fields and no others."""
    required = [name for name, field in table.items() if field.required]
    return {
        "type": "object",
        "properties": {name: _property(field) for name, field in table.items()},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _property(field: Field) -> Schema:
    kind: Schema = dict(KINDS[field.kind])
    if field.required and field.kind in ("text", "strict text"):
        kind["minLength"] = 1
    if field.required and kind.get("type") == "array":
        kind["minItems"] = 1
    about = {"description": f"{field.about[0].upper()}{field.about[1:]}."}
    return about | kind if field.required or field.kind == "anything" else about | {"anyOf": [kind, _NULL]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


_RETRIES: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_RETRIES}
_NAMES: Schema = {"anyOf": [_TEXT, _list(_TEXT)]}
KINDS: dict[Kind, Schema] = {
    "text": {"type": ["string", "number", "boolean"]},
    "strict text": _TEXT,
    "strict texts": _list(_TEXT),
    "flag": {"anyOf": [{"type": "boolean"}, {"enum": _WORDS}]},
    "count": {"type": "integer", "minimum": 1},
    "duration": {
        "anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^[-+]?{_DURATION}$"}],
    },
    "size": {
        "anyOf": [
            {"type": "number", "minimum": 0},
            {"type": "string", "pattern": rf"^\+?{_NUMBER}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{{1,3}})?$"},
        ]
    },
    "arch": {"enum": ["", *ARCHS, *(int(arch) for arch in ARCHS if arch.isdigit())]},
    "runtime type": {"enum": list(TYPES)},
    "step type": {"enum": list(fields.STEPS)},
    "environment": {**_map({"anyOf": [_ref("value"), _LITERAL]}), "propertyNames": {"pattern": "^[^=]+$"}},
    "registries": _map(_ref("registry_auth")),
    "value": _ref("value"),
    "when": _ref("when"),
    "patterns": {"anyOf": [*_NAMES["anyOf"], _ref("patterns")]},
    "names": _NAMES,
    "runs": _list(_ref("run")),
    "tasks": _list(_ref("task")),
    "steps": _list(_ref("step")),
    "depends": _list(_ref("depend")),
    "conditions": _list({"enum": list(CONDITIONS)}),
    "runtime": _ref("runtime"),
    "containers": _list(_ref("container")),
    "volumes": _list(_ref("volume")),
    "tmpfs": _ref("tmpfs"),
    "resources": _ref("resources"),
    "processors": {
        "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": rf"^\+?{_NUMBER}m?$"}],
    },
    "contents": _list(_ref("content")),
    "labels": _map({"type": ["string", "number", "boolean"]}),
    "concurrency": {"anyOf": [{"enum": list(POLICIES)}, _ref("concurrency")]},
    "policy": {"enum": list(POLICIES)},
    "bound": {"type": "integer", "minimum": 1, "maximum": MAX_WAITING},
    "priority": {"type": "integer", "minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY},
    "limit": {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"^[+]?{_DURATION}$"}]},
    "retry": {"anyOf": [_RETRIES, _ref("retry")]},
    "retries": _RETRIES,
    "reasons": {"anyOf": [{"enum": list(REASONS)}, {**_list({"enum": list(REASONS)}), "minItems": 1}]},
    "anything": {},
}
"""The schema of each type of field."""


def _runtime() -> Schema:
    """Return the schema of a runtime: a pod has containers, a host none."""
    pod, host = {"not": {"const": "host"}}, {"const": "host"}
    return {
        **_object(fields.RUNTIME),
        "anyOf": [
            {"properties": {"type": pod, "containers": {"type": "array", "minItems": 1}}, "required": ["containers"]},
            {"properties": {"type": host, "containers": {"anyOf": [_NULL, {"maxItems": 0}]}}, "required": ["type"]},
        ],
    }


def _depend() -> Schema:
    """Return the schema of a dependency: a task's name, or a map in one of two forms."""
    short = {**_map(KINDS["conditions"]), "minProperties": 1, "maxProperties": 1}
    return {"anyOf": [_TEXT, _object(fields.DEPEND), short]}


def _step() -> Schema:
    """Return the schema of a step: its type is the only key, or a field among the others."""
    keyed = {
        "type": "object",
        "properties": {step: _keyed(step, table) for step, table in fields.STEPS.items()},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"anyOf": [keyed, *(_typed(step, table) for step, table in fields.STEPS.items())]}


def _keyed(step: str, table: FieldTable) -> Schema:
    spec = _named(step, _object({**fields.STEP, **table}))
    if step == "run":
        return {"anyOf": [_ONE_LINE, spec]}
    return spec if spec.get("required") else {"anyOf": [_NULL, spec]}


def _typed(step: str, table: FieldTable) -> Schema:
    found = _object({"type": fields.STEP_TYPE, **fields.STEP, **table})
    found["properties"]["type"] = {"const": step}
    return _named(step, found)


def _named(step: str, spec: Schema) -> Schema:
    """Require a name for a command of several lines."""
    if step != "run":
        return spec
    name = {"properties": {"name": {"type": "string", "minLength": 1}}, "required": ["name"]}
    return spec | {"anyOf": [{"properties": {"command": {"not": {"pattern": "\n"}}}}, name]}


_DEFINITIONS: Mapping[str, Schema] = {
    "run": _object(fields.RUN),
    "concurrency": _object(fields.CONCURRENCY),
    "task": _object(fields.TASK),
    "retry": _object(fields.RETRY),
    "runtime": _runtime(),
    "container": _object(fields.CONTAINER),
    "volume": _object(fields.VOLUME),
    "tmpfs": _object(fields.TMPFS),
    "resources": _object(fields.RESOURCES),
    "registry_auth": _object(fields.REGISTRY_AUTH),
    "value": {"anyOf": [_TEXT, _object(fields.VALUE)]},
    "when": _object(fields.WHEN),
    "patterns": _object(fields.PATTERNS),
    "depend": _depend(),
    "content": _object(fields.CONTENT),
    "step": _step(),
}

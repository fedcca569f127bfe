"""GitHub's published OpenAPI description (`tests/data/github`): requests are checked against it, and answers.

A fake knows only the fields that matter. The others that the description requires are filled in with values of their
type, and then the whole answer is checked: a field of the wrong name or type fails.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]

DESCRIPTION = Path(__file__).parents[1] / "data/github/openapi.json"
_SAMPLES = {"string": "text", "integer": 1, "number": 1, "boolean": False, "array": []}
_FORMATS = {"date-time": "2026-01-01T00:00:00Z", "uri": "http://127.0.0.1/", "email": "ada@example.com"}


@cache
def description() -> dict[str, Any]:
    """The description, as JSON Schema: `nullable` is a type there."""
    loaded: dict[str, Any] = _nullable(json.loads(DESCRIPTION.read_text()))
    return loaded


def _nullable(node: Any) -> Any:
    if isinstance(node, list):
        return [_nullable(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {name: _nullable(value) for name, value in node.items() if name != "nullable" or isinstance(value, dict)}
    if node.get("nullable") is True:
        return {"anyOf": [found, {"type": "null"}]}
    return found


class Operation:
    """One operation of the description."""

    def __init__(self, method: str, path: str) -> None:
        """Raises AssertionError for a path or a method that GitHub does not have."""
        for template, methods in description()["paths"].items():
            pattern = re.sub(r"\\\{(path|ref)\\\}", ".+", re.escape(template))
            if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", pattern), path) and method.lower() in methods:
                self.described = methods[method.lower()]
                return
        raise AssertionError(f"GitHub has no {method} {path}")

    def check_request(self, query: dict[str, str], body: bytes) -> None:
        """Check the parameters and the body of a request."""
        named = {_resolved(one)["name"] for one in self.described.get("parameters", [])}
        assert query.keys() <= named, f"unknown parameters {query.keys() - named}"
        if body:
            (content,) = self.described["requestBody"]["content"].values()
            _check(json.loads(body), content["schema"])

    def answer(self, status: int, body: Any) -> Any:
        """Return an answer with all required fields; checked."""
        answers = self.described["responses"]
        assert str(status) in answers, f"GitHub does not answer with {status}"
        content = _resolved(answers[str(status)]).get("content", {}).get("application/json")
        if content is None:
            return body
        whole = _filled(body, content["schema"])
        _check(whole, content["schema"])
        return whole


def _check(value: Any, schema: dict[str, Any]) -> None:
    jsonschema.Draft4Validator({**schema, "components": description()["components"]}).validate(value)


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: Any = description()
        for part in node["$ref"].split("/")[1:]:
            found = found[part]
        node = found
    return node


def _filled(value: Any, schema: dict[str, Any]) -> Any:
    schema = _resolved(schema)
    for kind in ("anyOf", "oneOf", "allOf"):
        if kind in schema and not (value is None and {"type": "null"} in schema[kind]):
            return _filled(value, schema[kind][0])
    if isinstance(value, list):
        return [_filled(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties", {})
    missing = {name: _sample(known.get(name, {})) for name in schema.get("required", []) if name not in value}
    return {**missing, **{name: _filled(item, known.get(name, {})) for name, item in value.items()}}


def _sample(schema: dict[str, Any]) -> Any:
    schema = _resolved(schema)
    for kind in ("anyOf", "oneOf", "allOf"):
        if kind in schema:
            return None if {"type": "null"} in schema[kind] else _sample(schema[kind][0])
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    return _SAMPLES.get(schema.get("type", "")) if schema.get("type") != "object" else _filled({}, schema)

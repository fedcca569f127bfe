"""The types of the API in TypeScript, from its OpenAPI description: `python -m tests.page.api_types` writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from runstream.gateway.openapi import describe

WEB = Path(__file__).parents[2] / "producers" / "web"
TYPES = WEB / "src" / "api" / "types.ts"
_HEAD = """\
// Generated from the API's description by `python -m tests.page.api_types`; do not edit.
"""
_SIMPLE = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def types() -> str:
    """Return the whole file: one type for each schema, by name."""
    schemas: Mapping[str, Any] = describe(FastAPI())["components"]["schemas"]
    return "\n".join([_HEAD, *(_declared(name, schemas[name]) for name in sorted(schemas))])


def _declared(name: str, schema: Mapping[str, Any]) -> str:
    if schema.get("type") != "object" or "properties" not in schema:
        return f"{_comment(schema, '')}export type {name} = {_type(schema)};\n"
    required = set(schema.get("required", ()))
    fields = [_field(key, value, key in required) for key, value in schema["properties"].items()]
    return f"{_comment(schema, '')}export type {name} = {{\n{''.join(fields)}}};\n"


def _field(name: str, schema: Mapping[str, Any], required: bool) -> str:
    return f"{_comment(schema, '  ')}  {_key(name)}{'' if required else '?'}: {_type(schema)};\n"


def _comment(schema: Mapping[str, Any], indent: str) -> str:
    text = " ".join(schema.get("description", "").split())
    return f"{indent}/** {text.replace('*/', '* /')} */\n" if text else ""


def _key(name: str) -> str:
    return name if name.isidentifier() else json.dumps(name)


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(json.dumps(one) for one in schema["enum"])
    if any_of := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(dict.fromkeys(_type(one) for one in any_of))
    return " | ".join(_types_of(schema)) or "unknown"


def _types_of(schema: Mapping[str, Any]) -> Iterator[str]:
    kinds = schema.get("type", ())
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if kind == "array":
            yield f"readonly {_element(schema.get('items', {}))}[]"
        elif kind == "object":
            yield _object(schema)
        else:
            yield _SIMPLE[kind]


def _element(schema: Any) -> str:
    inner = _type(schema) if isinstance(schema, Mapping) else "unknown"
    return f"({inner})" if " " in inner else inner


def _object(schema: Mapping[str, Any]) -> str:
    if "properties" in schema:
        required = set(schema.get("required", ()))
        inner = "; ".join(
            f"{_key(name)}{'' if name in required else '?'}: {_type(value)}"
            for name, value in schema["properties"].items()
        )
        return f"{{ {inner} }}"
    values = schema.get("additionalProperties")
    return f"Record<string, {_type(values) if isinstance(values, Mapping) and values else 'unknown'}>"


def main() -> None:
    """Write the types."""
    TYPES.write_text(types())


if __name__ == "__main__":
    main()

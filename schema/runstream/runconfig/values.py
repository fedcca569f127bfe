"""Values that may come from a project's variables, and the maps of them (rule config-8)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from runstream.events.run_config import Text
from runstream.runconfig.cursor import Cursor, Fields
from runstream.runconfig.fields import REGISTRY_AUTH, VALUE
from runstream.runconfig.foreign import FOREIGN_VALUE
from runstream.runconfig.nodes import Mapping as MappingNode
from runstream.runconfig.nodes import describe
from runstream.runconfig.problems import shown


@dataclass(frozen=True, slots=True)
class Value:
    """A text, or the name of the variable that has it."""

    text: str
    source: Literal["string", "from_variable"] = "string"

    def resolved(self, variables: Mapping[str, Text]) -> Text:
        """The text; that of a variable that is not there is empty."""
        return self.text if self.source == "string" else variables.get(self.text, "")


@dataclass(frozen=True, slots=True)
class RegistryAuthSpec:
    """How to log in at a container registry, before variables are known."""

    type: str
    username: Value
    password: Value
    auth: Value


EMPTY = Value("")
_REFERENCE = re.compile(r"\$(?:[A-Za-z_][A-Za-z0-9_]{0,60}|\{[A-Za-z_][A-Za-z0-9_]{0,60}\})")
"""How a shell refers to a variable."""


def decode_value(place: Cursor, *, strict: bool = False) -> Value:
    """`text` or `{from_variable: NAME}`; an empty map is the empty text.

    A number or a boolean is the text that it is written as, and a problem where it is `strict`.
    """
    if isinstance(place.node, MappingNode):
        return Value(*_from_variable(place.fields(VALUE, foreign=FOREIGN_VALUE)))
    if (text := _text_of(place, strict=strict)) is not None:
        return Value(text)
    return EMPTY


def decode_environment(fields: Fields, name: str = "environment") -> dict[str, Value]:
    """A map of variables of a process."""
    place = fields.get(name)
    if place is None:
        return {}
    environment: dict[str, Value] = {}
    for key, value in place.entries():
        if not key or "=" in key:
            value.wrong("the name of an environment variable is not empty and has no '='")
        value.require_shown(key, "the name of the environment variable")
        environment[key] = found = decode_value(value)
        if found.source == "string" and (reference := _REFERENCE.search(found.text)):
            value.warn(
                f"{reference[0]} is not expanded in values of environment",
                f"set it in the command: export {key[:40]}={shown(found.text)}",
            )
    return environment


def decode_registries(fields: Fields) -> dict[str, RegistryAuthSpec]:
    """The map `docker_registries_auth`, by registry."""
    place = fields.get("docker_registries_auth")
    if place is None:
        return {}
    registries: dict[str, RegistryAuthSpec] = {}
    for registry, value in place.entries():
        value.require_shown(registry, "docker registry")
        registries[registry] = _decode_auth(registry, value)
    return registries


def _from_variable(fields: Fields) -> tuple[str, Literal["string", "from_variable"]]:
    if fields.get("from_variable") is None:
        return "", "string"
    return fields.strict_text("from_variable"), "from_variable"


def _text_of(place: Cursor, *, strict: bool) -> str | None:
    if place.is_null:
        place.wrong(f"unknown value format: expected a text or {{from_variable: NAME}}, found {describe(place.node)}")
        return None
    return place.strict_text() if strict else place.text()


def _decode_auth(registry: str, place: Cursor) -> RegistryAuthSpec:
    if place.is_null:
        place.wrong(
            f"docker registries auth {shown(registry)} is empty", "give username and password, or type and auth"
        )
        return RegistryAuthSpec("basic", EMPTY, EMPTY, EMPTY)
    fields = place.fields(REGISTRY_AUTH)
    if isinstance(place.node, MappingNode):
        for key, value in place.entries():
            if key.lower() in ("username", "password", "auth") and value.is_null:
                value.wrong("expected a text or {from_variable: NAME}, found null", 'write "" for an empty text')
    return RegistryAuthSpec(
        type=fields.text("type") or "basic",
        username=_value(fields, "username"),
        password=_value(fields, "password"),
        auth=_value(fields, "auth"),
    )


def _value(fields: Fields, name: str) -> Value:
    place = fields.get(name)
    return EMPTY if place is None else decode_value(place, strict=True)

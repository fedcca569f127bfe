"""Values that may come from a project's variables, in environments and registry logins (rule config-8)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from runstream.events.run_config import Text
from runstream.runconfig.cursor import Cursor, Fields
from runstream.runconfig.fields import REGISTRY_AUTH, VALUE
from runstream.runconfig.foreign import FOREIGN_VALUE
from runstream.runconfig.nodes import MappingNode, describe
from runstream.runconfig.problems import quoted

_REFERENCE = re.compile(r"\$(?:[A-Za-z_][A-Za-z0-9_]{0,60}|\{[A-Za-z_][A-Za-z0-9_]{0,60}\})")
"""A reference to a variable in a shell."""


@dataclass(frozen=True, slots=True)
class Value:
    """A text, or the name of a variable."""

    text: str
    source: Literal["string", "from_variable"] = "string"

    def resolved(self, variables: Mapping[str, Text]) -> Text:
        """Return the text, or the variable's; empty for an unknown variable."""
        return self.text if self.source == "string" else variables.get(self.text, "")


_EMPTY = Value("")


@dataclass(frozen=True, slots=True)
class RegistryAuthSpec:
    """The login of a container registry, before variables are resolved."""

    type: str
    username: Value
    password: Value
    auth: Value


def decode_environment(fields: Fields) -> dict[str, Value]:
    """Decode the field `environment`: values by the names of variables."""
    place = fields.get("environment")
    if place is None:
        return {}
    environment: dict[str, Value] = {}
    for key, value in place.entries():
        if not key or "=" in key:
            value.error("the name of an environment variable is not empty and has no '='")
        value.require_printable(key, "the name of the environment variable")
        environment[key] = found = _decode_value(value)
        if found.source == "string" and (reference := _REFERENCE.search(found.text)):
            value.warn(
                f"{reference[0]} is not expanded in values of environment",
                f"set it in the command: export {key[:40]}={quoted(found.text)}",
            )
    return environment


def decode_registries(fields: Fields) -> dict[str, RegistryAuthSpec]:
    """Decode the field `docker_registries_auth`: logins by registry."""
    place = fields.get("docker_registries_auth")
    if place is None:
        return {}
    registries: dict[str, RegistryAuthSpec] = {}
    for registry, value in place.entries():
        value.require_printable(registry, "docker registry")
        registries[registry] = _decode_auth(registry, value)
    return registries


def _decode_auth(registry: str, place: Cursor) -> RegistryAuthSpec:
    if place.is_null:
        place.error(
            f"docker registries auth {quoted(registry)} is empty", "give username and password, or type and auth"
        )
        return RegistryAuthSpec("basic", _EMPTY, _EMPTY, _EMPTY)
    fields = place.fields(REGISTRY_AUTH)
    if isinstance(place.node, MappingNode):
        for key, value in place.entries():
            if key.lower() in ("username", "password", "auth") and value.is_null:
                value.error("expected a text or {from_variable: NAME}, found null", 'write "" for an empty text')
    username, password, auth = (
        _EMPTY if (field := fields.get(name)) is None else _decode_value(field, strict=True)
        for name in ("username", "password", "auth")
    )
    return RegistryAuthSpec(fields.text("type") or "basic", username, password, auth)


def _decode_value(place: Cursor, *, strict: bool = False) -> Value:
    """Decode `text` or `{from_variable: NAME}`; an empty map is the empty text.

    A number or a boolean counts as its spelling, unless `strict`.
    """
    if isinstance(place.node, MappingNode):
        fields = place.fields(VALUE, foreign=FOREIGN_VALUE)
        if fields.get("from_variable") is None:
            return _EMPTY
        return Value(fields.strict_text("from_variable"), "from_variable")
    if place.is_null:
        place.error(f"unknown value format: expected a text or {{from_variable: NAME}}, found {describe(place.node)}")
        return _EMPTY
    return Value((place.strict_text() if strict else place.text()) or "")

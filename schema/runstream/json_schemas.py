"""JSON Schemas of every event type, generated from the dataclasses: `python -m runstream.json_schemas [FOLDER]`.

`docs/formats/events/<type>.<version>.json` describes one version of one event as it is in a body. With
`--release` the fingerprints of all current versions are kept in `released.json`: from then on that version may
not change any more, and what is to change needs a higher version and an upcaster.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import orjson

from runstream.events.event import DomainEvent
from runstream.events.registry import EVENT_TYPES

FOLDER = Path("docs/formats/events")
RELEASED = "released.json"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_WORDS = frozenset({"title", "description"})


def schemas(types: Iterable[type[DomainEvent]] = tuple(EVENT_TYPES.values())) -> dict[str, dict[str, object]]:
    """Return the schema of each event type by `<type>.<version>`."""
    return {f"{event.__name__}.{event.SCHEMA_VERSION}": _schema(event) for event in types}


def fingerprint(schema: Mapping[str, object]) -> str:
    """Return a hash of the values that a schema accepts; descriptions do not count."""
    return hashlib.sha256(orjson.dumps(_without_words(schema), option=orjson.OPT_SORT_KEYS)).hexdigest()


def broken(released: Mapping[str, str], current: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Return the released versions that have changed. A version that is no longer current needs an upcaster."""
    return [name for name, hashed in released.items() if name in current and fingerprint(current[name]) != hashed]


def text(schema: Mapping[str, object]) -> bytes:
    """Return the content of the schema's file."""
    return orjson.dumps(schema, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def main(arguments: list[str]) -> None:
    """Write the files; with `--release`, fix them."""
    folders = [argument for argument in arguments if argument != "--release"]
    folder = Path(folders[0]) if folders else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    current = schemas()
    for name, schema in current.items():
        (folder / f"{name}.json").write_bytes(text(schema))
    file = folder / RELEASED
    released: dict[str, str] = orjson.loads(file.read_bytes()) if file.exists() else {}
    if "--release" in arguments:
        released |= {name: fingerprint(schema) for name, schema in current.items() if name not in released}
    file.write_bytes(text(released))


def _schema(event: type[DomainEvent]) -> dict[str, object]:
    _, components = msgspec.json.schema_components([event])
    own: dict[str, object] = components.pop(event.__name__)
    properties, required = own["properties"], own["required"]
    if not isinstance(properties, dict) or not isinstance(required, list):
        raise TypeError(f"{event.__name__} has no schema of an object")
    properties |= {"type": {"const": event.__name__}, "version": {"const": event.SCHEMA_VERSION}}
    own |= {"$schema": _DIALECT, "required": [*required, "type", "version"], "additionalProperties": False}
    if components:
        own["$defs"] = components
    return own


def _without_words(value: object) -> object:
    if isinstance(value, Mapping):
        # A property may be named `title`: its value is a schema, not text.
        return {k: _without_words(v) for k, v in value.items() if k not in _WORDS or not isinstance(v, str)}
    if isinstance(value, list | tuple):
        return [_without_words(item) for item in value]
    return value


if __name__ == "__main__":
    main(sys.argv[1:])

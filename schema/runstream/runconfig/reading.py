"""From the bytes of a file to nodes. Nothing that stands in a file can make this slow, big or fail otherwise.

JSON goes through the same reader as YAML: what YAML allows in JSON, existing files use. What a program made is
strict JSON and has a reader of its own, `generated`.
"""

from __future__ import annotations

import json
import re
from typing import Literal

from runstream.limits import MAX_FILE_BYTES
from runstream.runconfig.bounds import RefusedError
from runstream.runconfig.generated import compose_generated
from runstream.runconfig.nodes import Node
from runstream.runconfig.problems import ConfigError, Problem

MAX_BYTES = MAX_FILE_BYTES
Format = Literal["yaml", "json", "generated"]
"""`generated` is JSON that a program wrote: nobody reads it, so its problems have no lines."""

_SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)((?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})+)")


def read_nodes(text: bytes | str, source: str, syntax: Format = "yaml") -> Node | None:
    """The node that the file is; None for an empty one.

    Raises ConfigError for a file over 1 MiB, that is not UTF-8, not YAML or JSON, has a duplicate key, more
    than one document, or exceeds the bounds on depth and size.
    """
    try:
        decoded = _decoded(text)
        if syntax == "generated":
            return compose_generated(decoded)
        from runstream.runconfig.yaml_text import compose_yaml  # not at the top: what a program made goes without it

        return compose_yaml(_json_as_yaml(decoded) if syntax == "json" else decoded)
    except RefusedError as error:
        raise ConfigError(source, [Problem("", error.line, error.message, error.hint)]) from error.__cause__


def _decoded(text: bytes | str) -> str:
    if len(text) > MAX_BYTES:
        raise RefusedError(0, f"the file is bigger than {MAX_BYTES} bytes")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise RefusedError(line, "the file is not UTF-8 text", "save it as UTF-8") from error
    elif len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise RefusedError(0, f"the file is bigger than {MAX_BYTES} bytes")
    return text


def _json_as_yaml(text: str) -> str:
    """JSON, in the spelling that readers of YAML know as well."""
    if not _is_json(text):
        return text
    # In JSON a tab can only stand between values, where YAML knows but spaces.
    return _SURROGATES.sub(lambda found: found[1] + str(json.loads(f'"{found[2]}"')), text.replace("\t", " "))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False  # the YAML reader says what is wrong, if anything is
    return True

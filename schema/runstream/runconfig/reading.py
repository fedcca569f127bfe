"""From the bytes of a file to nodes. Nothing that stands in a file can make this slow, big or fail otherwise.

JSON goes through the same reader as YAML: what YAML allows in JSON, existing files use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import orjson
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import DocumentStartEvent, Event, StreamEndEvent
from ruamel.yaml.reader import ReaderError

from runstream.runconfig.composing import Composer, RefusedError, line_of
from runstream.runconfig.nodes import Node
from runstream.runconfig.problems import ConfigError, Problem

MAX_BYTES = 1 << 20
Format = Literal["yaml", "json"]


def read_nodes(text: bytes | str, source: str, syntax: Format = "yaml") -> Node | None:
    """The node that the file is; None for an empty one.

    Raises ConfigError for a file over 1 MiB, that is not UTF-8, not YAML or JSON, has a duplicate key, more
    than one document, or exceeds the bounds on depth and size.
    """
    try:
        return _compose(_decoded(text, syntax))
    except RefusedError as error:
        raise ConfigError(source, [Problem("", error.line, error.message, error.hint)]) from error.__cause__


def _decoded(text: bytes | str, syntax: Format) -> str:
    if len(text) > MAX_BYTES:
        raise RefusedError(1, f"the file is bigger than {MAX_BYTES} bytes")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise RefusedError(line, "the file is not UTF-8 text", "save it as UTF-8") from error
    elif len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise RefusedError(1, f"the file is bigger than {MAX_BYTES} bytes")
    if syntax == "json" and _is_json(text):
        # In JSON a tab can only stand between values, where YAML knows but spaces.
        return text.replace("\t", " ")
    return text


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False  # the YAML reader says what is wrong, if anything is
    return True


def _compose(text: str) -> Node | None:
    events = _events(text)
    root: Node | None = None
    for event in events:
        if isinstance(event, StreamEndEvent):
            break
        if not isinstance(event, DocumentStartEvent):
            continue
        if root is not None:
            raise RefusedError(line_of(event), "the file holds more than one document", "remove what follows ---")
        root = Composer(events).compose(next(events))
    return root


def _events(text: str) -> Iterator[Event]:
    """The reader's events; whatever it raises is about the text."""
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = int(mark.line) + 1 if mark is not None else 1
        raise RefusedError(
            line, f"not readable: {error.problem or error.context}", _hint(str(error.problem))
        ) from error
    except ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise RefusedError(line, "a character that no text file holds", "remove control characters") from error
    except GeneratorExit:
        raise
    except Exception as error:
        raise RefusedError(1, f"not readable: {error}"[:200]) from error


def _hint(problem: str) -> str:
    if "'\\t'" in problem:
        return "indent with spaces, not with tabs"
    if "mapping values are not allowed" in problem:
        return "put a text that contains ': ' in quotes"
    return ""

"""From YAML to nodes: whatever the reader of the library raises is about the text, and says so with its line."""

from __future__ import annotations

from collections.abc import Iterator

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import DocumentStartEvent, Event, StreamEndEvent
from ruamel.yaml.reader import ReaderError

from runstream.runconfig.bounds import RefusedError
from runstream.runconfig.composing import Composer, line_of
from runstream.runconfig.nodes import Node


def compose_yaml(text: str) -> Node | None:
    """The node that the text is; None for an empty one. Raises RefusedError."""
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
        yield from YAML(typ="safe").parse(text)
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
    if "cannot start any token" in problem:
        return "indent with spaces, not with tabs; put a text that begins with @, ` or % in quotes"
    if "mapping values are not allowed" in problem:
        return "put a text that contains ': ' in quotes"
    if "Unicode character escape" in problem:
        return "write the character itself"
    return ""

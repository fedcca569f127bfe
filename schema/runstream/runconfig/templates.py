"""Templates of cache keys: text with calls between `{{` and `}}`, in the syntax of Go's text/template (rule step-23).

    linux-{{ arch }}-{{ sha256sum "go.sum" }}

Calls may have a text in quotes or backquotes as argument, be nested in parentheses, or be piped into each other. `{{-`
and `-}}` remove the blanks beside them, and `{{/* … */}}` is a comment. There are no variables and no conditions.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

MAX_KEY_BYTES = 1 << 20
"""Of a rendered key."""
MAX_FILE_BYTES = 1 << 20
"""Of a file whose checksum is part of a key."""
MAX_TEMPLATE_BYTES = 64 << 10
_MAX_NESTING = 20
_IN_ACTION = re.compile(r"\"(?:\\.|[^\"\\\n])*\"|`[^`]*`|/\*(?:[^*]|\*(?!/))*\*/|\}\}")
_TOKEN = re.compile(r"\s*(?:([A-Za-z_]\w*)|(\"(?:\\.|[^\"\\\n])*\")|`([^`]*)`|([|()]))")
FUNCTIONS = {
    "arch": 0,
    "day": 0,
    "env": 1,
    "md5sum": 1,
    "month": 0,
    "os": 0,
    "sha256sum": 1,
    "unixtime": 0,
    "year": 0,
}
"""Functions, with the number of their arguments."""


class KeySource(Protocol):
    """What a key is made of, at the time and place of a step."""

    @property
    def now(self) -> datetime:
        """The local time."""
        ...

    @property
    def system(self) -> str:
        """The operating system, by its name in Go, such as `linux`."""
        ...

    @property
    def arch(self) -> str:
        """The architecture, by its name in Go, such as `amd64`."""
        ...

    def env(self, name: str) -> str:
        """Return a variable of the step; empty for one that is not set. Raises ValueError for one that may not be
        used."""
        ...

    async def file(self, path: str) -> bytes:
        """Return the content of a file. Raises ValueError for one that cannot be read, or is larger than a key's may
        be."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function."""

    function: str
    arguments: tuple[str | Call, ...]


Template = tuple[str | Call, ...]
"""Texts and calls, whose results are joined."""


def parse_template(text: str) -> Template:
    """Read a template. Raises ValueError, with the place and the reason."""
    if len(text.encode()) > MAX_TEMPLATE_BYTES:
        raise ValueError(f"the template is longer than {MAX_TEMPLATE_BYTES} bytes")
    parts: list[str | Call] = []
    at, trim = 0, False
    while (begin := text.find("{{", at)) >= 0:
        end = next((found.start() for found in _IN_ACTION.finditer(text, begin + 2) if found[0] == "}}"), -1)
        if end < 0:
            raise ValueError(f"{text[begin : begin + 40]!r} has no end: `}}}}` is missing")
        action = text[begin + 2 : end]
        plain = text[at:begin].lstrip() if trim else text[at:begin]
        trims_before = action[:1] == "-" and action[1:2].isspace()
        trim = len(action) > 1 and action[-1] == "-" and action[-2].isspace()
        action = action[trims_before : len(action) - trim].strip()
        parts.append(plain.rstrip() if trims_before else plain)
        if not (action.startswith("/*") and action.endswith("*/")):
            parts.append(_Parser(action).whole())
        at = end + 2
    parts.append(text[at:].lstrip() if trim else text[at:])
    return tuple(part for part in parts if part != "")


async def render(template: Template, source: KeySource) -> str:
    """Return the text of a template. Raises ValueError for a file that cannot be used, and for a text too large."""
    text, size = [], 0
    for part in template:
        rendered = part if isinstance(part, str) else await _called(part, source)
        size += len(rendered.encode(errors="surrogateescape"))
        if size > MAX_KEY_BYTES:
            raise ValueError(f"the key is longer than {MAX_KEY_BYTES} bytes")
        text.append(rendered)
    return "".join(text)


async def _called(call: Call, source: KeySource) -> str:
    arguments = [one if isinstance(one, str) else await _called(one, source) for one in call.arguments]
    match call.function:
        case "md5sum":
            return hashlib.md5(await source.file(arguments[0]), usedforsecurity=False).hexdigest()
        case "sha256sum":
            return hashlib.sha256(await source.file(arguments[0])).hexdigest()
        case "env":
            return source.env(arguments[0])
        case "os":
            return source.system
        case "arch":
            return source.arch
        case "unixtime":
            return str(int(source.now.timestamp() * 1e9))
        case name:
            return source.now.strftime({"year": "%Y", "month": "%m", "day": "%d"}[name])


class _Parser:
    """Reads the pipeline of one action."""

    def __init__(self, text: str) -> None:
        self._text = text.strip()
        self._tokens: Sequence[tuple[str, str]] = list(self._tokenized())
        self._next = 0

    def whole(self) -> Call:
        """Return the call that the action is."""
        found = self._pipeline(0)
        if self._next < len(self._tokens):
            raise self._error(f"unexpected {self._tokens[self._next][1]!r}")
        if isinstance(found, str):
            raise self._error("it has no function")
        return found

    def _tokenized(self) -> Iterator[tuple[str, str]]:
        at = 0
        while at < len(self._text):
            token = _TOKEN.match(self._text, at)
            if token is None:
                raise self._error(f"unexpected {self._text[at:].strip()[:20]!r}")
            if token[1] is not None:
                yield "name", token[1]
            elif token[2] is not None:
                yield "text", self._unquoted(token[2])
            elif token[3] is not None:
                yield "text", token[3]
            else:
                yield token[4], token[4]
            at = token.end()

    def _unquoted(self, quoted: str) -> str:
        try:
            text = json.loads(quoted)
        except ValueError as error:
            raise self._error(f"{quoted[:40]} has an escape that is not known") from error
        return str(text)

    def _pipeline(self, depth: int) -> str | Call:
        if depth > _MAX_NESTING:
            raise self._error(f"more than {_MAX_NESTING} parentheses")
        value = self._command(depth, ())
        while self._next < len(self._tokens) and self._tokens[self._next][0] == "|":
            self._next += 1
            value = self._command(depth, (value,))
        return value

    def _command(self, depth: int, piped: tuple[str | Call, ...]) -> str | Call:
        if self._next == len(self._tokens):
            raise self._error("a function is missing")
        kind, name = self._tokens[self._next]
        self._next += 1
        if kind == "(":
            value = self._closed(depth)
            if piped:
                raise self._error("a text cannot be piped into parentheses")
            return value
        if kind == "text" and not piped:
            return name
        if kind != "name":
            raise self._error(f"unexpected {name!r}")
        if name not in FUNCTIONS:
            known = ", ".join(sorted(FUNCTIONS))
            raise self._error(f"function {name!r} does not exist; known: {known}")
        arguments: list[str | Call] = []
        while self._next < len(self._tokens) and self._tokens[self._next][0] not in ("|", ")"):
            kind, text = self._tokens[self._next]
            self._next += 1
            arguments.append(self._closed(depth) if kind == "(" else text if kind == "text" else self._alone(text))
        arguments += piped
        if len(arguments) != FUNCTIONS[name]:
            raise self._error(f"{name} takes {('no argument', 'one argument')[FUNCTIONS[name]]}, not {len(arguments)}")
        return Call(name, tuple(arguments))

    def _closed(self, depth: int) -> str | Call:
        value = self._pipeline(depth + 1)
        if self._next == len(self._tokens) or self._tokens[self._next][0] != ")":
            raise self._error("`)` is missing")
        self._next += 1
        return value

    def _alone(self, name: str) -> Call:
        """Return the call of a function without arguments, as the argument of another one."""
        if FUNCTIONS.get(name) != 0:
            raise self._error(f"{name!r} is not a text: write it in quotes, or in parentheses with its argument")
        return Call(name, ())

    def _error(self, reason: str) -> ValueError:
        return ValueError(f"`{{{{ {self._text[:80]} }}}}`: {reason}")

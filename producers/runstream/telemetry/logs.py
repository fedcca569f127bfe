"""Log records on stderr, for people or machines, without secrets.

Every record has a sentence (`event`), an `action` for machines, its level and time (UTC), and a trace id when there is
one. An exception is part of its record: `chain` has a line for each cause with file:line, outermost first, never a
stack trace. Records of libraries (uvicorn, alembic …) are formatted the same way.

A loop that tries again may warn twice a second for hours. A warning or error that equals an earlier one is written once
in 30 seconds; `repeated` is the number of those left out since.

Secrets are hidden by three rules, because each alone has holes: any value of a field with a telling name; passwords in
URLs and private keys, anywhere; texts registered with `hide_secret`, anywhere.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Mapping, MutableMapping
from time import monotonic
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import orjson
import structlog
from cachetools import LRUCache

from runstream.errors import chain_lines, outermost
from runstream.telemetry.tracing import current_traceparent

EventDict = MutableMapping[str, Any]
Level = Literal["debug", "info", "warning", "error"]
HIDDEN = "[hidden]"
_SHORTEST = 6
_NAMES = ("token", "password", "passwd", "secret", "authorization", "privkey", "private_key", "credential", "cookie")
_URL_PASSWORD = re.compile(r"(?<=://)([^/\s:@\"']*):([^/\s\"']+)@")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_registered: set[str] = set()
REPEAT_SECONDS = 30.0
"""Minimum interval between equal warnings or errors, in seconds."""
MAX_RECENT = 512
"""Maximum number of different warnings and errors that are remembered, in order to recognise a repeated one."""


def setup_logging(level: Level = "info", style: Literal["console", "json"] = "console") -> None:
    """Send our records, and warnings and errors of libraries, to stderr. Call it once in a process."""
    lowest: int = getattr(logging, level.upper())
    render = _render_json if style == "json" else _ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _with_chain,
            _Repeats(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_trace,
            _without_secrets,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=lambda *_: _StderrLogger(),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(logging.INFO if level == "debug" else max(logging.WARNING, lowest))


class _Repeats:
    """A filter of warnings and errors that equal a recent one."""

    def __init__(self) -> None:
        self._recent: LRUCache[str, tuple[float, int]] = LRUCache(MAX_RECENT)
        """When each record was last written, and how many equal ones were left out since."""
        self._lock = threading.Lock()

    def __call__(self, _logger: object, _method: str, record: EventDict) -> EventDict:
        if record["level"] in ("debug", "info"):
            return record
        key, now = repr(sorted(record.items())), monotonic()
        with self._lock:
            written, left_out = self._recent.get(key, (-REPEAT_SECONDS, 0))
            if now - written < REPEAT_SECONDS:
                self._recent[key] = written, left_out + 1
                raise structlog.DropEvent
            self._recent[key] = now, 0
        return {**record, "repeated": left_out} if left_out else record


class _StderrLogger:
    """A writer of rendered records to the current stderr; a broken stderr must not break the work."""

    def msg(self, line: str) -> None:
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            return  # stderr itself is broken: there is no place to report it

    debug = info = warning = warn = error = critical = fatal = failure = err = exception = log = msg


class _ToStructlog(logging.Handler):
    """A handler that passes records of libraries to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        level = min(max(record.levelno, logging.DEBUG), logging.CRITICAL) // 10 * 10
        text = record.getMessage()
        if "Traceback (most recent call last)" in text:
            text = text.rstrip().rpartition("\n")[2]
        error = record.exc_info[1] if record.exc_info else None
        structlog.get_logger().log(level, text, action="library", logger=record.name, exc_info=error)


def _with_trace(_logger: object, _method: str, record: EventDict) -> EventDict:
    traceparent = current_traceparent(start=False)
    if traceparent:
        record.setdefault("trace", traceparent[3:35])
    return record


def _with_chain(_logger: object, _method: str, record: EventDict) -> EventDict:
    error = _exception_of(record.pop("exc_info", None))
    record.pop("stack_info", None)
    if error is not None:
        record["chain"] = chain_lines(error)
        ours = outermost(error)
        if ours is not None and ours.code:
            record.setdefault("code", ours.code)
        if ours is not None and ours.hint:
            record.setdefault("hint", ours.hint)
    return record


def _exception_of(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple) and len(exc_info) == 3 and isinstance(exc_info[1], BaseException):
        return exc_info[1]
    return sys.exc_info()[1] if exc_info else None


def _without_secrets(_logger: object, _method: str, record: EventDict) -> EventDict:
    return {key: hidden(key, value) for key, value in record.items()}


def _render_json(_logger: object, _method: str, record: EventDict) -> str:
    return without_secrets(orjson.dumps(record, default=str).decode())


class _ConsoleRenderer:
    """A renderer for people: one line, and one more for each cause."""

    def __init__(self, *, colors: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=36)

    def __call__(self, logger: object, method: str, record: EventDict) -> str:
        chain = record.pop("chain", [])
        line = self._render(logger, method, record)
        return without_secrets("\n    ".join([line, *chain]))


def hide_secret(text: str) -> None:
    """Hide this text in every later record of this process. Texts under 6 characters are too common to hide."""
    if len(text) >= _SHORTEST:
        _registered.add(text)


def hide_password_of(url: str) -> None:
    """Hide the password in a URL, if it has one, in every later record."""
    password = urlsplit(url).password if "://" in url else None
    if password:
        hide_secret(password)
        hide_secret(unquote(password))


def without_secrets(text: str) -> str:
    """Return the text with all recognisable secrets hidden."""
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text)
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY.sub(HIDDEN, text)
    for secret in _registered:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return text


def hidden(name: str, value: object) -> object:
    """Return a field's value without secrets, hidden as a whole when its name is telling; walks maps and lists."""
    if isinstance(value, str):
        return HIDDEN if value and _is_secret(name) else without_secrets(value)
    if isinstance(value, Mapping):
        return {str(key): hidden(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [hidden(name, item) for item in value]
    if value is None or isinstance(value, (int, float)):
        return value
    return HIDDEN if _is_secret(name) else without_secrets(str(value))


def _is_secret(name: str) -> bool:
    lowered = name.lower()
    return any(part in lowered for part in _NAMES)

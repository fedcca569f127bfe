"""What a log record looks like: one record a thing that happened, on stderr, readable by people or machines.

Every record has a sentence (`event`), an `action` for machines, its level and time (UTC), and the trace id
when there is one. An exception is part of its record: `chain` has one line a cause with file:line, outermost
first, never a stack trace. Records of libraries (uvicorn, alembic …) go the same way.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import orjson
import structlog

from runstream.errors import chain_lines, outermost
from runstream.telemetry.secrets import hidden, without_secrets
from runstream.telemetry.tracing import current_traceparent

EventDict = MutableMapping[str, Any]
Level = Literal["debug", "info", "warning", "error"]
_LEVELS: dict[Level, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def setup_logging(level: Level = "info", style: Literal["console", "json"] = "console") -> None:
    """Send our records, and those of libraries from warnings upward, to stderr. Called once in a process."""
    render = _render_json if style == "json" else _ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_trace,
            _with_chain,
            _without_secrets,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _StderrLogger(),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(logging.INFO if level == "debug" else max(logging.WARNING, _LEVELS[level]))


class _StderrLogger:
    """Writes a rendered record to what is stderr now; a stderr that is gone must not break the work."""

    def msg(self, line: str) -> None:
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            return  # nobody can be told: the place to tell it is what is broken

    debug = info = warning = warn = error = critical = fatal = failure = err = exception = log = msg


class _ToStructlog(logging.Handler):
    """Takes the records of libraries in."""

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
    """A record for people: one line, and one more for each cause."""

    def __init__(self, *, colors: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=36)

    def __call__(self, logger: object, method: str, record: EventDict) -> str:
        chain = record.pop("chain", [])
        line = self._render(logger, method, record)
        return without_secrets("\n    ".join([line, *chain]))

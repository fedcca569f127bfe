"""One trace for each run: it connects the gateway's request, the scheduler's decisions and the executor's steps.

A W3C traceparent travels in every commit. Without an exporter a span is only that text, passed on unchanged, at the
cost of one context variable; with one it is a span of the SDK. The parent decides about sampling.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

from opentelemetry import trace

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_current: ContextVar[str] = ContextVar("runstream_traceparent", default="")
Attribute = str | bool | int | float


class Span:
    """A span as a context manager. This one is not recorded."""

    __slots__ = ("_token", "traceparent")

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent
        self._token: Token[str] | None = None

    def __enter__(self) -> Self:
        self._token = _current.set(self.traceparent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)

    def set(self, name: str, value: Attribute) -> None:
        """Add an attribute."""


class _RecordedSpan(Span):
    __slots__ = ("_span",)

    def __init__(self, span: trace.Span) -> None:
        context = span.get_span_context()
        super().__init__(f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}")
        self._span = span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if error is not None:
            self._span.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}")
        self._span.end()

    def set(self, name: str, value: Attribute) -> None:
        self._span.set_attribute(name, value)


class _Exporting:
    """The tracer that records spans of this process; None when they are not recorded."""

    tracer: trace.Tracer | None = None


def record_with(tracer: trace.Tracer | None) -> None:
    """Record the spans of this process with a tracer; None stops it."""
    _Exporting.tracer = tracer


def span_from(traceparent: str, name: str, attributes: Mapping[str, Attribute] | None = None) -> Span:
    """Return a span below this traceparent or, if that is empty or malformed, below the current one or a new root.

    Use it as `with span_from(...):`; an exported span begins with the call and ends with the block.
    """
    parent = _valid(traceparent) or _current.get()
    tracer = _Exporting.tracer
    if tracer is None:
        return Span(parent or _new_root())
    context = trace.set_span_in_context(_remote(parent)) if parent else None
    return _RecordedSpan(tracer.start_span(name, context=context, attributes=attributes))


def current_traceparent(*, start: bool = True) -> str:
    """Return the traceparent for a message that is sent now. Outside of spans: a new root, or "" if not `start`."""
    return _current.get() or (_new_root() if start else "")


def _valid(traceparent: str) -> str:
    return traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else ""


def _new_root() -> str:
    """Return the traceparent of a new trace that is not recorded."""
    text = os.urandom(24).hex()
    return f"00-{text[:32]}-{text[32:]}-00"


def _remote(traceparent: str) -> trace.Span:
    _, trace_id, span_id, flags = traceparent.split("-")
    return trace.NonRecordingSpan(
        trace.SpanContext(
            int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(int(flags, 16))
        )
    )

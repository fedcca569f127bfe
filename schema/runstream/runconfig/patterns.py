"""Regular expressions that users write: RE2, so that matching takes linear time whatever they write."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol, cast

import re2  # type: ignore[import-untyped]

_MAX_BYTES = 4096


class _Compiled(Protocol):
    def search(self, text: str) -> object | None: ...


class PatternError(ValueError):
    """The expression is not one; the message says why."""


def check_pattern(pattern: str) -> None:
    """Raises PatternError when it cannot be compiled."""
    if len(pattern.encode()) > _MAX_BYTES:
        raise PatternError(f"longer than {_MAX_BYTES} bytes")
    _compiled(pattern)


def searches(pattern: str, text: str) -> bool:
    """Whether the pattern is found anywhere in the text. Raises PatternError."""
    return _compiled(pattern).search(text) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> _Compiled:
    options = re2.Options()
    options.log_errors = False
    try:
        return cast("_Compiled", re2.compile(pattern, options))
    except re2.error as error:
        reason = error.args[0] if error.args else error
        raise PatternError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from error

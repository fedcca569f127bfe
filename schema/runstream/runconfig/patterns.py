"""Regular expressions that users write: RE2, so that matching takes linear time whatever they write.

What one can cost is bounded by its length and by the memory of its program; how many different ones a file has, by
whoever reads the file.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol, cast

MAX_EXPRESSIONS = 100
"""Different ones in one file."""
_MAX_BYTES = 4096
_MAX_MEMORY = 256 << 10
"""Bytes, of one compiled expression."""


class _Compiled(Protocol):
    def search(self, text: str) -> object | None: ...


class PatternError(ValueError):
    """The expression is not one; the message says why."""


def check_pattern(pattern: str) -> None:
    """Raises PatternError when it cannot be compiled."""
    if len(pattern.encode()) > _MAX_BYTES:
        raise PatternError(f"longer than {_MAX_BYTES} bytes")
    _compiled(pattern)


@lru_cache(maxsize=1024)
def searches(pattern: str, text: str) -> bool:
    """Whether the pattern is found anywhere in the text. Raises PatternError."""
    return _compiled(pattern).search(text) is not None


@lru_cache(maxsize=MAX_EXPRESSIONS)
def _compiled(pattern: str) -> _Compiled:
    import re2  # type: ignore[import-untyped]  # not at the top: most files have no expression

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    try:
        return cast("_Compiled", re2.compile(pattern, options))
    except re2.error as error:
        reason = error.args[0] if error.args else error
        raise PatternError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from error

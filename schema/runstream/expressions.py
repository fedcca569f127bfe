"""What is said of a regular expression that RE2 does not take."""

from __future__ import annotations

_MOST = 60
"""Maximum number of characters of the expression that are repeated."""


def expression_fault(error: Exception, expression: str, *, added: str = "") -> str:
    """Return RE2's reason with at most the beginning of the expression, and without what was `added` before it."""
    reason = error.args[0] if error.args else error
    text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    text = text.replace(f"{added}{expression}", expression).removesuffix(f": {added}") if added else text
    kind, colon, about = text.partition(": ")
    return f"{kind}{colon}{about[:_MOST]}…" if len(about) > _MOST else text

"""Confirmation of what cannot be undone: a question on a terminal, `--yes` everywhere else."""

from __future__ import annotations

import sys

from runstream.errors import BadRequestError


def require_confirmed(question: str, *, yes: bool) -> None:
    """Return once the user has confirmed. Raises BadRequestError (notConfirmed) otherwise."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise BadRequestError(
            f"this would {question.rstrip('?')}, and cannot be undone",
            code="notConfirmed",
            hint="pass --yes to confirm",
        )
    sys.stderr.write(f"{question} This cannot be undone. [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise BadRequestError("nothing was deleted", code="notConfirmed", hint="answer y, or pass --yes")

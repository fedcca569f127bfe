"""The refusals that several decisions share: what does not exist, and what is not a name."""

from __future__ import annotations

from runstream.errors import BadRequestError, NotExistError
from runstream.names import RULE, valid_name

_SHOWN = 80


def missing(what: str, reference: str, *, code: str) -> NotExistError:
    """Return the error for a thing that does not exist; `what` names its kind."""
    return NotExistError(f"{what} {shown(reference)} does not exist", code=code, details={"ref": reference[:_SHOWN]})


def taken(what: str, name: str, *, code: str, below: str = "") -> BadRequestError:
    """Return the error for a name that another thing has."""
    where = f" in {below}" if below else ""
    return BadRequestError(
        f"{what} {shown(name)} already exists{where}", code=code, details={"name": name}, hint="choose another name"
    )


def require_name(name: str, what: str, *, code: str) -> None:
    """Raise BadRequestError if the text is not a name."""
    if not valid_name(name):
        problem = f"{shown(name)} is not a name for {what}" if name else f"the name of {what} is missing"
        raise BadRequestError(problem, code=code, hint=RULE)


def require_choice(value: str, choices: tuple[str, ...], what: str, *, code: str) -> None:
    """Raise BadRequestError if the value is none of the choices."""
    if value not in choices:
        listed = " or ".join(choices)
        problem = f"{what} must be {listed} (got {shown(value)})" if value else f"{what} is missing"
        raise BadRequestError(problem, code=code, hint=f"{what} is {listed}")


def shown(text: str) -> str:
    """Return a text of the user for a message, bounded."""
    return repr(text[:_SHOWN])

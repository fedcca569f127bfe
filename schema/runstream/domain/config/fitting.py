"""What every thing of the config service says about itself, and the checks that events share.

A thing *claims* what no other one may have (a name below its parent, say), and *refers* to what has to exist. With
these two, one piece of code keeps names unique and everything reachable, for all kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, TypeVar

Kind = Literal["user", "org", "projectgroup", "project", "secret", "variable", "remotesource"]
Claim: TypeAlias = tuple[str, str, str]
"""A kind of name, the id of the parent (empty for the whole service), and the name."""
Reference: TypeAlias = tuple[Kind, str]
"""Kind and id of a thing."""
T = TypeVar("T")


class Unfit(ValueError):  # noqa: N818  it says how an event relates to the state
    """An event does not fit the state before it."""


def require_new(thing: object | None, key: str) -> None:
    """Raise Unfit if the thing exists."""
    if thing is not None:
        raise Unfit(f"{key!r} exists already")


def existing(thing: T | None, key: str) -> T:
    """Return the thing. Raises Unfit if there is none."""
    if thing is None:
        raise Unfit(f"{key!r} does not exist")
    return thing


def without(things: Mapping[str, T], key: str) -> dict[str, T]:
    """Return the things without an existing one. Raises Unfit if it is not among them."""
    existing(things.get(key), key)
    return {name: thing for name, thing in things.items() if name != key}

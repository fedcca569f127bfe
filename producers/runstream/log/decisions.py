"""The loop around a decision: load, decide, append; when somebody else was first, load and decide again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from runstream.commits import Head, NewCommit, Position
from runstream.log.port import AppendConflictError, Log

S = TypeVar("S")
ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Appended:
    """A decision that is in the log."""

    commit: NewCommit
    position: Position


async def decide_and_append(
    log: Log,
    load: Callable[[Position | None], Awaitable[tuple[S, Head]]],
    decide: Callable[[S, Head], NewCommit | None],
    *,
    attempts: int = ATTEMPTS,
) -> Appended | None:
    """Decide on the newest state and append what was decided; None when there was nothing to decide.

    `load` gives the aggregate's state and head, at least as of the position it is given (None: as it is).
    `decide` is pure, and may be called again with a newer state. Raises what `load`, `decide` and `append` raise,
    and AppendConflictError when somebody else was first each of `attempts` times.
    """
    at_least: Position | None = None
    for attempt in range(1, attempts + 1):
        state, head = await load(at_least)
        commit = decide(state, head)
        if commit is None:
            return None
        try:
            return Appended(commit, await log.append(commit))
        except AppendConflictError as conflict:
            if attempt == attempts:
                raise
            at_least = conflict.last.position if conflict.last is not None else at_least
    raise ValueError(f"attempts must be at least 1 (got {attempts})")

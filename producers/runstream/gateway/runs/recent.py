"""The runs that this gateway created a moment ago: reads of their project or user wait until lists show them.

Clients of the model read the list of a project after they have created a run, and name no position. A creation does not
wait for the projection; the next read of the same project or user at this gateway does. At other gateways, and for
other programs, the header `Runstream-Position` of the creation does the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from cachetools import TTLCache

from runstream.commits import Position
from runstream.errors import InternalError
from runstream.subjects import group_root

MAX_ROOTS = 10_000
SECONDS = 10.0
"""Time for which a creation is remembered: more than any wait for the projection."""
T = TypeVar("T")


class RecentRuns:
    """The position of the last creation, by group root (`/project/<id>`, `/user/<id>`)."""

    def __init__(self) -> None:
        self._positions: TTLCache[str, Position] = TTLCache(MAX_ROOTS, SECONDS)

    def note(self, group: str, position: Position) -> None:
        """Note that a run of the group was created, or changed, at a position."""
        root = group_root(group)
        known = self._positions.get(root)
        if known is None or position > known:
            self._positions[root] = position

    async def read(
        self, root: str, at_least: Sequence[Position], read: Callable[[Sequence[Position]], Awaitable[T]]
    ) -> T:
        """Return what `read` returns for `at_least` and the last creation below the root.

        When the projection does not reach the creation in time, the read does without it.
        """
        recent = self._positions.get(root)
        if recent is None:
            return await read(at_least)
        try:
            return await read([*at_least, recent])
        except InternalError as error:
            if error.code != "projectionBehind":
                raise
            self._positions.pop(root, None)
            return await read(at_least)

"""Keys in the order of their ranks, where ranks change all the time."""

from __future__ import annotations

import heapq
from datetime import datetime
from typing import Generic, TypeVar

R = TypeVar("R", datetime, tuple[int, int, int])


class Ranking(Generic[R]):
    """One rank for each key, the lowest first."""

    def __init__(self) -> None:
        self._ranks: dict[str, R] = {}
        self._heap: list[tuple[R, str]] = []
        """In order; an entry that `_ranks` does not confirm is left over."""

    def __len__(self) -> int:
        return len(self._ranks)

    def set(self, key: str, rank: R | None) -> None:
        """Give the key this rank and no other; None to take it out."""
        if rank == self._ranks.get(key):
            return
        if rank is None:
            del self._ranks[key]
        else:
            self._ranks[key] = rank
            heapq.heappush(self._heap, (rank, key))
        if len(self._heap) > 2 * len(self._ranks) + 16:
            self._heap = [(there, name) for name, there in self._ranks.items()]
            heapq.heapify(self._heap)

    @property
    def first(self) -> tuple[R, str] | None:
        """The lowest rank and who has it; None when there is nobody."""
        while self._heap:
            rank, key = self._heap[0]
            if self._ranks.get(key) == rank:
                return rank, key
            heapq.heappop(self._heap)
        return None

    def lowest(self, count: int) -> list[tuple[R, str]]:
        """The lowest ranks, so many at most, and who has them; looks at all."""
        return heapq.nsmallest(count, ((rank, key) for key, rank in self._ranks.items()))

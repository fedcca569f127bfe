"""A ranking gives the lowest rank, however often ranks change."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from runstream.scheduler.fair_queue import PriorityMap


@given(st.randoms(use_true_random=False), st.integers(1, 200))
def test_the_lowest_rank_is_the_first(random: Random, moves: int) -> None:
    ranking: PriorityMap[tuple[int, int, int]] = PriorityMap()
    there: dict[str, tuple[int, int, int]] = {}
    for _ in range(moves):
        key = random.choice("abcdefgh")
        if random.random() < 0.3:
            there.pop(key, None)
            ranking.set(key, None)
        else:
            there[key] = (random.randint(0, 3), 0, ord(key))
            ranking.set(key, there[key])
        assert len(ranking) == len(there)
        assert ranking.first == min(((rank, name) for name, rank in there.items()), default=None)

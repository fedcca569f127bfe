from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from runstream.projections.ownership import assign_partitions

instances = st.sets(st.text("abcdef0123", min_size=1, max_size=8), min_size=1, max_size=12)


@given(st.integers(1, 64), instances)
def test_every_partition_has_one_owner_and_loads_differ_by_at_most_one(partitions: int, living: set[str]) -> None:
    shares = assign_partitions(partitions, living)
    assert sorted(shares) == list(range(partitions))
    loads = Counter(dict.fromkeys(living, 0))
    loads.update(shares.values())
    assert max(loads.values()) - min(loads.values()) <= 1


@given(st.integers(1, 64), instances)
def test_the_order_in_which_instances_are_known_does_not_matter(partitions: int, living: set[str]) -> None:
    assert assign_partitions(partitions, sorted(living)) == assign_partitions(partitions, sorted(living, reverse=True))


def test_without_instances_no_partition_has_an_owner() -> None:
    assert assign_partitions(4, ()) == {}


def test_few_partitions_move_when_an_instance_goes() -> None:
    before = assign_partitions(64, ["a", "b", "c", "d"])
    after = assign_partitions(64, ["a", "b", "c"])
    moved = [partition for partition in before if before[partition] != after[partition] and before[partition] != "d"]
    assert len(moved) < 24

"""Which caches go: by age, and by the size of all, the oldest first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from runstream.api import Cache
from runstream.objects import PosixObjects
from runstream.objects.caches import StoredCaches
from runstream.retention.caches import CachePolicy, CacheRetention, surplus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CACHES = st.lists(
    st.builds(
        lambda number, size, age: Cache("g", str(number), size, NOW - age),
        st.integers(0, 10**6),
        st.integers(0, 1000),
        st.timedeltas(timedelta(0), timedelta(days=30)),
    ),
    max_size=20,
    unique_by=lambda cache: cache.key,
)
POLICIES = st.builds(
    CachePolicy, st.none() | st.timedeltas(timedelta(hours=1), timedelta(days=40)), st.none() | st.integers(0, 5000)
)


@given(CACHES, POLICIES)
def test_what_is_kept_is_young_and_small_enough(caches: list[Cache], policy: CachePolicy) -> None:
    gone = surplus(caches, policy, NOW)
    kept = [cache for cache in caches if cache not in gone]
    assert policy.age is None or all(NOW - cache.created < policy.age for cache in kept)
    assert policy.size is None or sum(cache.size for cache in kept) <= policy.size
    for cache in gone:
        newer = [other.size for other in caches if other.created >= cache.created]
        old = policy.age is not None and NOW - cache.created >= policy.age
        assert old or (policy.size is not None and sum(newer) > policy.size)
    assert policy or not gone


async def test_they_are_removed_from_the_storage(tmp_path: Path) -> None:
    caches = StoredCaches(PosixObjects(tmp_path / "objects"))
    for key in ("one", "two"):
        file = tmp_path / key
        file.write_bytes(b"x" * 10)
        assert await caches.create("group", key, file)
    one = await caches.find("group", "one")
    assert one is not None
    kept = CacheRetention(caches, CachePolicy(size=10), lambda: one.created)
    oldest = await kept.remove()
    left = [cache async for cache in caches.list()]
    assert len(left) == 1
    assert oldest == left[0].created
    later = CacheRetention(caches, CachePolicy(age=timedelta(days=7)), lambda: one.created + timedelta(days=8))
    assert await later.remove() is None
    assert [cache async for cache in caches.list()] == []

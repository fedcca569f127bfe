"""A played log, projected in batches, and the state that its rows should give back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from random import Random

from runstream.commits import StoredCommit
from runstream.database import Database
from runstream.projections.fold import Changes, PartitionFold
from runstream.projections.store import ProjectionStore
from tests.domain.test_world import play
from tests.domain.world import World
from tests.migrated import make_tables


@asynccontextmanager
async def migrated(url: str, schema: str) -> AsyncIterator[Database]:
    """A database whose schema has all tables."""
    await make_tables(url, schema)
    database = Database(url, schema)
    try:
        yield database
    finally:
        await database.close()


def played(seed: int, moves: int = 200, *, settled: bool = False) -> World:
    """A world in which much has happened."""
    random = Random(seed)  # noqa: S311  # a world, not a secret
    world = World(random)
    play(world, random, moves)
    if settled:
        world.settle()
    return world


def batches(log: Sequence[StoredCommit], random: Random, largest: int = 40) -> Iterable[Sequence[StoredCommit]]:
    """The log, cut anywhere."""
    at = 0
    while at < len(log):
        size = random.randint(1, largest)
        yield log[at : at + size]
        at += size


def folded(fold: PartitionFold, commits: Iterable[StoredCommit]) -> Changes:
    """Apply the commits; what they changed."""
    for stored in commits:
        fold.apply(stored)
    return fold.take_changes()


async def project(store: ProjectionStore, fold: PartitionFold, commits: Iterable[StoredCommit]) -> None:
    """Apply the commits to the fold and to the rows."""
    await store.apply(folded(fold, commits))

"""What the storage holds, and how much of it retention would remove now: what it decides about each ended run."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runstream.domain.retention import EndedRun, Policy, decide_retention
from runstream.events.run import RunDataRemoved, RunDeleted
from runstream.ids import new_id
from runstream.objects import PosixObjects, paths
from runstream.policies import Policies
from runstream.projections.store import ProjectionStore, load_partition
from runstream.retention.caches import CachePolicy
from runstream.retention.usage import StorageUse
from tests.domain.world import World
from tests.projections.playing import folded, migrated, played
from tests.projections.test_fsck import logged

LATER = datetime.now(UTC) + timedelta(days=10)
DAY = timedelta(days=1)


def due_of(world: World, policy: Policy) -> Counter[str]:
    """Count what retention decides about each run."""
    due: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    runs = [one.state for one in world.truth.runs.values() if one.state.archived and one.state.deleted_at is None]
    for run in sorted(runs, key=lambda run: run.counter, reverse=True):
        root = "/".join(run.group.split("/")[:3])
        ended[root] += 1
        surplus = policy.keep is not None and ended[root] > policy.keep
        holds = EndedRun(run.end_time or run.enqueue_time, surplus, run.holds_logs, run.holds_archives)
        for event in decide_retention(holds, policy, LATER - 9 * DAY, LATER):
            if isinstance(event, RunDeleted):
                due.update({"runs": 1, "logs": run.holds_logs, "archives": run.holds_archives})
            elif isinstance(event, RunDataRemoved):
                due.update(event.kinds)
    return due


@pytest.mark.parametrize(
    "policy", [Policy(keep=1), Policy(runs=DAY), Policy(logs=DAY), Policy(keep=2, archives=DAY), Policy(logs=30 * DAY)]
)
async def test_what_retention_would_remove_now(
    policy: Policy, tmp_path: Path, database_url: str, database_schema: str
) -> None:
    world = played(3, 300, settled=True)
    objects = PosixObjects(tmp_path)
    task = new_id()
    stored = [paths.step_log(task, 0), paths.archive(task, 0), *(paths.cache("g", key) for key in "abc")]
    await objects.write_all(dict.fromkeys(stored, b"12345"))
    async with migrated(database_url, database_schema) as database:
        await ProjectionStore(database).apply(folded(await load_partition(database, 0, 1), world.log))
        caches = CachePolicy(size=10)
        use = StorageUse(await logged(world), objects, database, Policies(policy), caches, lambda: LATER)
        due = {kind.kind: kind.due for kind in (await use.status()).kinds}
    expected = due_of(world, policy)
    assert due == {"runs": expected["runs"], "logs": expected["logs"], "archives": expected["archives"], "caches": 1}

"""Flaky tasks: a task failed, and then passed with the same commit and the same run config.

It passed in a later attempt of the same run, or in a later run. Only the last failures are looked at: see `EXAMINED`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import RowMapping, text

from runstream import tables
from runstream.api import FlakyList, FlakyOccurrence, FlakyRun, FlakyTask
from runstream.database.transaction import Transaction
from runstream.subjects import group_root

EXAMINED = 500
"""Maximum number of failed tasks that a request looks at, the latest ones."""
_LATEST = 5
"""Occurrences listed of each task."""
_SAME_COMMIT = f"CASE WHEN {tables.HAS_COMMIT} THEN annotations ->> 'commit_sha' = failed.commit_sha ELSE false END"
_FAILURES = {
    False: "SELECT * FROM task_failures ORDER BY sequence DESC LIMIT :examined",  # task_failures_by_sequence
    True: """
        SELECT found.* FROM unnest(CAST(:roots AS text[])) AS owner (root)
        CROSS JOIN LATERAL (
            SELECT * FROM task_failures WHERE counter_group = owner.root ORDER BY sequence DESC LIMIT :examined
        ) AS found
        WHERE EXISTS (
            SELECT FROM unnest(CAST(:groups AS text[])) AS within (value)
            WHERE found."group" = value OR (found."group" >= value || '/' AND found."group" < value || '0')
        )
        ORDER BY sequence DESC LIMIT :examined
    """,  # task_failures_by_root
}
_LOOK = """
    SELECT failed.*, run.counter AS failed_counter, later.id AS later_id, later.counter AS later_counter,
        later."group" AS later_group
    FROM ({failures}) AS failed
    JOIN runs AS run ON run.id = failed.run_id
    LEFT JOIN LATERAL (
        SELECT id, counter, "group" FROM runs
        WHERE {has_commit} AND {commit} = substr(failed.commit_sha, 1, {digits}) AND {same_commit}
            AND counter_group = failed.counter_group AND run_config = failed.run_config
            AND sequence > failed.sequence
            AND EXISTS (
                SELECT FROM run_tasks AS task
                WHERE task.run_id = runs.id AND task.name = failed.task AND task.status = 'success' AND NOT task.kept
            )
        ORDER BY sequence LIMIT 1
    ) AS later ON failed.commit_sha <> '' AND NOT failed.passed
    ORDER BY failed.sequence DESC, failed.task
"""  # runs_by_commit
_STATEMENTS = {
    of_roots: text(
        _LOOK.format(
            failures=failures,
            has_commit=tables.HAS_COMMIT,
            commit=tables.COMMIT,
            digits=tables.INDEXED_DIGITS,
            same_commit=_SAME_COMMIT,
        )
    )
    for of_roots, failures in _FAILURES.items()
}


async def list_flaky(transaction: Transaction, groups: Sequence[str] = ()) -> FlakyList:
    """List the flaky tasks of these groups and those below them, or of all; the most frequent first."""
    named = [group.rstrip("/") for group in groups]
    values = {"roots": sorted({*map(group_root, named)}), "groups": named, "examined": EXAMINED}
    rows = await transaction.rows(_STATEMENTS[bool(named)], values)
    found: defaultdict[tuple[str, str, str], list[FlakyOccurrence]] = defaultdict(list)
    for row in rows:
        if row["passed"] or row["later_id"] is not None:
            found[row["counter_group"], row["name"], row["task"]].append(_occurrence(row))
    tasks = [FlakyTask(*key, len(seen), tuple(seen[:_LATEST])) for key, seen in found.items()]
    tasks.sort(key=lambda one: -one.count)
    return FlakyList(tuple(tasks), len(rows), len(rows) >= EXAMINED)


def _occurrence(row: RowMapping) -> FlakyOccurrence:
    failed = FlakyRun(row["run_id"], row["failed_counter"], row["group"])
    later = FlakyRun(row["later_id"], row["later_counter"], row["later_group"]) if not row["passed"] else failed
    return FlakyOccurrence(row["commit_sha"], row["run_config"], failed, later, row["failures"], row["end_time"])

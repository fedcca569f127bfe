"""Indexes for lists of runs: by root, by phase and result, by commit.

Those of a large table are built while it is in use (`CONCURRENTLY`, outside of a transaction), so that the upgrade does
not hold up processes that still write. An interrupted one leaves an invalid index, which the next attempt drops.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision: str | None = "0013"
branch_labels = None
depends_on = None

_COMMIT = "substr(annotations ->> 'commit_sha', 1, 7)"
_HAS_COMMIT = r"""strpos(annotations::text, '"commit_sha"') > 0 AND strpos(annotations::text, '\u0000') = 0"""
_NOT_SUCCESS = "phase <> 'finished' OR result <> 'success'"
_INDEXES = {
    "runs_by_root": "(counter_group, sequence)",
    "runs_by_commit": f"({_COMMIT}) WHERE {_HAS_COMMIT}",
    "runs_by_state": f"(phase, result, sequence) WHERE {_NOT_SUCCESS}",
    "runs_by_root_and_state": f"(counter_group, phase, result, sequence) WHERE {_NOT_SUCCESS}",
    "runs_by_group_and_state": f'("group", phase, result, sequence) WHERE {_NOT_SUCCESS}',
}


_LARGE = 20_000
"""Runs from which building an index takes longer than a writer should wait."""


def upgrade() -> None:
    large = op.get_bind().execute(sa.text(f"SELECT 1 FROM runs OFFSET {_LARGE} LIMIT 1")).first() is not None  # noqa: S608
    if not large:
        for name, definition in _INDEXES.items():
            op.execute(f"CREATE INDEX {name} ON runs {definition}")
        return
    with op.get_context().autocommit_block():
        for name, definition in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON runs {definition}")


def downgrade() -> None:
    for name in _INDEXES:
        op.drop_index(name, "runs")

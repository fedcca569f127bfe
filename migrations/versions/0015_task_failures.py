"""The run tasks of which an attempt has failed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision: str | None = "0014"
branch_labels = None
depends_on = None

_FAILURES = """
INSERT INTO task_failures
SELECT run_id, task, partition, counter_group, "group", name, run_config, commit_sha, sequence, failures, passed,
    end_time
FROM (
    SELECT t.run_id, t.name AS task, r.partition, r.counter_group, r."group", r.name, r.run_config,
        CASE
            WHEN strpos(r.annotations::text, '"commit_sha"') = 0 OR strpos(r.annotations::text, '\\u0000') > 0 THEN ''
            WHEN length(r.annotations ->> 'commit_sha') > 64 THEN ''
            ELSE coalesce(r.annotations ->> 'commit_sha', '')
        END AS commit_sha,
        r.sequence,
        (t.failure NOT IN ('', 'lost'))::integer + (
            SELECT count(*)::integer FROM json_array_elements(t.attempts) AS a WHERE a ->> 'reason' <> 'lost'
        ) AS failures,
        t.status = 'success' AS passed, t.end_time
    FROM run_tasks AS t JOIN runs AS r ON r.id = t.run_id
    WHERE NOT t.kept AND (t.failure <> '' OR t.attempts::text <> '[]')
) AS found
WHERE failures > 0
"""


def upgrade() -> None:
    name = sa.Text(collation="C")
    op.create_table(
        "task_failures",
        sa.Column("run_id", name, nullable=False),
        sa.Column("task", name, nullable=False),
        sa.Column("partition", sa.SmallInteger, nullable=False),
        sa.Column("counter_group", name, nullable=False),
        sa.Column("group", name, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("run_config", name, nullable=False),
        sa.Column("commit_sha", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("run_id", "task"),
        postgresql_with={"fillfactor": 75},
    )
    op.execute(_FAILURES)
    op.create_index("task_failures_by_sequence", "task_failures", ["sequence"])
    op.create_index("task_failures_by_root", "task_failures", ["counter_group", "sequence"])


def downgrade() -> None:
    op.drop_table("task_failures")

"""Environment variables that point git at another repository: no git command of ours gets them.

Git sets them in its hooks. Settings (`GIT_CONFIG_COUNT`, `GIT_SSH_COMMAND`) are not among them.
"""

from __future__ import annotations

ELSEWHERE = frozenset(
    {
        *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG", "GIT_OBJECT_DIRECTORY", "GIT_DIR", "GIT_WORK_TREE"),
        *("GIT_IMPLICIT_WORK_TREE", "GIT_GRAFT_FILE", "GIT_INDEX_FILE", "GIT_NO_REPLACE_OBJECTS"),
        *("GIT_REPLACE_REF_BASE", "GIT_PREFIX", "GIT_INTERNAL_SUPER_PREFIX", "GIT_SHALLOW_FILE", "GIT_COMMON_DIR"),
        *("GIT_NAMESPACE", "GIT_TEMPLATE_DIR", "GIT_EXEC_PATH"),
    }
)
"""`git rev-parse --local-env-vars` without settings, and more that points git elsewhere."""

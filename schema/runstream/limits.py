"""How large the things are that users name, wherever they come from: files, requests, events."""

from __future__ import annotations

from runstream.counting import counted
from runstream.errors import BadRequestError
from runstream.names import name_problem
from runstream.subjects import group_root

MAX_TASKS = 2_000
"""Of a run."""
MAX_NAME_BYTES = 100
"""Of the name of a run, a task, a step."""
MAX_GROUP_BYTES = 1_000
"""Of a run's group, and so of the branch or tag in it: an entry of an index in Postgres has at most 2,704."""

MAX_WORD_BYTES = 4_096
"""Of what stands on one line: a path, an image, a user, a shell, a pattern, the name of a variable."""
MAX_TEXT_BYTES = 131_072
"""Of a value or a message; the environment of a process takes no longer one."""
MAX_COMMAND_BYTES = 524_288
"""Of the command of a step."""
MAX_FILE_BYTES = 1 << 20
"""Of a configuration file, and of each file that it imports."""


def require_group(group: str) -> str:
    """Return the group, if it is one, can be shown and fits into an index. Raises BadRequestError."""
    group_root(group)
    if problem := name_problem(group):
        raise BadRequestError(
            f"run group {group[:80]!r} {problem}", code="invalidRunGroup", hint="write it as %XX, or leave it out"
        )
    return require_group_size(group)


def require_group_size(group: str) -> str:
    """Return the group, if it is short enough to be one. Raises BadRequestError."""
    if (size := len(group.encode("utf-8", "surrogatepass"))) > MAX_GROUP_BYTES:
        raise BadRequestError(
            f"run group {group[:80]!r}… has {counted(size, 'byte')}, more than {MAX_GROUP_BYTES}",
            code="invalidRunGroup",
            hint="use a shorter group, branch or tag",
        )
    return group

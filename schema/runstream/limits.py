"""Maximum sizes of users' input, wherever it comes from: files, requests, events."""

from __future__ import annotations

from runstream.counting import counted
from runstream.errors import BadRequestError
from runstream.names import name_problem
from runstream.subjects import group_root

MAX_TASKS = 2_000
"""Maximum number of tasks of a run."""
MAX_NAME_BYTES = 100
"""Maximum length of the name of a run, a task or a step."""
MAX_GROUP_BYTES = 1_000
"""Maximum length of a run's group, and so of the branch or tag in it: an index entry in Postgres has at most 2,704."""

MAX_WORD_BYTES = 4_096
"""Maximum length of text on one line: a path, an image, a user, a shell, a pattern, the name of a variable."""
MAX_TEXT_BYTES = 131_072
"""Maximum length of a value or a message; the environment of a process takes no longer one."""
MAX_COMMAND_BYTES = 524_288
"""Maximum length of the command of a step."""
MAX_FILE_BYTES = 1 << 20
"""Maximum size of a configuration file, and of each file that it imports."""


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

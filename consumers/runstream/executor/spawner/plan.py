"""What the executor asks of the spawner: a place for a task, and commands in it."""

from __future__ import annotations

import marshal  # of the executor, whom the spawner trusts; and no copy of a JSON decoder in each fork
import os
from typing import Any, NamedTuple

COMMAND, LARGE, NEXT_TASK, NAMESPACES_WANTED = b"c", b"m", b"t", b"n"
"""What the first byte of a packet to the spawner or to an agent says; see `runstream.executor.spawner.agent`."""
PACKET_BYTES = 1 << 15
"""Of a packet; what is larger goes in a file of memory (`LARGE`)."""


class Sandbox(NamedTuple):
    """What a sandboxed task may see. Paths are absolute."""

    uid: int
    """Whose processes these are on the machine; inside it is `inside_uid`."""
    gid: int
    inside_uid: int
    home: str
    """The folder of the machine that is `inside_home`, writable."""
    inside_home: str
    tmp: str
    """The folder of the machine that is /tmp, writable."""
    readonly: tuple[str, ...]
    """Places that are there at their own paths; a missing one is left out, a link stays a link."""
    writable: tuple[str, ...]
    masked: tuple[str, ...]
    """Places that are empty although they lie in a visible one."""
    files: tuple[tuple[str, str], ...]
    """Pairs of a path inside and the file of the machine that is there, read-only."""
    network: bool
    """False for a network that has nothing but the loopback."""


class Join(NamedTuple):
    """A sandbox that is there already, whose namespaces come along as descriptors."""

    inside_uid: int
    seen: tuple[str, ...]
    """Places that only these commands see, read-only."""


class Plan(NamedTuple):
    """Where the commands of one agent run: in a new sandbox, in one that is there, or in none."""

    sandbox: Sandbox | None
    join: Join | None
    limits: tuple[tuple[str, int], ...]
    """Resource limits by their name in `resource`, such as ("RLIMIT_NOFILE", 65536)."""
    cgroup: str
    """The folder of the control group of the task; empty for none."""


class Command(NamedTuple):
    """One command."""

    arguments: tuple[str, ...]
    folder: str
    environment: dict[str, str]
    tty: bool
    scripts: tuple[tuple[str, str], ...] = ()
    """Files that are written before, mode 0600: a path inside, where nothing is yet, and its text."""


def packed(asked: Plan | Command) -> bytes:
    """Encode a plan or a command. What is not UTF-8 in it comes back as it was."""
    return marshal.dumps(_plain(asked))


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def read_plan(content: bytes) -> Plan:
    """Decode a plan."""
    sandbox, join, limits, cgroup = marshal.loads(content)  # noqa: S302  (only the executor writes it)
    return Plan(
        Sandbox(*sandbox) if sandbox is not None else None, Join(*join) if join is not None else None, limits, cgroup
    )


def read_command(content: bytes) -> Command:
    """Decode a command."""
    return Command(*marshal.loads(content))  # noqa: S302  (as above)


def content_of(descriptor: int) -> bytes:
    """Return what is in a file of memory."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)

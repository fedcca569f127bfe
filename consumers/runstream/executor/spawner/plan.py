"""The requests of the executor to the spawner: the place of a task, and the commands to run in it."""

from __future__ import annotations

import marshal  # trusted input from the executor; a JSON decoder would be copied by each fork
import os
from typing import Any, NamedTuple

COMMAND, LARGE, NEXT_TASK, NAMESPACES_WANTED, CONNECTION = b"c", b"m", b"t", b"n", b"k"
"""First byte of a packet to the spawner or to an agent; see `runstream.executor.spawner.agent`."""
PACKET_BYTES = 1 << 15
"""Maximum size of a packet; a larger one goes in a file in memory (`LARGE`)."""


class Sandbox(NamedTuple):
    """The places that a sandboxed task may see. Paths are absolute."""

    uid: int
    """The user of the task's processes on the machine; in the sandbox it is `inside_uid`."""
    gid: int
    inside_uid: int
    home: str
    """The machine's folder that is `inside_home` in the sandbox, writable."""
    inside_home: str
    tmp: str
    """The machine's folder that is /tmp in the sandbox, writable."""
    readonly: tuple[str, ...]
    """Places that keep their paths; a missing one is skipped, a link stays a link."""
    writable: tuple[str, ...]
    masked: tuple[str, ...]
    """Places that appear empty although they lie in a visible one."""
    files: tuple[tuple[str, str], ...]
    """Pairs of a path in the sandbox and the machine's file to show there, read-only."""
    network: bool
    """False for a network with only the loopback interface."""


class Join(NamedTuple):
    """An existing sandbox, whose namespaces are sent along as descriptors."""

    inside_uid: int
    seen: tuple[str, ...]
    """Places that only these commands see, read-only."""


class Plan(NamedTuple):
    """The place where one agent runs its commands: a new sandbox, an existing one, or none."""

    sandbox: Sandbox | None
    join: Join | None
    limits: tuple[tuple[str, int], ...]
    """Resource limits by their name in `resource`, such as ("RLIMIT_NOFILE", 65536)."""
    cgroup: str
    """The folder of the task's control group; empty for none."""
    pids: str
    """The folder of its control group of version 1, which bounds its processes; empty for none."""


class AgentCommand(NamedTuple):
    """A command to run."""

    arguments: tuple[str, ...]
    folder: str
    environment: dict[str, str]
    tty: bool
    scripts: tuple[tuple[str, str], ...] = ()
    """Files to write first, mode 0600: a new path in the sandbox, and the text."""


def packed(asked: Plan | AgentCommand) -> bytes:
    """Encode a plan or a command. Text that is not valid UTF-8 survives."""
    return marshal.dumps(_plain(asked))


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def read_plan(content: bytes) -> Plan:
    """Decode a plan."""
    sandbox, join, limits, cgroup, pids = marshal.loads(content)  # noqa: S302  (only the executor writes it)
    place = Sandbox(*sandbox) if sandbox is not None else None
    return Plan(place, Join(*join) if join is not None else None, limits, cgroup, pids)


def read_command(content: bytes) -> AgentCommand:
    """Decode a command."""
    return AgentCommand(*marshal.loads(content))  # noqa: S302  (as above)


def content_of(descriptor: int) -> bytes:
    """Return the content of a file in memory."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)

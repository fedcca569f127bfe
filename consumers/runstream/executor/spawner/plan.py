"""What the executor asks of the spawner: a place for a task, and commands in it. JSON on the way."""

from __future__ import annotations

import json
from typing import NamedTuple


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
    """A sandbox that is there already, whose first process comes along as a descriptor."""

    inside_uid: int
    seen: tuple[str, ...]
    """Places that only these commands see, read-only."""
    network: bool


class Plan(NamedTuple):
    """Where the commands of one agent run: in a new sandbox, in one that is there, or in none."""

    sandbox: Sandbox | None
    join: Join | None
    limits: tuple[tuple[str, int], ...]
    """Resource limits by their name in `resource`, such as ("RLIMIT_NOFILE", 65536)."""
    cgroup: str
    """The cgroup.procs of the control group that commands join; empty for none."""


class Command(NamedTuple):
    """One command."""

    arguments: tuple[str, ...]
    folder: str
    environment: dict[str, str]
    tty: bool


def plan_to_json(plan: Plan) -> bytes:
    """Encode a plan."""
    return json.dumps(plan).encode()


def plan_from_json(text: bytes) -> Plan:
    """Decode a plan."""
    sandbox, join, limits, cgroup = json.loads(text)
    return Plan(
        Sandbox(*sandbox) if sandbox is not None else None,
        Join(*join) if join is not None else None,
        tuple((name, value) for name, value in limits),
        cgroup,
    )


def command_to_json(command: Command) -> bytes:
    """Encode a command; what is not UTF-8 in it comes back as it was."""
    return json.dumps(command).encode()


def command_from_json(text: bytes) -> Command:
    """Decode a command."""
    return Command(*json.loads(text))

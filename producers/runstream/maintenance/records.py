"""What a process publishes about itself in its lease in `<namespace>_instances`.

    running -> requested -> draining -> parked -> resumed -> running

One process is one instance, with any number of components. Each component works, drains or is parked. Together with
the log, which refuses appends while the process is parked, they make the instance's state.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import msgspec


class Doing(StrEnum):
    """What one part of a process does."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    """It begins nothing more; what it had begun goes on."""
    PARKED = "parked"
    STOPPING = "stopping"
    """Its process stops; it does not come back."""


class State(StrEnum):
    """How far a process is with one service."""

    RUNNING = "running"
    REQUESTED = "requested"
    """It knows that maintenance is asked for."""
    DRAINING = "draining"
    PARKED = "parked"
    """Nothing of it reads, projects or runs, and its log refuses appends."""
    RESUMED = "resumed"
    """Maintenance has ended, or the process has just started; its parts begin to work."""
    LOST = "lost"
    """It has not renewed its lease, and did not say goodbye."""


@dataclass(frozen=True, slots=True)
class PartRecord:
    """One part."""

    doing: Doing
    under_way: int = 0
    """How much it still has to do before it is parked: tasks, requests."""


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """What a process says about one service."""

    state: State
    request: str
    """The id of the change that it obeys; empty when it knows of none."""
    since: datetime
    """When this state began, by the process's own clock."""
    epoch: int
    parts: dict[str, PartRecord]
    positions: dict[int, int]
    """By partition: how far it has read, where it reads."""


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """One process."""

    id: str
    components: tuple[str, ...]
    host: str
    pid: int
    version: str
    started: datetime
    services: dict[str, ServiceRecord]

    def does(self, service: str, part: str) -> bool:
        """Whether a part of it works for a service now."""
        of = self.services.get(service)
        return of is not None and part in of.parts and of.parts[part].doing is Doing.RUNNING


def state_of(*, requested: bool, at_rest: bool, parts: Collection[Doing]) -> State:
    """The state of a process; `at_rest` says that all its parts are parked and its log refuses appends."""
    if requested:
        if at_rest:
            return State.PARKED
        return State.DRAINING if any(doing is not Doing.RUNNING for doing in parts) else State.REQUESTED
    if at_rest or any(doing not in (Doing.RUNNING, Doing.STOPPING) for doing in parts):
        return State.RESUMED
    return State.RUNNING


def encode_record(record: InstanceRecord) -> bytes:
    """The lease's value."""
    return msgspec.json.encode(record)


def decode_record(key: str, value: bytes) -> InstanceRecord:
    """What a lease's value says; of one that cannot be read only the key is known, and no service."""
    try:
        return msgspec.json.decode(value, type=InstanceRecord)
    except (ValueError, RecursionError):  # of msgspec, and of texts that are no UTF-8
        return InstanceRecord(key, (), "", 0, "", datetime.fromtimestamp(0, UTC), {})

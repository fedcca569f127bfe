"""The record of a process about itself, in its lease in `<namespace>_instances`.

    running -> requested -> draining -> parked -> resumed -> running

One process is one instance, with any number of components. Each component works, drains or is parked. Together with the
log, which refuses appends while the process is parked, they make the instance's state.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import msgspec


class Doing(StrEnum):
    """The activity of one component of a process."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    """It starts no new work; started work continues."""
    PARKED = "parked"
    STOPPING = "stopping"
    """Its process stops; it does not resume."""


class State(StrEnum):
    """The state of a process with regard to one service."""

    RUNNING = "running"
    REQUESTED = "requested"
    """It has seen the request for maintenance."""
    DRAINING = "draining"
    PARKED = "parked"
    """None of its components reads, projects or runs, and its log refuses appends."""
    RESUMED = "resumed"
    """Maintenance has ended, or the process has just started; its components start to work."""
    LOST = "lost"
    """Its lease has expired without a clean stop."""


@dataclass(frozen=True, slots=True)
class PartRecord:
    """The state of one component."""

    doing: Doing
    under_way: int = 0
    """Number of tasks or requests to finish before it is parked."""


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """The state of one service in a process."""

    state: State
    request: str
    """The id of the change that it obeys; empty before the first."""
    since: datetime
    """Start of this state, by the process's own clock."""
    epoch: int
    parts: dict[str, PartRecord]
    positions: dict[int, int]
    """The last position read, by partition; only partitions that it reads."""


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """The record of one process about itself."""

    id: str
    components: tuple[str, ...]
    host: str
    pid: int
    version: str
    started: datetime
    services: dict[str, ServiceRecord]

    def does(self, service: str, part: str) -> bool:
        """Return whether a component of it works for a service now."""
        of = self.services.get(service)
        return of is not None and part in of.parts and of.parts[part].doing is Doing.RUNNING


def state_of(*, requested: bool, at_rest: bool, parts: Collection[Doing]) -> State:
    """Return the state of a process; `at_rest`: all its components are parked and its log refuses appends."""
    if requested:
        if at_rest:
            return State.PARKED
        return State.DRAINING if any(doing is not Doing.RUNNING for doing in parts) else State.REQUESTED
    if at_rest or any(doing not in (Doing.RUNNING, Doing.STOPPING) for doing in parts):
        return State.RESUMED
    return State.RUNNING


def encode_record(record: InstanceRecord) -> bytes:
    """Return the lease's value."""
    return msgspec.json.encode(record)


def decode_record(key: str, value: bytes) -> InstanceRecord:
    """Return the record in a lease's value; of an unreadable value only the key, without services."""
    try:
        return msgspec.json.decode(value, type=InstanceRecord)
    except (ValueError, RecursionError):  # of msgspec, and of texts that are no UTF-8
        return InstanceRecord(key, (), "", 0, "", datetime.fromtimestamp(0, UTC), {})

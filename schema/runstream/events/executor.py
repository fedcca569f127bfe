"""The events of an executor (rule executor-1). Its liveness is a lease that expires, not an event."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, get_args

from runstream.events.event import DomainEvent


class ExecutorRegistered(DomainEvent, frozen=True):
    """An executor registered, or changed its offer."""

    SCHEMA_VERSION: ClassVar[int] = 2

    archs: tuple[str, ...]
    labels: dict[str, str]
    allow_privileged_containers: bool
    allow_host: bool
    """Whether tasks may run directly on its machine."""
    allow_pod: bool
    """Whether it can run pods of containers."""
    active_tasks_limit: int
    """Maximum number of concurrent tasks; 0 for no limit."""
    dynamic: bool
    executor_group: str
    runstream_version: str
    sandbox: str = ""
    """The sandbox of its host tasks: `sandboxed`, `off`, `missing: <why>`; empty if unknown."""


class ExecutorLost(DomainEvent, frozen=True):
    """It has held no lease for a whole lease time."""

    SCHEMA_VERSION: ClassVar[int] = 3

    last_seen: datetime | None = None
    """When the scheduler last saw it; None if never."""
    released: bool = False
    """Whether it released its lease, in an orderly stop; if not, the lease expired."""


class ExecutorDrained(DomainEvent, frozen=True):
    """A user drained it: it takes no new tasks, and its running tasks continue."""


class ExecutorUndrained(DomainEvent, frozen=True):
    """A user ended its drain: it takes new tasks again."""


class ExecutorDeleted(DomainEvent, frozen=True):
    """A user deleted it."""


ExecutorEvent = ExecutorRegistered | ExecutorLost | ExecutorDrained | ExecutorUndrained | ExecutorDeleted
EXECUTOR_EVENTS: tuple[type[DomainEvent], ...] = get_args(ExecutorEvent)

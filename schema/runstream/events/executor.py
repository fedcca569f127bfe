"""What can happen to an executor (rule executor-1). That it is alive is a lease with a time to live, not an event."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from runstream.events.event import Event


class ExecutorRegistered(Event, frozen=True):
    """An executor announced itself, or what it offers changed."""

    SCHEMA_VERSION: ClassVar[int] = 2

    archs: tuple[str, ...]
    labels: dict[str, str]
    allow_privileged_containers: bool
    allow_host: bool
    """Whether tasks may run directly on its machine."""
    allow_pod: bool
    """Whether it can run pods of containers."""
    active_tasks_limit: int
    """How many tasks at once; 0 for no limit."""
    dynamic: bool
    executor_group: str
    runstream_version: str
    sandbox: str = ""
    """How host tasks are kept apart from its machine: `sandboxed`, `off`, `missing: <why>`; empty if it did not say."""


class ExecutorLost(Event, frozen=True):
    """Its lease expired."""

    SCHEMA_VERSION: ClassVar[int] = 2

    last_seen: datetime | None = None
    """When the scheduler heard of it last; None when it never did."""


class ExecutorDrained(Event, frozen=True):
    """A user asked it to take no new tasks; those that it has go on."""


class ExecutorUndrained(Event, frozen=True):
    """A user let it take new tasks again."""


class ExecutorDeleted(Event, frozen=True):
    """A user deleted it."""


ExecutorEvent = ExecutorRegistered | ExecutorLost | ExecutorDrained | ExecutorUndrained | ExecutorDeleted
EXECUTOR_EVENTS: tuple[type[Event], ...] = (
    ExecutorRegistered,
    ExecutorLost,
    ExecutorDrained,
    ExecutorUndrained,
    ExecutorDeleted,
)

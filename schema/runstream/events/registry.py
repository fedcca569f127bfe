"""All event types, by their name on the wire."""

from __future__ import annotations

from runstream.events.event import DomainEvent
from runstream.events.executor import EXECUTOR_EVENTS
from runstream.events.executor_task import EXECUTOR_TASK_EVENTS
from runstream.events.organization import ORGANIZATION_EVENTS
from runstream.events.project import PROJECT_EVENTS
from runstream.events.project_group import PROJECT_GROUP_EVENTS
from runstream.events.remote_source import REMOTE_SOURCE_EVENTS
from runstream.events.run import RUN_EVENTS
from runstream.events.run_config import RunConfigStored
from runstream.events.secret import SECRET_EVENTS
from runstream.events.skip import CommitSkipped
from runstream.events.user import USER_EVENTS
from runstream.events.variable import VARIABLE_EVENTS
from runstream.events.webhook import WEBHOOK_EVENTS

SERVICE_EVENTS: dict[str, tuple[type[DomainEvent], ...]] = {
    "runs": (*RUN_EVENTS, RunConfigStored, *EXECUTOR_TASK_EVENTS, *EXECUTOR_EVENTS, *WEBHOOK_EVENTS),
    "config": (
        *USER_EVENTS,
        *ORGANIZATION_EVENTS,
        *PROJECT_GROUP_EVENTS,
        *PROJECT_EVENTS,
        *SECRET_EVENTS,
        *VARIABLE_EVENTS,
        *REMOTE_SOURCE_EVENTS,
    ),
}
"""The event types of each service's log, beside `CommitSkipped`, which is in both."""


def types_of(service: str) -> dict[str, type[DomainEvent]]:
    """Return the event types of a service's log, by their name on the wire."""
    types: tuple[type[DomainEvent], ...] = (*SERVICE_EVENTS[service], CommitSkipped)
    return {event.__name__: event for event in types}


EVENT_TYPES: dict[str, type[DomainEvent]] = types_of("runs") | types_of("config")

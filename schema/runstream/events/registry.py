"""All event types, by their name on the wire."""

from __future__ import annotations

from runstream.events.event import DomainEvent
from runstream.events.executor import EXECUTOR_EVENTS
from runstream.events.executor_task import EXECUTOR_TASK_EVENTS
from runstream.events.run import RUN_EVENTS
from runstream.events.run_config import RunConfigStored
from runstream.events.skip import CommitSkipped

_ALL: tuple[type[DomainEvent], ...] = (
    *RUN_EVENTS,
    RunConfigStored,
    *EXECUTOR_TASK_EVENTS,
    *EXECUTOR_EVENTS,
    CommitSkipped,
)
EVENT_TYPES: dict[str, type[DomainEvent]] = {event.__name__: event for event in _ALL}

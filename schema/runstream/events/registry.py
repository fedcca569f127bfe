"""All event types, by their name on the wire."""

from __future__ import annotations

from runstream.events.event import Event
from runstream.events.executor import EXECUTOR_EVENTS
from runstream.events.executor_task import EXECUTOR_TASK_EVENTS
from runstream.events.run import RUN_EVENTS
from runstream.events.run_config import RUN_CONFIG_EVENTS
from runstream.events.skip import SKIP_EVENTS

EVENT_TYPES: dict[str, type[Event]] = {
    event.__name__: event
    for event in (*RUN_EVENTS, *RUN_CONFIG_EVENTS, *EXECUTOR_TASK_EVENTS, *EXECUTOR_EVENTS, *SKIP_EVENTS)
}

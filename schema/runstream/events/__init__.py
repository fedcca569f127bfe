"""Every type of event that the log may hold, one aggregate a file.

An event is a frozen, slotted dataclass named in the past tense. Its type on the wire is the class's name, its
schema version `SCHEMA_VERSION`. A released event stays readable for ever: a changed one gets a higher version
and an upcaster in `runstream.upcasters`.
"""

from runstream.events.event import Event
from runstream.events.executor import EXECUTOR_EVENTS, ExecutorEvent
from runstream.events.executor_task import EXECUTOR_TASK_EVENTS, ExecutorTaskEvent
from runstream.events.run import RUN_EVENTS, RunEvent
from runstream.events.run_config import RUN_CONFIG_EVENTS, RunConfigEvent
from runstream.events.skip import SKIP_EVENTS, SkipEvent

EVENT_TYPES: dict[str, type[Event]] = {
    event.__name__: event
    for event in (*RUN_EVENTS, *RUN_CONFIG_EVENTS, *EXECUTOR_TASK_EVENTS, *EXECUTOR_EVENTS, *SKIP_EVENTS)
}

__all__ = [
    "EVENT_TYPES",
    "EXECUTOR_EVENTS",
    "EXECUTOR_TASK_EVENTS",
    "RUN_CONFIG_EVENTS",
    "RUN_EVENTS",
    "SKIP_EVENTS",
    "Event",
    "ExecutorEvent",
    "ExecutorTaskEvent",
    "RunConfigEvent",
    "RunEvent",
    "SkipEvent",
]

"""The public Python client: create runs, read their state, follow logs and events.

    async with Client.local() as client:  # or Client("https://ci.example.com", token="…")
        run = await client.runs.create(NewRun("/project/web/branch/main", "build", tasks={…}))
        async for chunk in client.logs.follow(run.id, task_id, step=0):
            …

The client returns types of its own and raises `ClientError` alone. Its reads see its own earlier writes. Reads, and
writes with an idempotency key, are retried when the connection fails or the service waits for NATS or Postgres; other
writes never are. A followed log that breaks off is resumed at the next byte.
"""

from runstream.api import (
    Attempt,
    ConfigWarning,
    Depend,
    Executor,
    Failure,
    Failures,
    ImportReport,
    Instance,
    LogLine,
    LogLines,
    Maintenance,
    ModeChange,
    Page,
    Part,
    Readiness,
    Reason,
    Restart,
    Run,
    RunSummary,
    Service,
    SkippedRun,
    Stall,
    Step,
    Task,
    Why,
)
from runstream.client.client import Client
from runstream.client.errors import ClientError, ConnectionFailedError
from runstream.client.operations import ImportProgress
from runstream.client.types import Commit, CreatedRuns, Event, Inputs, LogOptions, NewRun, RunFilters, Source
from runstream.run_states import RunPhase, RunResult

__all__ = [
    "Attempt",
    "Client",
    "ClientError",
    "Commit",
    "ConfigWarning",
    "ConnectionFailedError",
    "CreatedRuns",
    "Depend",
    "Event",
    "Executor",
    "Failure",
    "Failures",
    "ImportProgress",
    "ImportReport",
    "Inputs",
    "Instance",
    "LogLine",
    "LogLines",
    "LogOptions",
    "Maintenance",
    "ModeChange",
    "NewRun",
    "Page",
    "Part",
    "Readiness",
    "Reason",
    "Restart",
    "Run",
    "RunFilters",
    "RunPhase",
    "RunResult",
    "RunSummary",
    "Service",
    "SkippedRun",
    "Source",
    "Stall",
    "Step",
    "Task",
    "Why",
]

"""The public Python client: publish runs, read what became of them, follow logs and events.

    async with Client.local() as client:  # or Client("https://ci.example.com", token="…")
        run = await client.runs.create(NewRun("/project/web/branch/main", "build", tasks={…}))
        async for chunk in client.logs.follow(run.id, task_id, step=0):
            …

Everything it gives back is a type of its own; everything it raises is a `ClientError`. Reads see what the same
client wrote before. Reads are tried again when the connection fails or the service waits for NATS or Postgres, and what
creates runs with an idempotency key; what else changes something never is. A followed log that breaks off goes on at
the next byte.
"""

from runstream.client.client import Client
from runstream.client.errors import ClientError, ConnectionFailedError
from runstream.client.maintenance import Instance, Maintenance, ModeChange, Part
from runstream.client.requests import Inputs, NewRun, Source
from runstream.client.snapshots import ImportProgress, ImportReport
from runstream.client.types import (
    Attempt,
    Commit,
    ConfigWarning,
    CreatedRuns,
    Depend,
    Event,
    Executor,
    Page,
    Readiness,
    Reason,
    Restart,
    Run,
    RunPhase,
    RunResult,
    RunSummary,
    Service,
    SkippedRun,
    Stall,
    Step,
    Task,
    Why,
)

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
    "ImportProgress",
    "ImportReport",
    "Inputs",
    "Instance",
    "Maintenance",
    "ModeChange",
    "NewRun",
    "Page",
    "Part",
    "Readiness",
    "Reason",
    "Restart",
    "Run",
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

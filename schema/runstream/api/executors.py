"""Executors and what they can do."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from runstream.api.answer import Answer, one_of


class Executor(Answer, frozen=True, kw_only=True):
    """An executor, as it registered last."""

    executor_id: str
    state: Annotated[str, one_of("ready", "suspect", "draining", "drained", "full", "offline", "lost", "deleted")]
    last_seen: datetime | None = None
    """When it last renewed its lease or appended to the log."""
    full: str = ""
    """Why its disk has no space for a task; empty if it has."""
    clock_skew: float = 0.0
    """How far its clock is ahead of the clock of NATS, in seconds."""
    archs: tuple[str, ...]
    labels: dict[str, str]
    allow_privileged_containers: bool
    allow_host: bool
    allow_pod: bool
    active_tasks_limit: int
    """0 for no limit."""
    active_tasks: int
    dynamic: bool = False
    executor_group: str = ""
    version: str
    sandbox: str = ""
    """How it isolates host tasks: `sandboxed`, `off`, or `missing: <why>`; empty if not known."""
    engine: str = ""
    """Its container engine, such as `docker 28.2.2`, or `unreachable: <why>`; empty without one."""


class ExecutorList(Answer, frozen=True):
    """All executors, by id."""

    executors: tuple[Executor, ...]

"""The phases and results of runs: words that the log, the API and its client share, so this module imports nothing."""

from __future__ import annotations

from enum import StrEnum


class RunPhase(StrEnum):
    """The phase of a run."""

    SETUP_ERROR = "setuperror"
    QUEUED = "queued"
    CANCELLED = "cancelled"
    RUNNING = "running"
    FINISHED = "finished"


class RunResult(StrEnum):
    """The result of a run; it can be known while tasks still run."""

    UNKNOWN = "unknown"
    STOPPED = "stopped"
    SUCCESS = "success"
    FAILED = "failed"

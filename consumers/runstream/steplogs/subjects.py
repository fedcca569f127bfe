"""Where live logs are: one memory stream for each deployment, one subject for each step, offsets in headers."""

from __future__ import annotations

OFFSET_HEADER = "Offset"
"""Where in the log the message's bytes begin."""
TOTAL_HEADER = "Total"
"""Only in the last message of a log: how many bytes the log has."""


def stream_of(namespace: str) -> str:
    """The name of the stream of live logs."""
    return f"{namespace}_LOGS"


def task_subjects(namespace: str, executor_task: str) -> str:
    """The filter for all logs of an executor task."""
    return f"{namespace}.logs.{executor_task}.*"


def subject_of(namespace: str, executor_task: str, step: int | None) -> str:
    """The subject of one log; step None is the setup step's."""
    return f"{namespace}.logs.{executor_task}.{'setup' if step is None else step}"

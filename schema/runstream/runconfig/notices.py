"""What a valid configuration asks for that this version does not do, or that does nothing."""

from __future__ import annotations

from collections.abc import Iterator

from runstream.runconfig.parsed import ParsedConfig, TaskSpec
from runstream.runconfig.problems import Problem, shown
from runstream.runconfig.steps import RestoreCacheStep, SaveCacheStep

MAX_NOTICES = 20
"""Of one file."""


def notices(parsed: ParsedConfig, *, pods: bool = True) -> list[Problem]:
    """Return a warning for each task without steps, cache step and, unless `pods` is false, pod: the first few."""
    found: list[Problem] = []
    for run_index, run in enumerate(parsed.runs):
        for task_index, task in enumerate(run.tasks):
            for notice in _of(f"runs[{run_index}].tasks[{task_index}]", task, pods=pods):
                if len(found) == MAX_NOTICES:
                    return found
                found.append(notice)
    return found


def _of(path: str, task: TaskSpec, *, pods: bool) -> Iterator[Problem]:
    if not task.steps:
        yield Problem(f"{path}.steps", 0, f"task {shown(task.name)} has no steps: it does nothing", "add `steps`")
    if pods and task.runtime.type == "pod":
        yield Problem(
            f"{path}.runtime",
            0,
            f"task {shown(task.name)} needs an executor that runs pods, and the `process` driver does not",
            "write `runtime: {type: host}`, or add an executor that runs pods",
        )
    for index, step in enumerate(task.steps):
        if isinstance(step, SaveCacheStep | RestoreCacheStep):
            yield Problem(f"{path}.steps[{index}]", 0, "caches are not available yet", "use save_to_workspace")

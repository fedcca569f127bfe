"""The rules run-4, run-5, result-2 to result-4 and schedule-2 to schedule-7, applied until nothing changes.

Slow on purpose, and short enough to be compared with the text line by line. It shares nothing with what it checks but
the types of a run config. Retries, timeouts and pauses, which are not in those rules, are left out.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

from runstream.events.run_config import RunConfig

ENDED = {"cancelled", "skipped", "stopped", "success", "failed"}
MEANING = {"on_success": "success", "on_failure": "failed", "on_skipped": "skipped"}
REACTIONS = {"on_failure", "always"}


@dataclass
class Task:
    """One task, and its executor task if there is one."""

    parents: dict[str, set[str]]
    """The conditions by parent."""
    skip: bool
    needs_approval: bool
    ignore_failure: bool
    status: str = "notstarted"
    waiting_approval: bool = False
    approved: bool = False
    executor_task: bool = False
    """Whether there is one; it is deleted once all that it left was fetched."""
    was_given: bool = False
    unfetched_archives: int = 0


@dataclass
class Run:
    """A running run."""

    tasks: dict[str, Task]
    phase: str = "running"
    fail_fast: bool = False
    result: str = "unknown"
    stop: bool = False
    archived: bool = False
    passes: int = field(default=0, compare=False)

    @classmethod
    def of(cls, config: RunConfig) -> Run:
        """The run of this graph when it has just begun."""
        tasks = {
            name: Task(
                {depend.task: set(depend.conditions) for depend in task.depends},
                task.skip,
                task.needs_approval,
                task.ignore_failure,
                "skipped" if task.skip else "notstarted",
            )
            for name, task in config.tasks.items()
        }
        return cls(tasks, fail_fast=config.fail_fast)

    def settle(self) -> None:
        """Pass after pass until one changes nothing."""
        while True:
            before = deepcopy(self)
            self.advance_run()
            if self.phase == "running":
                self.advance_run_tasks()
            self.passes += 1
            if self == before:
                return

    def advance_run(self) -> None:
        """Apply rules run-4, run-5 and result-2 to result-4."""
        tasks = self.tasks.values()
        ended = all(task.status in ENDED for task in tasks)
        failed = any(task.status == "failed" and not task.ignore_failure for task in tasks)
        executed = any(task.executor_task for task in tasks)
        if self.result == "unknown" and self.phase == "running" and failed:  # 1
            self.result = "failed"
        if self.result == "unknown" and self.phase == "running" and ended:  # 2
            self.result = "success"
            return
        if self.result == "unknown" and self.phase == "running" and self.stop:  # 3
            self.result = "stopped"
        if self.result != "unknown" and ended and self.phase == "running" and not executed:  # 4
            self.phase = "finished"
        if self.phase == "finished" and not executed:
            self.archived = True

    def advance_run_tasks(self) -> None:
        """Apply rules schedule-4 to schedule-6, stop-2 and stop-5, each on the statuses before."""
        snapshot = deepcopy(self.tasks)
        for task in self.tasks.values():  # 1
            kept = any("always" in conditions for conditions in task.parents.values()) and (
                task.approved or not task.needs_approval
            )
            if self.stop and not kept and not task.was_given and task.status == "notstarted":
                task.status = "skipped"
        for task in self.tasks.values():  # 2
            on_track = all("on_success" in one and not one & REACTIONS for one in task.parents.values())
            cut = self.fail_fast and self.result == "failed" and on_track
            if cut and not task.skip and task.status == "notstarted" and not task.was_given:
                task.status = "cancelled"
        for task in self.tasks.values():
            if task.skip or task.status != "notstarted" or not all(done(snapshot[name]) for name in task.parents):
                continue
            if not matched(task, snapshot, fail_fast=self.fail_fast):  # 3
                task.status = "skipped"
            elif task.needs_approval and not task.waiting_approval and not task.approved:  # 4
                task.waiting_approval = True

    def tasks_to_run(self) -> set[str]:
        """Return the names that rule schedule-7 gives, without those that have an executor task."""
        if self.phase != "running":
            return set()
        return {
            name
            for name, task in self.tasks.items()
            if not task.skip
            and task.status == "notstarted"
            and all(done(self.tasks[parent]) for parent in task.parents)
            and matched(task, self.tasks, fail_fast=self.fail_fast)
            and (not task.needs_approval or task.approved)
            and not task.was_given
        }


def done(parent: Task) -> bool:
    """Ended, and its archives are fetched."""
    return parent.status in ENDED and not parent.unfetched_archives


def matched(task: Task, tasks: dict[str, Task], *, fail_fast: bool) -> bool:
    """For every direct parent at least one condition holds."""
    return all(
        "always" in conditions or any(seen(tasks[name], fail_fast) == MEANING[condition] for condition in conditions)
        for name, conditions in task.parents.items()
    )


def seen(parent: Task, fail_fast: bool) -> str:
    """What the parent's end counts as."""
    if parent.status == "failed" and parent.ignore_failure:
        return "success"
    return "skipped" if parent.status == "cancelled" and fail_fast else parent.status

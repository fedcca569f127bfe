"""The runs that refer to stored logs and archives, folded from the log: what may not be removed (rule storage-5).

The logs and archives of a run task belong to the run that ran it, and to restarts that keep it. Both are of one group
root, so a partition has all events about them, in order.
"""

from __future__ import annotations

from runstream.events.event import DomainEvent
from runstream.events.executor_task import ExecutorTaskAssigned
from runstream.events.run import DataKind, RunDataRemoved, RunDeleted, RunRestarted

KINDS: tuple[DataKind, ...] = ("logs", "archives")


class Holders:
    """The runs that refer to the data of each run task."""

    def __init__(self) -> None:
        self._tasks_of: dict[str, set[str]] = {}
        """By run: the run tasks whose data it may refer to."""
        self._runs: dict[tuple[DataKind, str], set[str]] = {}
        """By kind and run task: the runs that refer to the data."""
        self._removed: set[tuple[DataKind, str]] = set()
        """Kinds of data to which an existing run refers no longer."""

    def take(self, aggregate_id: str, event: DomainEvent) -> None:
        """Apply an event of a run, or of an executor task."""
        match event:
            case ExecutorTaskAssigned(run_id=run_id, run_task_id=run_task):
                self._refer(run_id, run_task, KINDS)
            case RunRestarted(run_id=earlier, kept=kept):
                # The references of a restart are stored, and its earlier run found in the log, before it is appended.
                # So it has the data even if the deletion of that run comes first.
                kinds = [kind for kind in KINDS if (kind, earlier) not in self._removed]
                for task in kept:
                    if task.executor_task_id:
                        self._refer(aggregate_id, task.id, kinds)
            case RunDataRemoved(kinds=removed):
                self._drop(aggregate_id, removed)
                self._removed |= {(kind, aggregate_id) for kind in removed}
            case RunDeleted():
                self._drop(aggregate_id, KINDS)
                self._tasks_of.pop(aggregate_id, None)
            case _:
                pass

    def of(self, run_task: str, kind: DataKind) -> frozenset[str]:
        """Return the runs that refer to the data of a run task."""
        return frozenset(self._runs.get((kind, run_task), ()))

    def held(self, run_task: str, kind: DataKind) -> bool:
        """Return whether a run refers to the data of a run task."""
        return bool(self._runs.get((kind, run_task)))

    def _refer(self, run_id: str, run_task: str, kinds: tuple[DataKind, ...] | list[DataKind]) -> None:
        self._tasks_of.setdefault(run_id, set()).add(run_task)
        for kind in kinds:
            self._runs.setdefault((kind, run_task), set()).add(run_id)

    def _drop(self, run_id: str, kinds: tuple[DataKind, ...]) -> None:
        for run_task in self._tasks_of.get(run_id, ()):
            for kind in kinds:
                if (runs := self._runs.get((kind, run_task))) is not None:
                    runs.discard(run_id)
                    if not runs:
                        del self._runs[kind, run_task]

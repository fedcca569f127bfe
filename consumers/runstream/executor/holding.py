"""The executor tasks that this executor has to see to, folded from what the log says of them.

    assigned -> waiting for room -> running -> ended, logs being stored -> forgotten

How far the executor has read, for after a restart, is just before the oldest task that is not forgotten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import structlog

from runstream.commits import Head, StoredCommit
from runstream.events.executor_task import ExecutorTaskAssigned
from runstream.executor.reporter import Known, Reporter
from runstream.folding import UnfitCommitError, fold_executor_task

log = structlog.get_logger()


class Stage(StrEnum):
    """What this process does about a task."""

    SEEN = "seen"
    """Read, but not looked at yet."""
    WAITING = "waiting"
    ACTIVE = "active"
    """Taken up, whether it runs or is being cleared up."""


@dataclass(slots=True)
class Held:
    """One task that is not forgotten."""

    known: Known
    first: int
    """The sequence of its assignment."""
    stage: Stage = Stage.SEEN
    reporter: Reporter | None = None

    @property
    def id(self) -> str:
        """The executor task's id."""
        return self.known.task.id


class Holdings:
    """All tasks that are not forgotten, and how far each partition was read."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._last: dict[int, int] = {}

    def begin_behind(self, after: Mapping[int, int]) -> None:
        """These sequences were read by an earlier process."""
        self._last = dict(after)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def take_in(self, stored: StoredCommit) -> Held | None:
        """The task that a commit is about, after it; None for one that was forgotten."""
        commit = stored.commit
        partition = commit.address.partition
        self._last[partition] = max(self._last.get(partition, 0), stored.position.sequence)
        held = self._held.get(commit.address.id)
        if held is None:
            return self._begin(stored)
        if held.reporter is not None:
            held.reporter.observe(stored)
        else:
            held.known.apply(stored)
        return held

    def forget(self, held: Held) -> None:
        """Nothing remains to be done about it."""
        self._held.pop(held.id, None)

    def positions(self) -> dict[int, int]:
        """Behind which sequence of each partition a restart has to read."""
        after = dict(self._last)
        for held in self._held.values():
            partition = held.known.address.partition
            after[partition] = min(after[partition], held.first - 1)
        return after

    def open_tasks(self) -> dict[str, int]:
        """How many tasks have not ended, by partition."""
        return dict(Counter(str(held.known.address.partition) for held in self._held.values() if held.known.task.open))

    def _begin(self, stored: StoredCommit) -> Held | None:
        commit = stored.commit
        if commit.version != 1 or not commit.events or not isinstance(commit.events[0], ExecutorTaskAssigned):
            return None
        try:
            task = fold_executor_task(None, commit)
        except UnfitCommitError as error:
            log.warning(f"a task is left out: {error}", action="commit_unfit", task=commit.address.id)
            return None
        known = Known(commit.address, task, Head(1, stored.position.sequence), commit.trace, commit.id)
        held = self._held[task.id] = Held(known, stored.position.sequence)
        return held

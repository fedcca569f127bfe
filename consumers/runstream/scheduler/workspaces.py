"""Under which ids a task finds what its ancestors handed over, where these are not those that its run's id gives. Pure.

For all tasks of a run together it costs a step for each task and each dependency, and what is found.
"""

from __future__ import annotations

from runstream.domain.run import Run
from runstream.events.run_config import RunConfig
from runstream.ids import attempt_id


class Workspaces:
    """What was handed over in a run by later attempts, or taken over from an earlier run."""

    def __init__(self, run: Run, config: RunConfig) -> None:
        self._config = config
        moved = (task for task in run.tasks.values() if task.archive_steps and (task.attempt > 1 or task.kept))
        self._moved = [(task.name, attempt_id(task.id, task.attempt)) for task in moved]
        self._bits = {name: 1 << number for number, (name, _) in enumerate(self._moved)}
        self._above: dict[str, int] = {}
        """Of each task that was looked at: the bits of those that it depends on, directly or not."""

    def of(self, name: str) -> dict[str, str]:
        """The ancestors of the task whose archives have other ids, and which."""
        if not self._moved:
            return {}
        return dict(self._moved[number] for number in _numbers(self._mask(name)))

    def _mask(self, name: str) -> int:
        """The bits of the ancestors; those of the parents are found first."""
        waiting = [name]
        while name not in self._above:
            one = waiting[-1]
            if one in self._above:
                waiting.pop()
                continue
            parents = [depend.task for depend in self._config.tasks[one].depends if depend.task in self._config.tasks]
            unknown = [parent for parent in parents if parent not in self._above]
            if unknown:
                waiting += unknown
                continue
            mask = 0
            for parent in parents:
                mask |= self._above[parent] | self._bits.get(parent, 0)
            self._above[one] = mask
            waiting.pop()
        return self._above[name]


def _numbers(mask: int) -> list[int]:
    """Which bits are set, the lowest first."""
    found = []
    while mask:
        lowest = mask & -mask
        found.append(lowest.bit_length() - 1)
        mask ^= lowest
    return found

"""The unfinished runs of each group, in the order of the log, and the place of each.

The place of a run costs the same however many runs wait with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, takewhile

from runstream.domain.group import Neighbour, Place
from runstream.domain.run import RunState
from runstream.events.run_config import Concurrency

_STOPPING = frozenset({"cancel_running"})
_REPLACING = _STOPPING | {"cancel_waiting"}
Members = dict[str, Neighbour]
"""By run id, in the order of the log."""


@dataclass(slots=True)
class _Named:
    """The runs of one name in a group."""

    runs: Members = field(default_factory=dict)
    replacing: Members = field(default_factory=dict)
    """Runs whose policy cancels earlier waiting runs."""
    stopping: Members = field(default_factory=dict)
    """Runs whose policy also stops an earlier run."""


@dataclass(slots=True)
class _Group:
    runs: Members = field(default_factory=dict)
    names: defaultdict[str, _Named] = field(default_factory=lambda: defaultdict(_Named))


class Groups:
    """The groups of one partition; runs join in the order of their sequences."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

    def joined(self, run: RunState, concurrency: Concurrency) -> list[str]:
        """Add an unfinished run; return the runs to decide again because of it."""
        group = self._groups.setdefault(run.group, _Group())
        if run.id in group.runs:
            return []
        named = group.names[run.name]
        earlier = list(named.runs) if concurrency.policy in _REPLACING else []
        new = Neighbour(run.id, run.counter, concurrency.policy)
        group.runs[run.id] = named.runs[run.id] = new
        if concurrency.policy in _REPLACING:
            named.replacing[run.id] = new
        if concurrency.policy in _STOPPING:
            named.stopping[run.id] = new
        return earlier

    def left(self, run: RunState) -> list[str]:
        """Remove a run that has ended; return the run that is first now, if it was there."""
        group = self._groups.get(run.group)
        if group is None or group.runs.pop(run.id, None) is None:
            return []
        named = group.names[run.name]
        for members in (named.runs, named.replacing, named.stopping):
            members.pop(run.id, None)
        if not named.runs:
            del group.names[run.name]
        if not group.runs:
            del self._groups[run.group]
        return list(islice(group.runs, 1))

    def place(self, run: RunState, concurrency: Concurrency) -> Place:
        """Return the place of a run that joined. Raises KeyError for another run."""
        group = self._groups[run.group]
        named = group.names[run.name]
        own = named.runs[run.id]
        first = next(iter(group.runs.values()))
        first_of_name = next(iter(named.runs.values()))
        return Place(
            first=first,
            earlier=first_of_name if first_of_name is not own else None,
            waiting=_waiting(named, first, run.id, concurrency.max_waiting),
            replaced_by=_last_behind(named.replacing, own),
            stopped_by=_last_behind(named.stopping, own),
        )

    def before(self, run: RunState) -> int:
        """Count the runs of its group that come before it; looks at all of them."""
        return sum(1 for _ in takewhile(lambda other: other != run.id, self._groups[run.group].runs))


def _waiting(named: _Named, first: Neighbour, run_id: str, bound: int) -> int:
    """Count the runs of the name that wait before the run, up to `bound` + 1."""
    before: Iterator[str] = takewhile(lambda other: other != run_id, named.runs)
    return sum(1 for other in islice(before, bound + 1) if other != first.id) if bound else 0


def _last_behind(members: Members, run: Neighbour) -> Neighbour | None:
    """Return the last of these members if it came after the run: counters grow in the order of the log."""
    last = next(reversed(members.values()), None)
    return last if last is not None and last.counter > run.counter else None

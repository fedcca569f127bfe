"""The times at which runs are examined again, compared with a plain list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from runstream.scheduler.decisions import RunTimers

AT = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = st.integers(0, 30).map(lambda seconds: AT + timedelta(seconds=seconds))


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.one_of(st.none(), TIMES), TIMES), max_size=80))
def test_each_run_is_given_once_when_its_time_has_come(steps: list[tuple[str, datetime | None, datetime]]) -> None:
    wakes = RunTimers()
    wanted: dict[str, datetime] = {}
    for run, at, now in steps:
        wakes.set(run, at)
        wanted.pop(run, None)
        if at is not None:
            wanted[run] = at
        assert wakes.first == min(wanted.values(), default=None)
        due = {name for name, when in wanted.items() if when <= now}
        taken = wakes.take(now)
        assert sorted(taken) == sorted(due)
        assert [wanted[name] for name in taken] == sorted(wanted[name] for name in taken)
        for name in due:
            del wanted[name]

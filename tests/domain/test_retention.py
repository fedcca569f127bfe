"""What retention decides about a run, at any time and with any policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runstream.domain.retention import EndedRun, Policy, age_text, decide_retention, next_retention
from runstream.events.run import RunDataRemoved, RunDeleted

TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
AGES = st.none() | st.timedeltas(timedelta(seconds=1), timedelta(days=400))
POLICIES = st.builds(Policy, st.none() | st.integers(1, 100), AGES, AGES, AGES)
RUNS = st.builds(EndedRun, TIMES, st.booleans(), st.booleans(), st.booleans())


@given(RUNS, POLICIES, TIMES, TIMES)
def test_it_acts_exactly_when_something_is_due(run: EndedRun, policy: Policy, since: datetime, now: datetime) -> None:
    due = next_retention(run, policy, since)
    surplus = run.surplus and policy.keep is not None
    events = decide_retention(run, policy, since, now)
    assert bool(events) is (surplus or (due is not None and due <= now))
    assert due is None or due > max(run.ended_at, since)
    for event in events:
        assert isinstance(event, RunDeleted | RunDataRemoved)
        if isinstance(event, RunDeleted):
            assert events == (event,)
            old = policy.runs is not None and max(run.ended_at, since) + policy.runs <= now
            assert surplus or old


@given(RUNS, POLICIES, TIMES, TIMES)
def test_once_done_it_is_not_done_again(run: EndedRun, policy: Policy, since: datetime, now: datetime) -> None:
    for event in decide_retention(run, policy, since, now):
        if isinstance(event, RunDataRemoved):
            assert getattr(run, f"holds_{event.kinds[0]}")
            run = replace(run, **{f"holds_{kind}": False for kind in event.kinds})
        else:
            return
    assert decide_retention(run, policy, since, now) == ()
    due = next_retention(run, policy, since)
    assert due is None or due > now


def test_no_policy_keeps_everything() -> None:
    run = EndedRun(datetime(2020, 1, 1, tzinfo=UTC), True, True, True)
    assert decide_retention(run, Policy(), run.ended_at, datetime.max.replace(tzinfo=UTC)) == ()
    assert not Policy()
    assert Policy(keep=1)


def test_an_age_beyond_the_last_date_is_never_due() -> None:
    run = EndedRun(datetime(2020, 1, 1, tzinfo=UTC), False, True, True)
    assert next_retention(run, Policy(runs=timedelta.max), run.ended_at) is None


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(days=90), "90d"),
        (timedelta(hours=36), "36h"),
        (timedelta(minutes=5), "5m"),
        (timedelta(seconds=90), "90s"),
        (timedelta(milliseconds=1500), "1.5s"),
    ],
)
def test_ages_in_words(age: timedelta, text: str) -> None:
    assert age_text(age) == text

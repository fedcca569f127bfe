"""A copy is what `dataclasses.replace` makes of the same state."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from runstream.domain.copies import replace
from runstream.domain.executor_task import StepState
from runstream.events.executor_task import ExecutorTaskPhase


def test_a_copy_has_the_changes_and_nothing_else() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    state = StepState(ExecutorTaskPhase.RUNNING, at)
    copy = replace(state, phase=ExecutorTaskPhase.SUCCESS, end_time=at)
    assert copy == dataclasses.replace(state, phase=ExecutorTaskPhase.SUCCESS, end_time=at)
    assert state == StepState(ExecutorTaskPhase.RUNNING, at)
    assert hash(copy) == hash(StepState(ExecutorTaskPhase.SUCCESS, at, at))


def test_a_copy_is_frozen_too() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        replace(StepState(), exit_status=1).exit_status = 2  # type: ignore[misc]


def test_a_field_that_is_not_there_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        replace(StepState(), colour="red")  # type: ignore[call-arg]

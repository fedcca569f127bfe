"""What `executor list` says of an executor, and which tasks it gets."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from runstream.domain.executor import (
    Demand,
    ExecutorState,
    ExecutorStatus,
    Offer,
    RegisteredExecutor,
    Sighting,
    choose_executor,
    evolve,
    executor_status,
    unfit,
)
from runstream.events.executor import (
    ExecutorDeleted,
    ExecutorDrained,
    ExecutorLost,
    ExecutorUndrained,
)
from tests.domain.world import offer
from tests.factories import executor_registered

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REGISTERED = executor_registered("ex1", version="0.2.0")
DEMAND = Demand("host", "", privileged=False, labels=())
OFFER = offer("ex1", 2)


def seen(what: Offer = OFFER, silent: float = 0.0) -> Sighting:
    return Sighting(what, NOW, silent, 0.0)


@pytest.mark.parametrize(
    ("state", "draining", "sighting", "tasks", "said"),
    [
        (ExecutorState.REGISTERED, False, seen(), 1, "ready"),
        (ExecutorState.DELETED, False, seen(), 0, "deleted"),
        (ExecutorState.REGISTERED, False, seen(silent=5.1), 1, "suspect"),
        (ExecutorState.REGISTERED, True, seen(silent=5.1), 1, "suspect"),
        (ExecutorState.REGISTERED, False, None, 1, "offline"),
        (ExecutorState.REGISTERED, True, None, 0, "offline"),
        (ExecutorState.LOST, False, None, 0, "lost"),
        (ExecutorState.OFFLINE, False, None, 0, "offline"),
        (ExecutorState.REGISTERED, True, seen(), 1, "draining"),
        (ExecutorState.REGISTERED, True, seen(replace(OFFER, open_tasks={"0": 1})), 0, "draining"),
        (ExecutorState.REGISTERED, True, seen(), 0, "drained"),
        (ExecutorState.REGISTERED, False, seen(replace(OFFER, full="3 MB left")), 0, "full"),
    ],
)
def test_what_can_be_expected(
    state: ExecutorState, draining: bool, sighting: Sighting | None, tasks: int, said: ExecutorStatus
) -> None:
    assert executor_status(RegisteredExecutor("ex1", REGISTERED, state, draining), sighting, tasks) == said


@pytest.mark.parametrize("changes", [{"draining": True}, {"full": "disk full: 3 MB left"}])
def test_an_executor_that_drains_or_is_full_gets_no_task(changes: dict[str, object]) -> None:
    without = replace(OFFER, **changes)
    assert choose_executor({"ex1": without}, {}, DEMAND) is None
    assert [lack.requirement for lack in unfit(without, 0, DEMAND)] == ["draining" if "draining" in changes else "disk"]
    assert choose_executor({"ex1": without, "ex2": offer("ex2", 2)}, {"ex2": 1}, DEMAND) == "ex2"


def test_a_drain_lasts_until_it_is_ended_or_the_executor_is_deleted() -> None:
    executor = evolve(None, "ex1", REGISTERED, NOW)
    for event in (ExecutorDrained(), ExecutorLost(NOW), REGISTERED):
        executor = evolve(executor, "ex1", event, NOW)
    assert executor is not None
    assert executor.draining
    undrained = evolve(executor, "ex1", ExecutorUndrained())
    deleted = evolve(executor, "ex1", ExecutorDeleted())
    assert undrained is not None
    assert not undrained.draining
    assert deleted is not None
    assert not deleted.draining


def test_a_stopped_executor_stays_offline_until_it_registers_again() -> None:
    stopped = evolve(
        RegisteredExecutor("ex1", REGISTERED, ExecutorState.REGISTERED), "ex1", ExecutorLost(NOW, released=True)
    )
    assert stopped is not None
    assert (stopped.last_seen, executor_status(stopped, None, 0)) == (NOW, "offline")
    again = evolve(stopped, "ex1", REGISTERED, NOW)
    assert again is not None
    assert executor_status(again, seen(), 0) == "ready"

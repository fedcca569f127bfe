"""An executor: its record, folded from its events, and what it offers while it is alive (domain c.10)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from runstream.events.executor import ExecutorDeleted, ExecutorEvent, ExecutorLost, ExecutorRegistered
from runstream.events.run_config import RunConfigTask


class ExecutorState(StrEnum):
    """Whether an executor is to be counted on."""

    REGISTERED = "registered"
    LOST = "lost"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Executor:
    """An executor as the log knows it."""

    id: str
    registration: ExecutorRegistered
    """What it said last."""
    state: ExecutorState


@dataclass(frozen=True, slots=True)
class Offer:
    """What a living executor takes, as its lease says it."""

    executor_id: str
    archs: tuple[str, ...]
    labels: dict[str, str]
    allow_privileged_containers: bool
    allow_host: bool
    allow_pod: bool
    active_tasks_limit: int
    """0 for no limit."""
    open_tasks: dict[str, int]
    """How many open tasks it has, by partition (the key is the partition's number as text)."""


def evolve(executor: Executor | None, executor_id: str, event: ExecutorEvent) -> Executor | None:
    """The executor after the event; None while it was never registered."""
    match event:
        case ExecutorRegistered():
            return Executor(executor_id, event, ExecutorState.REGISTERED)
        case ExecutorLost():
            return executor and replace(executor, state=ExecutorState.LOST)
        case ExecutorDeleted():
            return executor and replace(executor, state=ExecutorState.DELETED)
    assert_never(event)


def choose_executor(offers: Mapping[str, Offer], loads: Mapping[str, int], task: RunConfigTask) -> str | None:
    """The executor that is to run the task: of those that fit the one with the most room, or None.

    `loads` counts the open tasks of each executor. Equal ones are taken in the order of their ids.
    """
    fitting = (offer for offer in offers.values() if not unfit(offer, loads.get(offer.executor_id, 0), task))
    best = min(fitting, key=lambda offer: (_fullness(offer, loads), offer.executor_id), default=None)
    return best.executor_id if best is not None else None


def unfit(offer: Offer, load: int, task: RunConfigTask) -> list[str]:
    """Why this executor cannot take the task now; empty when it can."""
    runtime = task.runtime
    reasons = []
    if runtime.type == "host" and not offer.allow_host:
        reasons.append("does not allow tasks on its host")
    if runtime.type == "pod" and not offer.allow_pod:
        reasons.append("cannot run containers")
    if any(container.privileged for container in runtime.containers) and not offer.allow_privileged_containers:
        reasons.append("does not allow privileged containers")
    if runtime.arch and runtime.arch not in offer.archs:
        reasons.append(f"has no architecture {runtime.arch}")
    reasons.extend(_labels_missing(offer.labels, runtime.labels))
    if offer.active_tasks_limit and load >= offer.active_tasks_limit:
        reasons.append(f"is full ({load} of {offer.active_tasks_limit} tasks)")
    return reasons


def _labels_missing(offered: Mapping[str, str], wanted: Mapping[str, str]) -> Iterator[str]:
    for name, value in wanted.items():
        if name not in offered:
            yield f"has no label {name}"
        elif offered[name] != value:
            yield f"has the label {name} with the value {offered[name]!r}, not {value!r}"


def _fullness(offer: Offer, loads: Mapping[str, int]) -> float:
    load = loads.get(offer.executor_id, 0)
    return load / offer.active_tasks_limit if offer.active_tasks_limit else load / 1000

"""An executor: its record, folded from its events, and its offer while it is alive (rules executor-3 to executor-8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal, assert_never

from msgspec import Struct
from msgspec.structs import replace

from runstream.events.executor import (
    ExecutorDeleted,
    ExecutorDrained,
    ExecutorEvent,
    ExecutorLost,
    ExecutorRegistered,
    ExecutorUndrained,
)
from runstream.events.run_config import Runtime


class ExecutorState(StrEnum):
    """Whether an executor is to be counted on."""

    REGISTERED = "registered"
    LOST = "lost"
    DELETED = "deleted"


class Executor(Struct, frozen=True, gc=False):
    """An executor as the log knows it."""

    id: str
    registration: ExecutorRegistered
    """What it said last."""
    state: ExecutorState
    draining: bool = False
    """Whether it is to get no new tasks."""
    last_seen: datetime | None = None
    """When it registered, or was heard of last before it was lost; a living one is known by its lease."""


class Offer(Struct, frozen=True, gc=False):
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
    draining: bool = False
    """Whether it is to get no new tasks."""
    full: str = ""
    """Why it has no room on its disk for a task; empty when it has."""
    at: float = 0.0
    """Its wall clock when it said so, in seconds since 1970; 0 when it did not say."""


class Sighting(Struct, frozen=True, gc=False):
    """The lease of a living executor, as it is now."""

    offer: Offer
    seen: datetime
    """When it was renewed last, by the clock of the log's server."""
    silent: float
    """Seconds since then, by the same clock."""
    skew: float
    """How far its wall clock is ahead of that clock, in seconds; negative when it is behind."""


SUSPECT_SECONDS = 5.0
"""An executor that has not renewed its lease for this long gets no new tasks."""
SKEW_SECONDS = 2.0
"""A clock that differs by more is worth telling."""
NAMED = 5
"""How many executors, tasks or requirements a sentence names."""
_SHOWN = 60
"""Characters of an image or label in a sentence."""
Standing = Literal["ready", "suspect", "draining", "drained", "full", "offline", "lost", "deleted"]


def standing(executor: Executor, sighting: Sighting | None, open_tasks: int) -> Standing:
    """What can be expected of an executor; `open_tasks` is how many the log knows."""
    if executor.state is ExecutorState.LOST:
        return "lost"
    if executor.state is ExecutorState.DELETED:
        return "deleted"
    if sighting is None:
        return "offline"
    if sighting.silent > SUSPECT_SECONDS:
        return "suspect"
    if executor.draining:
        return "draining" if open_tasks or sum(sighting.offer.open_tasks.values()) else "drained"
    return "full" if sighting.offer.full else "ready"


def evolve(
    executor: Executor | None, executor_id: str, event: ExecutorEvent, at: datetime | None = None
) -> Executor | None:
    """The executor after the event, which is of this time; None while it was never registered."""
    match event:
        case ExecutorRegistered():
            draining = executor is not None and executor.draining
            return Executor(executor_id, event, ExecutorState.REGISTERED, draining, at)
        case ExecutorLost(seen):
            return executor and replace(executor, state=ExecutorState.LOST, last_seen=seen or executor.last_seen)
        case ExecutorDrained():
            return executor and replace(executor, draining=True)
        case ExecutorUndrained():
            return executor and replace(executor, draining=False)
        case ExecutorDeleted():
            return executor and replace(executor, state=ExecutorState.DELETED, draining=False)
    assert_never(event)


class Demand(Struct, frozen=True, gc=False):
    """What a task requires of the executor that is to run it."""

    type: Literal["pod", "host"]
    arch: str
    """Empty for any."""
    privileged: bool
    labels: tuple[tuple[str, str], ...]


class Lack(Struct, frozen=True, gc=False):
    """Something for which an executor cannot take a task."""

    requirement: Literal["host", "pod", "privileged", "arch", "label", "limit", "draining", "disk"]
    sentence: str
    """Without its subject, the executor."""


def demand_of(runtime: Runtime) -> Demand:
    """What this runtime requires."""
    privileged = any(container.privileged for container in runtime.containers)
    return Demand(runtime.type, runtime.arch, privileged, tuple(runtime.labels.items()))


def needed(runtime: Runtime) -> str:
    """Return what this runtime requires in words, such as `containers (python:3.12), label gpu=yes`."""
    demand = demand_of(runtime)
    images = listed(container.image[:_SHOWN] for container in runtime.containers)
    parts = [
        "host" if demand.type == "host" else f"{'privileged ' if demand.privileged else ''}containers ({images})",
        *([f"architecture {demand.arch}"] if demand.arch else []),
        *(f"label {name[:_SHOWN]}={value[:_SHOWN]}" for name, value in demand.labels),
    ]
    return listed(parts)


def listed(texts: Iterable[str], separator: str = ", ") -> str:
    """Return the first few, and how many more there are."""
    all_of_them = list(texts)
    more = len(all_of_them) - NAMED
    return separator.join(all_of_them[:NAMED]) + (f" and {more} more" if more > 0 else "")


def choose_executor(
    offers: Mapping[str, Offer], loads: Mapping[str, int], demand: Demand, failed_at: Sequence[str] = ()
) -> str | None:
    """The executor that is to run a task: of those that fit the one with the most room, or None.

    `loads` counts the open tasks of each executor. `failed_at` names for each failed attempt at the task where it was:
    executors where fewer of them were come first, and one where all were is better than none. Equal ones are taken in
    the order of their ids.
    """
    fitting = (
        offer
        for offer in offers.values()
        if not is_full(offer, loads.get(offer.executor_id, 0)) and fits(offer, demand)
    )

    def unlikely(offer: Offer) -> tuple[int, float, str]:
        return failed_at.count(offer.executor_id), _fullness(offer, loads), offer.executor_id

    best = min(fitting, key=unlikely, default=None)
    return best.executor_id if best is not None else None


def fits(offer: Offer, demand: Demand) -> bool:
    """Whether the executor could take such a task if it had room."""
    return next(lacks(offer, demand), None) is None


def is_full(offer: Offer, load: int) -> bool:
    """Whether it has as many open tasks as it takes."""
    return 0 < offer.active_tasks_limit <= load


def unfit(offer: Offer, load: int, demand: Demand) -> list[Lack]:
    """Why this executor cannot take the task now; empty when it can."""
    found = list(lacks(offer, demand))
    if is_full(offer, load):
        found.append(Lack("limit", f"is full ({load} of {offer.active_tasks_limit} tasks)"))
    return found


def lacks(offer: Offer, demand: Demand) -> Iterator[Lack]:
    """What the executor lacks for such a task, however much room it has."""
    if offer.draining:
        yield Lack("draining", "is draining")
    if offer.full:
        yield Lack("disk", f"has no room on its disk ({offer.full})")
    if demand.type == "host" and not offer.allow_host:
        yield Lack("host", "does not allow tasks on its host")
    if demand.type == "pod" and not offer.allow_pod:
        yield Lack("pod", "cannot run containers")
    if demand.privileged and not offer.allow_privileged_containers:
        yield Lack("privileged", "does not allow privileged containers")
    if demand.arch and demand.arch not in offer.archs:
        yield Lack("arch", f"has no architecture {demand.arch}")
    for name, value in demand.labels:
        if name not in offer.labels:
            yield Lack("label", f"has no label {name}")
        elif offer.labels[name] != value:
            yield Lack("label", f"has the label {name} with the value {offer.labels[name]!r}, not {value!r}")


def _fullness(offer: Offer, loads: Mapping[str, int]) -> float:
    load = loads.get(offer.executor_id, 0)
    return load / offer.active_tasks_limit if offer.active_tasks_limit else load / 1000

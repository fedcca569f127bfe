"""An executor: its record, folded from its events, and its offer while it is alive (rules executor-3 to executor-8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal, assert_never

from msgspec import Struct
from msgspec.structs import replace

from runstream.counting import listed
from runstream.events.executor import (
    ExecutorDeleted,
    ExecutorDrained,
    ExecutorEvent,
    ExecutorLost,
    ExecutorRegistered,
    ExecutorUndrained,
)
from runstream.events.run_config import Runtime, RuntimeType


class ExecutorState(StrEnum):
    """The liveness of an executor."""

    REGISTERED = "registered"
    OFFLINE = "offline"
    """It was stopped, and released its lease."""
    LOST = "lost"
    DELETED = "deleted"


class RegisteredExecutor(Struct, frozen=True, gc=False):
    """An executor, folded from its events in the log."""

    id: str
    registration: ExecutorRegistered
    """Its last registration."""
    state: ExecutorState
    draining: bool = False
    """Whether it is to get no new tasks."""
    last_seen: datetime | None = None
    """When it registered, or was last seen before it was lost; the lease of a living executor has more."""


class Offer(Struct, frozen=True, gc=False):
    """The offer in a living executor's lease: the tasks that it accepts."""

    executor_id: str
    archs: tuple[str, ...]
    labels: dict[str, str]
    allow_privileged_containers: bool
    allow_host: bool
    allow_pod: bool
    active_tasks_limit: int
    """0 for no limit."""
    open_tasks: dict[str, int]
    """Number of its open tasks, by partition (the key is the partition's number as text)."""
    draining: bool = False
    """Whether it is to get no new tasks."""
    full: str = ""
    """Why its disk has no space for a task; empty if it has."""
    at: float = 0.0
    """Its wall clock at the time of the renewal, in seconds since 1970; 0 if unknown."""
    refused: str = ""
    """Why it refuses host tasks that its settings allow; empty if it does not."""
    engine: str = ""
    """Its container engine; empty without one, or before it was reached."""
    engine_away: str = ""
    """Why its container engine cannot be used now; empty if it can, or if there is none."""
    engine_cpu: int = 0
    """Thousandths of a processor of the engine's machine; 0 if unknown."""
    engine_memory: int = 0
    """Bytes of memory of the engine's machine; 0 if unknown."""


class Sighting(Struct, frozen=True, gc=False):
    """The current lease of a living executor."""

    offer: Offer
    seen: datetime
    """Time of the last renewal, by the clock of the log's server."""
    silent: float
    """Seconds since the last renewal, by the same clock."""
    skew: float
    """How far the executor's wall clock is ahead of that clock, in seconds; negative if it is behind."""


SUSPECT_SECONDS = 5.0
"""Time without a renewal, in seconds, after which an executor gets no new tasks."""
SKEW_SECONDS = 2.0
"""Difference between clocks, in seconds, above which it is reported."""
_SHOWN = 60
"""Maximum length of an image or label in a sentence, in characters."""
_SHOWN_REASON = 200
"""Maximum length of the reason why an engine is away, in characters."""
ExecutorStatus = Literal["ready", "suspect", "draining", "drained", "full", "offline", "lost", "deleted"]


def executor_status(executor: RegisteredExecutor, sighting: Sighting | None, open_tasks: int) -> ExecutorStatus:
    """Return the state of an executor for users; `open_tasks` is the number of its open tasks in the log."""
    if executor.state is ExecutorState.LOST:
        return "lost"
    if executor.state is ExecutorState.DELETED:
        return "deleted"
    if executor.state is ExecutorState.OFFLINE or sighting is None:
        return "offline"
    if sighting.silent > SUSPECT_SECONDS:
        return "suspect"
    if executor.draining:
        return "draining" if open_tasks or sum(sighting.offer.open_tasks.values()) else "drained"
    return "full" if sighting.offer.full else "ready"


def evolve(
    executor: RegisteredExecutor | None, executor_id: str, event: ExecutorEvent, at: datetime | None = None
) -> RegisteredExecutor | None:
    """Return the executor after an event at this time; None while it has never registered."""
    match event:
        case ExecutorRegistered():
            draining = executor is not None and executor.draining
            return RegisteredExecutor(executor_id, event, ExecutorState.REGISTERED, draining, at)
        case ExecutorLost(seen, released):
            state = ExecutorState.OFFLINE if released else ExecutorState.LOST
            return executor and replace(executor, state=state, last_seen=seen or executor.last_seen)
        case ExecutorDrained():
            return executor and replace(executor, draining=True)
        case ExecutorUndrained():
            return executor and replace(executor, draining=False)
        case ExecutorDeleted():
            return executor and replace(executor, state=ExecutorState.DELETED, draining=False)
    assert_never(event)


class Demand(Struct, frozen=True, gc=False):
    """The requirements of a task for its executor."""

    type: RuntimeType
    arch: str
    """Empty for any."""
    privileged: bool
    labels: tuple[tuple[str, str], ...]
    cpu: int = 0
    """The largest limit of its containers, in thousandths of a processor; 0 for none."""
    memory: int = 0
    """The largest limit of its containers, in bytes; 0 for none."""


class Lack(Struct, frozen=True, gc=False):
    """A reason why an executor cannot take a task."""

    requirement: Literal["host", "pod", "privileged", "arch", "label", "cpu", "memory", "limit", "draining", "disk"]
    sentence: str
    """A sentence without its subject, the executor."""


def demand_of(runtime: Runtime) -> Demand:
    """Return the requirements of this runtime."""
    privileged = any(container.privileged for container in runtime.containers)
    cpu = max((container.resources.cpu for container in runtime.containers), default=0)
    memory = max((container.resources.memory for container in runtime.containers), default=0)
    return Demand(runtime.type, runtime.arch, privileged, tuple(runtime.labels.items()), cpu, memory)


def needed(runtime: Runtime) -> str:
    """Describe the requirements of this runtime, such as `containers (python:3.12), label gpu=yes`."""
    demand = demand_of(runtime)
    images = listed(container.image[:_SHOWN] for container in runtime.containers)
    parts = [
        "host" if demand.type == "host" else f"{'privileged ' if demand.privileged else ''}containers ({images})",
        *([f"architecture {demand.arch}"] if demand.arch else []),
        *(f"label {name[:_SHOWN]}={value[:_SHOWN]}" for name, value in demand.labels),
        *([_processors(demand.cpu)] if demand.cpu else []),
        *([f"{_gibibytes(demand.memory)} of memory"] if demand.memory else []),
    ]
    return listed(parts)


def choose_executor(
    offers: Mapping[str, Offer], loads: Mapping[str, int], demand: Demand, failed_at: Sequence[str] = ()
) -> str | None:
    """Return the executor for a task: of those that fit, the one with the most free slots; None without any.

    `loads` has the number of open tasks of each executor. `failed_at` has the executor of each failed attempt at the
    task: executors with fewer failed attempts come first, but one with all of them is better than none. Ties are broken
    by id.
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
    """Return whether the executor could take such a task if it had a free slot."""
    return next(lacks(offer, demand), None) is None


def is_full(offer: Offer, load: int) -> bool:
    """Return whether the executor has no free slot."""
    return 0 < offer.active_tasks_limit <= load


def unfit(offer: Offer, load: int, demand: Demand) -> list[Lack]:
    """Return why this executor cannot take the task now; empty if it can."""
    found = list(lacks(offer, demand))
    if is_full(offer, load):
        found.append(Lack("limit", f"is full ({load} of {offer.active_tasks_limit} tasks)"))
    return found


def lacks(offer: Offer, demand: Demand) -> Iterator[Lack]:
    """Return what the executor lacks for such a task, regardless of free slots."""
    if offer.draining:
        yield Lack("draining", "is draining")
    if offer.full:
        yield Lack("disk", f"has no room on its disk ({offer.full})")
    if demand.type == "host" and not offer.allow_host:
        yield Lack(
            "host",
            f"refuses tasks on its host: {offer.refused}" if offer.refused else "does not allow tasks on its host",
        )
    if demand.type == "pod" and not offer.allow_pod:
        yield Lack("pod", "cannot run containers: it has no engine (executor.engine)")
    elif demand.type == "pod" and offer.engine_away:
        yield Lack("pod", f"cannot run containers now: its engine is unreachable ({offer.engine_away[:_SHOWN_REASON]})")
    if demand.privileged and not offer.allow_privileged_containers:
        yield Lack("privileged", "does not allow privileged containers")
    if 0 < offer.engine_cpu < demand.cpu:
        yield Lack("cpu", f"has only {_processors(offer.engine_cpu)} for a container")
    if 0 < offer.engine_memory < demand.memory:
        yield Lack("memory", f"has only {_gibibytes(offer.engine_memory)} of memory for a container")
    if demand.arch and demand.arch not in offer.archs:
        yield Lack("arch", f"has no architecture {demand.arch}")
    for name, value in demand.labels:
        if name not in offer.labels:
            yield Lack("label", f"has no label {name}")
        elif offer.labels[name] != value:
            yield Lack("label", f"has the label {name} with the value {offer.labels[name]!r}, not {value!r}")


def _processors(thousandths: int) -> str:
    return f"{thousandths / 1000:g} CPU{'' if thousandths == 1000 else 's'}"


def _gibibytes(size: int) -> str:
    return f"{size / (1 << 30):.3g} GiB"


def _fullness(offer: Offer, loads: Mapping[str, int]) -> float:
    load = loads.get(offer.executor_id, 0)
    return load / offer.active_tasks_limit if offer.active_tasks_limit else load / 1000

"""Why a run or one of its tasks waits, explained from the same state that decisions are made from.

Each reason has a code for programs, a sentence for people, and details. Tasks that wait for the same reason share it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from runstream.counting import counted, listed
from runstream.domain.advance import tasks_to_run
from runstream.domain.clocks import may_begin
from runstream.domain.executor import Lack, Offer, demand_of, is_full, needed, unfit
from runstream.domain.run import RunState, RunTask, RunTaskStatus
from runstream.events.run_config import RunConfig, RunConfigTask
from runstream.names import numbered_name
from runstream.run_states import RunPhase, RunResult

ReasonCode = Literal[
    "setupError",
    "ended",
    "paused",
    "group",
    "stopping",
    "running",
    "assigned",
    "dependency",
    "archives",
    "approval",
    "backoff",
    "noExecutor",
    "noExecutorFits",
    "executorsFull",
    "turn",
    "storing",
    "deciding",
    "maintenance",
    "noScheduler",
    "noAnswer",
    "parked",
]
MAX_REASONS = 200
"""Maximum number of reasons in an explanation."""
MAX_EXECUTORS = 100
"""Maximum number of executors in the details of a reason."""


class WaitReason(Struct, frozen=True, gc=False):
    """A reason to wait."""

    code: ReasonCode
    message: str
    tasks: tuple[str, ...]
    """Names of the tasks that wait; empty if the whole run does."""
    details: dict[str, object]
    """Values that JSON can represent."""


class Explanation(Struct, frozen=True, gc=False):
    """The reasons why a run waits, with its phase and result."""

    phase: RunPhase
    result: RunResult
    reasons: list[WaitReason]
    omitted: int = 0
    """Number of further reasons."""


class View(Struct, frozen=True, gc=False):
    """The context of a run in its scheduler."""

    at: datetime
    first: RunState
    """The first unfinished run of its group, which may be the run itself."""
    before: int
    """Number of unfinished runs before it in its group."""
    offers: Mapping[str, Offer]
    loads: Mapping[str, int]
    """Number of open tasks of each executor."""
    executors: Mapping[str, str]
    """The executor of each executor task of the run, by the id of the task."""
    ahead: Mapping[str, int]
    """Number of tasks ahead of each pending task in the queue for the same slots, by name."""


def ended(run: RunState) -> Explanation:
    """Return the explanation of a run that has ended."""
    return Explanation(run.phase, run.result, [_ended(run)])


def explain(run: RunState, config: RunConfig, view: View) -> Explanation:
    """Return the reasons of an unfinished run, those of the whole run first."""
    reasons = _reasons(run, config, view)
    return Explanation(run.phase, run.result, reasons[:MAX_REASONS], max(len(reasons) - MAX_REASONS, 0))


def _reasons(run: RunState, config: RunConfig, view: View) -> list[WaitReason]:
    if run.phase is RunPhase.QUEUED:
        return [*_paused(run), *_why_queued(run, view)]
    reasons = [*_paused(run), *_stopping(run)]
    tasks = sorted(run.tasks.values(), key=lambda task: (config.tasks[task.name].level, task.name))
    reasons.extend(_shared(reason for task in tasks if not task.finished for reason in _task(run, task, config, view)))
    if all(task.finished for task in tasks):
        reasons.append(_storing(tasks))
    return reasons


def _ended(run: RunState) -> WaitReason:
    if run.phase is RunPhase.SETUP_ERROR:
        errors = list(run.setup_errors)
        return WaitReason(
            "setupError", f"it has setup errors and will not run: {'; '.join(errors)}", (), {"errors": errors}
        )
    if run.phase is RunPhase.CANCELLED:
        message = f"it was cancelled: {run.reason}" if run.reason else "it was cancelled"
    else:
        causes = "; ".join(filter(None, (run.reason, "it timed out" if run.timedout else "")))
        message = f"it has ended: {run.result.value}" + (f" ({causes})" if causes else "")
    details: dict[str, object] = {"phase": run.phase.value, "result": run.result.value, "reason": run.reason}
    return WaitReason("ended", message, (), details)


def _paused(run: RunState) -> Iterator[WaitReason]:
    if run.paused_at is not None:
        message = f"it is paused since {_moment(run.paused_at)}: nothing more of it starts until it is resumed"
        yield WaitReason("paused", message, (), {"since": run.paused_at.isoformat()})


def _why_queued(run: RunState, view: View) -> Iterator[WaitReason]:
    first = view.first
    if first.id == run.id:
        if run.paused_at is None:
            yield WaitReason("deciding", "it is its turn: it is about to start", (), {})
        return
    more = f", and {counted(view.before - 1, 'more run')} before it" if view.before > 1 else ""
    details: dict[str, object] = {
        "run": first.id,
        "counter": first.counter,
        "phase": first.phase.value,
        "paused": first.paused_at is not None,
        "stopping": first.stop,
        "before": view.before,
    }
    message = f"run {numbered_name(first.group, first.counter, first.id)} of its group {_state(first)}{more}"
    yield WaitReason("group", message, (), details)


def _state(run: RunState) -> str:
    if run.stop:
        return "is being stopped"
    if run.paused_at is not None:
        return "is paused"
    return "is running" if run.phase is RunPhase.RUNNING else "is about to start"


def _stopping(run: RunState) -> Iterator[WaitReason]:
    if not run.stop:
        return
    open_tasks = tuple(task.name for task in run.tasks.values() if not task.finished)
    why = "its time is up" if run.timedout else "it was asked to stop"
    message = f"{why}{f' ({run.reason})' if run.reason else ''}: {_ending(open_tasks)}"
    yield WaitReason("stopping", message, open_tasks, {"reason": run.reason, "timedout": run.timedout})


def _ending(tasks: tuple[str, ...]) -> str:
    return f"{listed(tasks)} {'has' if len(tasks) == 1 else 'have'} not ended yet" if tasks else "its tasks have ended"


def _task(run: RunState, task: RunTask, config: RunConfig, view: View) -> Iterator[WaitReason]:
    """Return why this unfinished task does not progress."""
    if task.executor_task_id:
        yield _why_assigned(task, view)
        return
    parents = [run.tasks[depend.task] for depend in config.tasks[task.name].depends]
    if waited := [parent for parent in parents if not parent.finished]:
        waited_for = listed(f"{parent.name} ({_word(parent)})" for parent in waited)
        states = {parent.name: parent.status.value for parent in waited}
        yield WaitReason("dependency", f"it waits for {waited_for}", (task.name,), {"tasks": states})
    elif storing := [parent.name for parent in parents if not parent.done]:
        message = f"what {listed(storing)} handed over is not stored yet"
        yield WaitReason("archives", message, (task.name,), {"tasks": storing})
    elif task.waiting_approval:
        yield WaitReason("approval", "it waits for approval", (task.name,), {})
    elif task.not_before is not None and not may_begin(run, task.name, view.at):
        message = f"attempt {task.attempt} begins at {_moment(task.not_before)} at the earliest"
        details = {"attempt": task.attempt, "not_before": task.not_before.isoformat()}
        yield WaitReason("backoff", message, (task.name,), details)
    elif run.paused_at is None:
        yield _why_unassigned(run, task, config, view)


def _why_assigned(task: RunTask, view: View) -> WaitReason:
    executor_id = view.executors.get(task.executor_task_id, "")
    details: dict[str, object] = {"executor": executor_id}
    if task.status is RunTaskStatus.RUNNING:
        return WaitReason("running", f"it runs at executor {executor_id}", (task.name,), details)
    offer = view.offers.get(executor_id)
    load = view.loads.get(executor_id, 0)
    full = f" (it has {load} of {offer.active_tasks_limit} tasks)" if offer and offer.active_tasks_limit else ""
    return WaitReason("assigned", f"executor {executor_id}{full} has not started it yet", (task.name,), details)


def _why_unassigned(run: RunState, task: RunTask, config: RunConfig, view: View) -> WaitReason:
    """Return why a task that could run is not assigned."""
    if task.name not in tasks_to_run(replace(run, paused_at=None), config, view.at):
        return WaitReason("deciding", "the scheduler is about to decide", (task.name,), {})
    if not view.offers:
        return WaitReason("noExecutor", "there is no executor", (task.name,), {})
    fitting = {name: offer for name, offer in view.offers.items() if not _shortfalls(offer, config.tasks[task.name])}
    if not fitting:
        return _no_fit(task, config.tasks[task.name], view)
    rooms = {name: _load(offer, view) for name, offer in sorted(fitting.items())}
    details: dict[str, object] = {"executors": dict(list(rooms.items())[:MAX_EXECUTORS]), "fitting": len(rooms)}
    ahead = view.ahead.get(task.name, 0)
    loads = listed(f"{name} ({load})" for name, load in rooms.items())
    come = f"{counted(ahead, 'task')} come{'s' if ahead == 1 else ''} before it"
    if all(is_full(offer, view.loads.get(name, 0)) for name, offer in fitting.items()):
        full = "the executor that fits is" if len(rooms) == 1 else "the executors that fit are"
        message = f"{full} full: {loads}{f'; {come}' if ahead else ''}"
        return WaitReason("executorsFull", message, (task.name,), {**details, "before": ahead})
    if ahead:
        return WaitReason("turn", f"there is room, but {come}: {loads}", (task.name,), {**details, "before": ahead})
    return WaitReason("deciding", "it is about to be given to an executor", (task.name,), details)


def _shortfalls(offer: Offer, task: RunConfigTask) -> list[Lack]:
    return unfit(offer, 0, demand_of(task.runtime))


def _load(offer: Offer, view: View) -> str:
    load = view.loads.get(offer.executor_id, 0)
    return f"{load} of {offer.active_tasks_limit} tasks" if offer.active_tasks_limit else counted(load, "task")


def _no_fit(task: RunTask, wanted: RunConfigTask, view: View) -> WaitReason:
    lacking = {name: _shortfalls(offer, wanted) for name, offer in sorted(view.offers.items())}
    reasons = listed(
        (f"{name} {' and '.join(lack.sentence for lack in lacks)}" for name, lacks in lacking.items()), separator="; "
    )
    shown = list(lacking.items())[:MAX_EXECUTORS]
    demand = demand_of(wanted.runtime)
    details: dict[str, object] = {
        "executors": {name: {lack.requirement: lack.sentence for lack in lacks} for name, lacks in shown},
        "requires": {
            name: value
            for name, value in (
                ("type", wanted.runtime.type),
                ("arch", wanted.runtime.arch),
                ("labels", wanted.runtime.labels),
                ("privileged", demand.privileged),
                ("cpu", demand.cpu),
                ("memory", demand.memory),
            )
            if value
        },
    }
    message = f"no executor fits (needed: {needed(wanted.runtime)}): {reasons}"
    return WaitReason("noExecutorFits", message, (task.name,), details)


def _storing(tasks: Iterable[RunTask]) -> WaitReason:
    names = tuple(task.name for task in tasks if task.unsettled)
    if not names:
        return WaitReason("deciding", "its tasks have ended: it is about to be finished", (), {})
    return WaitReason("storing", f"logs and archives of {listed(names)} are being stored", names, {})


def _shared(reasons: Iterable[WaitReason]) -> list[WaitReason]:
    """Merge equal reasons into one with all their tasks."""
    found: dict[tuple[str, str], WaitReason] = {}
    for reason in reasons:
        key = reason.code, reason.message
        known = found.get(key)
        found[key] = reason if known is None else replace(known, tasks=(*known.tasks, *reason.tasks))
    return list(found.values())


def _word(task: RunTask) -> str:
    if task.waiting_approval:
        return "waits for approval"
    return "not started" if task.status is RunTaskStatus.NOT_STARTED else task.status.value


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"

"""Why a run waits, told by the scheduler of its partition from what it decides on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from runstream.domain.advance import tasks_to_run
from runstream.domain.run import Run
from runstream.domain.why import Explanation, View, ended, explain
from runstream.events.run_config import RunConfig
from runstream.projections.fold import PartitionFold
from runstream.scheduler.groups import Groups
from runstream.scheduler.lines import Ask
from runstream.scheduler.planning import ask_for
from runstream.scheduler.turns import Turns


def explanation(fold: PartitionFold, groups: Groups, turns: Turns, run_id: str, at: datetime) -> Explanation | None:
    """Why the run waits at this time; None when it is not in memory."""
    tracked = fold.runs.get(run_id)
    if tracked is None:
        return None
    run = tracked.state
    if run.finished:
        return ended(run)
    config = fold.configs[run.run_config]
    capacity = turns.capacity
    first = groups.place(run, config.concurrency).first
    view = View(
        at=at,
        first=fold.runs[first.id].state,
        before=groups.before(run),
        offers=capacity.offers,
        loads={executor_id: capacity.load(offer) for executor_id, offer in capacity.offers.items()},
        executors=dict(_executors(run, fold)),
        ahead=_ahead(run, config, fold, turns, at),
    )
    return explain(run, config, view)


def _executors(run: Run, fold: PartitionFold) -> Iterator[tuple[str, str]]:
    for task in run.tasks.values():
        if (known := fold.executor_tasks.get(task.executor_task_id)) is not None:
            yield task.executor_task_id, known.state.executor_id


def _ahead(run: Run, config: RunConfig, fold: PartitionFold, turns: Turns, at: datetime) -> dict[str, int]:
    """Of its tasks that wait for room, how many others come before the first of them that requires the same."""
    asks = [ask_for(run, name, config, fold.partition, fold.executor_tasks) for name in tasks_to_run(run, config, at)]
    waiting = [ask for ask in asks if turns.waits(ask)]
    first: dict[object, Ask] = {}
    for ask in waiting:
        first.setdefault(ask.demand, ask)
    before = {demand: turns.before(ask) for demand, ask in first.items()}
    return {ask.task: before[ask.demand] for ask in waiting}

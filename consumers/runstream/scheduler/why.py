"""Why a run waits, explained from the state that its scheduler decides on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from runstream.domain.run import RunState
from runstream.domain.why import Explanation, View, ended, explain
from runstream.projections.fold import PartitionFold
from runstream.scheduler.fair_queue import FairQueue, PendingTask
from runstream.scheduler.groups import Groups


def explain_run(
    run: RunState, fold: PartitionFold, groups: Groups, queue: FairQueue, runnable: Sequence[PendingTask], at: datetime
) -> Explanation:
    """Return why the run waits at this time; `runnable` are its tasks that can run now."""
    if run.finished:
        return ended(run)
    config = fold.configs[run.run_config]
    capacity = queue.capacity
    executor_tasks = (task.executor_task_id for task in run.tasks.values())
    view = View(
        at=at,
        first=fold.runs[groups.place(run, config.concurrency).first.id].state,
        before=groups.before(run),
        offers=capacity.offers,
        loads={executor_id: capacity.load(offer) for executor_id, offer in capacity.offers.items()},
        executors={
            key: known.state.executor_id
            for key in executor_tasks
            if (known := fold.executor_tasks.get(key)) is not None
        },
        ahead=_ahead(queue, [task for task in runnable if queue.is_pending(task)]),
    )
    return explain(run, config, view)


def _ahead(queue: FairQueue, pending: Sequence[PendingTask]) -> dict[str, int]:
    """Return for each task the number of tasks ahead of the run's first one with the same demand."""
    first: dict[object, PendingTask] = {}
    for task in pending:
        first.setdefault(task.demand, task)
    ahead = {demand: queue.ahead_of(task) for demand, task in first.items()}
    return {task.task: ahead[task.demand] for task in pending}

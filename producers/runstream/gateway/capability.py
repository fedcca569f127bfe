"""Which tasks of new runs no living executor can run: such a run waits, and later runs of its group with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from runstream.domain.executor import Demand, Offer, demand_of, lacks, listed, needed
from runstream.events.run_config import RunConfig, RunConfigTask
from runstream.runconfig import Problem
from runstream.runconfig.problems import quoted

_PASSING = frozenset({"draining", "disk"})
"""What an executor lacks for a while."""
MAX_WARNINGS = 20


def incapable(configs: Iterable[RunConfig], offers: Mapping[str, Offer]) -> list[Problem]:
    """Return a warning for each kind of task that no executor can run; none while there is no executor at all."""
    why: dict[Demand, str] = {}
    unfit: dict[tuple[str, Demand], list[RunConfigTask]] = {}
    for config in configs if offers else ():
        for task in config.tasks.values():
            demand = demand_of(task.runtime)
            if demand not in why:
                why[demand] = _why_not(offers, demand)
            if why[demand] and not task.skip:
                unfit.setdefault((config.name, demand), []).append(task)
    return [
        Problem(
            "",
            0,
            f"no executor here can run task {listed(quoted(task.name) for task in tasks)} of run {quoted(run)} "
            f"(needed: {needed(tasks[0].runtime)}): {why[demand]}",
            "the run waits until one can, and later runs of its group with it: `runstream executor list`",
        )
        for (run, demand), tasks in list(unfit.items())[:MAX_WARNINGS]
    ]


def _why_not(offers: Mapping[str, Offer], demand: Demand) -> str:
    """Return what each executor lacks for such a task, whatever it does at present; empty when one lacks nothing."""
    found = {
        name: [lack.sentence for lack in lacks(offer, demand) if lack.requirement not in _PASSING]
        for name, offer in sorted(offers.items())
    }
    if not all(found.values()):
        return ""
    return listed((f"{name} {' and '.join(sentences)}" for name, sentences in found.items()), "; ")

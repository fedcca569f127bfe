"""What a task finds of its ancestors is what a slow reference finds, in the same order, for graphs of any size."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runstream.domain.run import RunState, created
from runstream.events.run_config import Depend, RunConfig
from runstream.ids import attempt_id, run_task_id
from runstream.runconfig.graph import ancestors_of
from runstream.scheduler.decisions import WorkspaceArchives
from tests.domain.world import config, task
from tests.factories import run_created

Graph = dict[str, list[str]]


def reference(run: RunState, content: RunConfig, name: str) -> dict[str, str]:
    """Looks at every task of the run, and at every ancestor."""
    moved = {
        task.name: attempt_id(task.id, task.attempt)
        for task in run.tasks.values()
        if task.archive_steps and (task.attempt > 1 or task.kept)
    }
    above = ancestors_of(content.tasks, name) if moved else set()
    return {task: where for task, where in moved.items() if task in above}


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    names = [f"t{number}" for number in range(draw(st.integers(1, 14)))]
    return {
        name: draw(st.lists(st.sampled_from(names[:number]), unique=True)) if number else []
        for number, name in enumerate(names)
    }


def run_of(graph: Graph) -> tuple[RunState, RunConfig]:
    content = config(*(task(name, *(Depend(one, ()) for one in parents)) for name, parents in graph.items()))
    event = run_created(run_config="c")
    return created("r", event, content, datetime.now(UTC), run_task_id), content


@given(graphs(), st.data())
def test_it_is_what_a_slow_reference_finds(graph: Graph, data: st.DataObject) -> None:
    run, content = run_of(graph)
    tasks = {
        name: replace(
            known,
            archive_steps=data.draw(st.sampled_from([(), (0,)])),
            attempt=data.draw(st.sampled_from([1, 1, 2])),
            kept=data.draw(st.booleans()),
        )
        for name, known in run.tasks.items()
    }
    run = replace(run, tasks={name: tasks[name] for name in data.draw(st.permutations(sorted(tasks)))})
    found = WorkspaceArchives(run, content)
    for name in data.draw(st.permutations(sorted(graph))):
        assert list(found.of(name).items()) == list(reference(run, content, name).items())


def test_every_dependency_is_looked_at_once() -> None:
    """500 tasks in 5 levels, each depending on the whole level before it, that all hand something over."""
    wide = range(100)
    graph = {f"{level}-{n}": [f"{level - 1}-{k}" for k in wide if level] for level in range(5) for n in wide}
    run, content = run_of(graph)
    run = replace(run, tasks={name: replace(known, archive_steps=(0,), kept=True) for name, known in run.tasks.items()})
    looks = 0

    class Counted(dict[str, object]):
        def __getitem__(self, name: str) -> object:
            nonlocal looks
            looks += 1
            return super().__getitem__(name)

    found = WorkspaceArchives(run, replace(content, tasks=Counted(content.tasks)))
    assert {len(found.of(name)) for name in graph} == {0, 100, 200, 300, 400}
    assert looks <= 2 * len(graph)

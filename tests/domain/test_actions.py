"""Which actions a run allows in each state, and the errors for the others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runstream.domain.actions import (
    NotAllowed,
    decide_annotate,
    decide_approve,
    decide_approve_ahead,
    decide_cancel,
    decide_pause,
    decide_resume,
    decide_stop,
)
from runstream.domain.advance import advance, tasks_to_run
from runstream.domain.executor import (
    Demand,
    ExecutorState,
    Lack,
    Offer,
    RegisteredExecutor,
    choose_executor,
    demand_of,
    evolve,
    is_full,
    needed,
    unfit,
)
from runstream.domain.run import RunTaskStatus, created
from runstream.domain.run import evolve as evolve_run
from runstream.events.executor import ExecutorDeleted, ExecutorLost
from runstream.events.run import (
    RunCancelled,
    RunFinished,
    RunNumbered,
    RunPaused,
    RunResumed,
    RunStarted,
    RunStopRequested,
    RunTaskAnnotated,
    RunTaskApprovalRequested,
    RunTaskApproved,
)
from runstream.events.run_config import Container, Depend, Resources, Runtime
from runstream.run_states import RunPhase
from tests.factories import executor_registered, run_created

from .test_advance import run_of
from .world import config, offer, task

AT = datetime(2026, 1, 1, tzinfo=UTC)
CONTENT = config(task("a", needs_approval=True))


def test_a_running_run_is_stopped_once() -> None:
    run = evolve_run(run_of(CONTENT), RunTaskApprovalRequested("a"), AT)
    assert decide_stop(run) == (RunStopRequested(""),)
    stopping = evolve_run(run, RunStopRequested(""), AT)
    assert decide_stop(stopping) == ()
    assert not stopping.tasks["a"].waiting_approval


def test_a_queued_run_is_cancelled_and_nothing_else() -> None:
    queued = run_of(CONTENT, phase=RunPhase.QUEUED)
    assert decide_cancel(queued) == (RunCancelled(""),)
    with pytest.raises(NotAllowed, match="queued and cannot be stopped") as refused:
        decide_stop(queued)
    assert refused.value.allowed == "a run that is queued can be cancelled or paused"
    with pytest.raises(NotAllowed, match="running and cannot be cancelled"):
        decide_cancel(run_of(CONTENT))
    cancelled = evolve_run(queued, RunCancelled(""), AT)
    assert cancelled.end_time == AT
    with pytest.raises(NotAllowed) as refused:
        decide_cancel(cancelled)
    assert "has ended" in refused.value.allowed


@pytest.mark.parametrize("phase", [RunPhase.QUEUED, RunPhase.RUNNING])
def test_a_run_is_paused_once_and_resumed(phase: RunPhase) -> None:
    run = run_of(CONTENT, phase=phase)
    with pytest.raises(NotAllowed, match=f"is {phase} and cannot be resumed") as refused:
        decide_resume(run)
    assert refused.value.code == "runNotPaused"
    assert refused.value.allowed.endswith("or paused")
    assert decide_pause(run) == (RunPaused(),)
    paused = evolve_run(run, RunPaused(), AT)
    assert decide_pause(paused) == ()
    assert decide_resume(paused) == (RunResumed(),)
    other = decide_cancel if phase is RunPhase.RUNNING else decide_stop
    with pytest.raises(NotAllowed, match=f"is {phase}, paused, and cannot be") as refused:
        other(paused)
    assert refused.value.allowed.startswith(f"a run that is {phase}, paused can be")
    assert refused.value.allowed.endswith("or resumed")


def test_a_run_that_ends_is_neither_paused_nor_resumed() -> None:
    paused = evolve_run(run_of(CONTENT), RunPaused(), AT)
    later = AT + timedelta(seconds=1)
    stopping = evolve_run(paused, RunStopRequested(""), later)
    assert (stopping.paused_at, stopping.paused_for) == (None, 1_000_000_000)
    with pytest.raises(NotAllowed, match="being stopped and cannot be paused") as refused:
        decide_pause(stopping)
    assert refused.value.allowed == "it ends when its tasks have ended"
    for event in (RunFinished(), RunCancelled("")):
        ended = evolve_run(paused, event, later)
        assert ended.paused_at is None
        for decide in (decide_pause, decide_resume):
            with pytest.raises(NotAllowed, match="cannot be"):
                decide(ended)


def test_a_paused_run_assigns_no_task() -> None:
    content = config(task("a"))
    paused = evolve_run(run_of(content), RunPaused(), AT)
    assert tasks_to_run(paused, content, AT) == []
    assert tasks_to_run(evolve_run(paused, RunResumed(), AT), content, AT) == ["a"]


def test_a_waiting_task_is_approved_once_and_remembers_by_whom() -> None:
    run = run_of(CONTENT)
    with pytest.raises(NotAllowed, match="does not wait for approval"):
        decide_approve(run, run.tasks["a"])
    run = evolve_run(run, RunTaskApprovalRequested("a"), AT)
    assert decide_approve(run, run.tasks["a"]) == (RunTaskApproved("a"),)
    run = evolve_run(run, RunTaskApproved("a"), AT, "user:ann")
    assert (run.tasks["a"].approvers, run.tasks["a"].approved_at) == (("user:ann",), AT)
    with pytest.raises(NotAllowed, match="approved already"):
        decide_approve(run, run.tasks["a"])


def test_a_task_approved_ahead_does_not_wait_later() -> None:
    content = config(task("a"), task("b", Depend("a", ("on_success",)), needs_approval=True))
    run = run_of(content)
    assert decide_approve_ahead(run.tasks["b"], "user:ann") == (RunTaskApproved("b"),)
    run = evolve_run(run, RunTaskApproved("b"), AT, "user:ann")
    waiting = run.tasks["b"]
    assert (waiting.approved, waiting.approvers, waiting.approved_at) == (False, ("user:ann",), None)
    with pytest.raises(NotAllowed, match="already"):
        decide_approve_ahead(run.tasks["b"], "user:ann")
    assert decide_approve_ahead(run.tasks["b"], "user:bob") == (RunTaskApproved("b"),)
    done = replace(run, tasks={**run.tasks, "a": replace(run.tasks["a"], status=RunTaskStatus.SUCCESS)})
    later = AT + timedelta(seconds=1)
    run, events = advance(done, content, later)
    assert events == [RunTaskApprovalRequested("b")]
    assert (run.tasks["b"].approved, run.tasks["b"].waiting_approval, run.tasks["b"].approved_at) == (
        True,
        False,
        later,
    )
    assert tasks_to_run(run, content, later) == ["b"]


def test_annotations_are_noted_once_at_any_time() -> None:
    run = run_of(CONTENT, phase=RunPhase.FINISHED)
    assert decide_annotate(run.tasks["a"], {"ticket": "7"}) == (RunTaskAnnotated("a", {"ticket": "7"}),)
    run = evolve_run(run, RunTaskAnnotated("a", {"ticket": "7"}), AT)
    assert decide_annotate(run.tasks["a"], {"ticket": "7"}) == ()
    assert decide_annotate(run.tasks["a"], {}) == (RunTaskAnnotated("a", {}),)


def test_what_has_ended_can_be_restarted_unless_it_never_was_a_run() -> None:
    for phase, word in ((RunPhase.FINISHED, "restarted"), (RunPhase.SETUP_ERROR, "create a new run")):
        with pytest.raises(NotAllowed) as refused:
            decide_stop(run_of(CONTENT, phase=phase))
        assert word in refused.value.allowed


def test_creation_number_and_start() -> None:
    event = run_created(run_config="hash", annotations={"by": "me"}, setup_errors=("no such file",))
    failed = created("r", event, CONTENT, AT, lambda _run, name: name)
    assert (failed.phase, failed.tasks, failed.finished) == (RunPhase.SETUP_ERROR, {}, True)
    skipped = created("r", replace(event, setup_errors=()), config(task("a", skip=True)), AT, lambda _run, name: name)
    assert skipped.tasks["a"].status is RunTaskStatus.SKIPPED
    numbered = evolve_run(evolve_run(skipped, RunNumbered(3, 7), AT), RunStarted(), AT)
    assert (numbered.counter, numbered.sequence, numbered.numbered) == (3, 7, True)
    assert evolve_run(numbered, event, AT) == numbered


def test_an_executor_comes_and_goes() -> None:
    registered = executor_registered()
    assert evolve(None, "e", ExecutorLost()) is None
    assert evolve(None, "e", ExecutorDeleted()) is None
    executor = evolve(None, "e", registered)
    assert executor == RegisteredExecutor("e", registered, ExecutorState.REGISTERED)
    for event, state in ((ExecutorLost(), ExecutorState.LOST), (ExecutorDeleted(), ExecutorState.DELETED)):
        gone = evolve(executor, "e", event)
        assert gone is not None
        assert gone.state is state


def test_the_executor_with_the_most_room_that_fits_is_chosen() -> None:
    offers = {name: offer(name, limit) for name, limit in (("a", 2), ("b", 4), ("c", 0))}
    host = demand_of(task("t").runtime)
    assert choose_executor(offers, {"a": 1, "b": 1, "c": 900}, host) == "b"
    assert choose_executor(offers, {"a": 2, "b": 4}, host) == "c"
    assert choose_executor({}, {}, host) is None


HOST = Demand("host", "", False, ())


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3), min_size=1),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 4)),
    st.lists(st.sampled_from("abcd"), max_size=5),
)
def test_a_task_is_tried_again_where_the_fewest_attempts_failed(
    limits: dict[str, int], loads: dict[str, int], failed_at: list[str]
) -> None:
    offers = {name: offer(name, limit) for name, limit in limits.items()}
    fitting = {name: one for name, one in offers.items() if not is_full(one, loads.get(name, 0))}
    chosen = choose_executor(offers, loads, HOST, failed_at)
    if chosen is None:
        assert not fitting
        return
    fewest = min(map(failed_at.count, fitting))
    best = {name: one for name, one in fitting.items() if failed_at.count(name) == fewest}
    assert chosen == choose_executor(best, loads, HOST)


def test_why_an_executor_does_not_fit() -> None:
    pod = Runtime("pod", "arm64", (Container("image", {}, "", True, "", ()),))
    reasons = unfit(Offer("e", ("amd64",), {}, False, False, False, 1, {}), 1, demand_of(pod))
    assert [lack.requirement for lack in reasons] == ["pod", "privileged", "arch", "limit"]
    refused = unfit(Offer("e", (), {}, False, False, True, 0, {}), 5, demand_of(task("t").runtime))
    assert refused == [Lack("host", "does not allow tasks on its host")]
    lacking = Offer("e", (), {}, False, False, True, 0, {}, refused="no user namespaces")
    assert unfit(lacking, 0, demand_of(task("t").runtime)) == [
        Lack("host", "refuses tasks on its host: no user namespaces")
    ]


def test_a_container_needs_the_processors_and_the_memory_of_its_limits() -> None:
    small = Container("image", {}, "", False, "", ())
    large = Container("image", {}, "", False, "", (), Resources(2500, 3 << 30))
    pod = Runtime("pod", "", (small, large))
    machine = replace(offer("e"), allow_pod=True, engine_cpu=2000, engine_memory=2 << 30)
    assert unfit(machine, 0, demand_of(pod)) == [
        Lack("cpu", "has only 2 CPUs for a container"),
        Lack("memory", "has only 2 GiB of memory for a container"),
    ]
    assert needed(pod) == "containers (image, image), 2.5 CPUs, 3 GiB of memory"
    assert unfit(replace(machine, engine_cpu=1000), 0, demand_of(pod))[0].sentence == "has only 1 CPU for a container"
    for fitting in (replace(machine, engine_cpu=2500, engine_memory=3 << 30), replace(offer("e"), allow_pod=True)):
        assert unfit(fitting, 0, demand_of(pod)) == []
    assert unfit(machine, 0, demand_of(Runtime("pod", "", (small,)))) == []


def test_an_executor_needs_the_labels_that_a_task_asks_for() -> None:
    wanted = demand_of(Runtime("host", "", (), {"gpu": "yes", "rack": "b2"}))
    assert unfit(replace(offer("e"), labels={"gpu": "yes", "rack": "b2", "disk": "fast"}), 0, wanted) == []
    assert [lack.sentence for lack in unfit(replace(offer("e"), labels={"rack": "a1"}), 0, wanted)] == [
        "has no label gpu",
        "has the label rack with the value 'a1', not 'b2'",
    ]

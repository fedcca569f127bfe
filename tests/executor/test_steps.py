"""What steps do, with real processes: commands, their environment, their exit status, their logs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runstream.events.executor_task import ExecutorTaskPhase
from runstream.events.run_config import Container, Runtime, Step
from runstream.objects import paths
from tests.executor.rig import config_of, rig, run_step, task_of


def by_shell(program: str, command: str) -> Step:
    return Step("run", "run", command, None, "", program, False)


SUCCESS, FAILED = ExecutorTaskPhase.SUCCESS, ExecutorTaskPhase.FAILED


async def test_steps_run_in_order_and_their_logs_are_objects(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        done = await it.run(run_step("echo one; echo two >&2"), run_step("cat file || pwd"))
        assert done.task.phase is SUCCESS
        assert [(step.phase, step.exit_status) for step in done.task.steps] == [(SUCCESS, 0), (SUCCESS, 0)]
        assert await done.log(0) == "one\ntwo\n"
        assert (await done.log(1)).endswith(f"{it.task_folder(done)}/home/project\n")
        assert (await done.log(None)).startswith("Preparing the task on this machine.\n")
        assert await it.is_stored(paths.log_reference(done.run_task_id, done.task.run_id))
        for at in (done.task.start_time, done.task.end_time, done.task.steps[1].end_time):
            assert at is not None


async def test_what_happens_while_a_report_is_on_its_way_shares_the_next_commit(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        done = await it.run(*[run_step("true")] * 4)
        assert 3 <= await done.commits() <= 7  # assigned, started, the end; between them at most one for each step


async def test_the_first_failing_step_ends_the_task(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        done = await it.run(run_step("exit 3"), run_step("echo never"))
        assert done.task.phase is FAILED
        assert (done.task.steps[0].phase, done.task.steps[0].exit_status) == (FAILED, 3)
        assert done.task.steps[1].phase is ExecutorTaskPhase.NOT_STARTED
        assert not await it.is_stored(paths.step_log(done.run_task_id, 1))


@pytest.mark.parametrize(
    ("step", "status", "said"),
    [
        (run_step("false; echo on"), 1, ""),
        (run_step("kill -9 $$"), 137, ""),
        (
            by_shell("no-such-shell", "true"),
            1,
            "no-such-shell cannot be executed: there is no such program\n",
        ),
        (run_step("true", working_dir="~/nowhere"), 1, "the working directory ~/nowhere does not exist\n"),
        (by_shell(f"{sys.executable} -I", "print(6 * 7)"), 0, "42\n"),
        (run_step('echo "$A:$B:$HOME" | sed "s|$HOME|home|"', environment={"A": "step"}), 0, "step:task:home\n"),
        (run_step("pwd", working_dir="/"), 0, "/\n"),
    ],
)
async def test_exit_status_and_output(tmp_path: Path, step: Step, status: int, said: str) -> None:
    async with rig(tmp_path) as it:
        done = await it.run(step, environment={"A": "task", "B": "task"})
        assert done.task.steps[0].exit_status == status
        assert done.task.phase is (FAILED if status else SUCCESS)
        assert await done.log(0) == said


async def test_environment_layers_and_twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSTREAM_TOKEN", "secret of the executor")
    monkeypatch.setenv("SOMETHING", "of the executor")
    task = task_of("task", run_step("env | sort"), environment={"CI": "task", "AGOLA_X": "x"})
    async with rig(tmp_path) as it:
        done = await it.assign(task, config=config_of(task, static={"CI": "true", "AGOLA_GIT_REF": "refs/heads/main"}))
        await done.settled()
        lines = (await done.log(0)).splitlines()
        for expected in ("CI=true", "AGOLA_RUN_COUNTER=7", "RUNSTREAM_RUN_COUNTER=7", "AGOLA_X=x", "RUNSTREAM_X=x"):
            assert expected in lines
        assert "RUNSTREAM_GIT_REF=refs/heads/main" in lines
        assert "secret" not in await done.log(0)
        assert not any(line.startswith("SOMETHING") for line in lines)


async def test_a_tty_is_one_stream_with_its_line_ends(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        done = await it.run(run_step("test -t 0 && test -t 1 && test -t 2 && echo tty; echo err >&2", tty=True))
        assert await done.log(0) == "tty\nerr\n"
        done = await it.run(run_step("test -t 1 || echo pipe"))
        assert await done.log(0) == "pipe\n"


async def test_much_output_is_complete(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        for tty in (True, False):
            done = await it.run(run_step("seq 1 100000", tty=tty))
            assert (await done.log(0)).split() == [str(number) for number in range(1, 100001)]


async def test_what_a_step_leaves_running_lives_until_the_task_ends(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        server = (
            "sh -c 'mkfifo ../pipe; cat ../pipe; echo $$ > ../served' & while ! test -p ../pipe; do :; done; echo up"
        )
        client = "echo hello > ../pipe; while ! test -s ../served; do :; done; echo served"
        done = await it.run(run_step(server), run_step(client), run_step("sleep 1000 & echo left"))
        assert done.task.phase is SUCCESS
        assert [await done.log(step) for step in (1, 2)] == ["served\n", "left\n"]
    assert list((tmp_path / "executor" / "tasks").iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"runtime": Runtime("pod", "", (Container("busybox", {}, "", False, "", ()),))}, "no container engine"),
        ({"user": "alice"}, "user 'alice' cannot be given"),
        ({"working_dir": "~other/x"}, "the home of another user is not available"),
    ],
)
async def test_a_setup_that_cannot_be_says_why(tmp_path: Path, fields: dict[str, object], said: str) -> None:
    async with rig(tmp_path) as it:
        done = await it.run(run_step("true"), **fields)
        assert done.task.phase is FAILED
        assert done.task.setup_step.phase is FAILED
        assert done.task.setup_step.end_time is not None
        assert said in done.task.fail_error
        assert said in await done.log(None)


async def test_the_log_of_a_step_that_cannot_start_is_empty_but_there(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        done = await it.run(run_step("true"))
        assert await done.log(0) == ""


async def test_what_is_reported_carries_the_trace_of_the_assignment(tmp_path: Path) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    async with rig(tmp_path) as it:
        task = await it.assign(task_of("task", run_step("true")), trace=trace)
        await task.settled()
        assert {stored.commit.trace for stored in task.history} == {trace}
        assert {stored.commit.actor for stored in task.history} == {f"executor:{it.executor_id}"}

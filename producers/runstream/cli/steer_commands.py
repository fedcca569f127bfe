"""`runstream run`: stop, cancel, pause, resume, approve. The service refuses what is not possible now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from runstream.cli.connection import us_command
from runstream.cli.finding import RunName, find_run, find_task, run_name
from runstream.cli.output import say
from runstream.cli.running import with_client
from runstream.client import Client, Run
from runstream.client.runs import Runs
from runstream.counting import counted


def stop_run(run: RunName, /) -> int:
    """Stop a running run."""
    return _steer(run, Runs.stop, _stopping)


def cancel_run(run: RunName, /) -> int:
    """Withdraw a queued run."""
    return _steer(run, Runs.cancel, lambda found: f"run {run_name(found)} is cancelled")


def pause_run(run: RunName, /) -> int:
    """Pause a run: start no further tasks until it is resumed. Running tasks continue."""
    return _steer(run, Runs.pause, _paused)


def resume_run(run: RunName, /) -> int:
    """Resume a paused run."""
    return _steer(run, Runs.resume, lambda found: f"run {run_name(found)} is resumed")


def approve_task(run: RunName, task: str, /) -> int:
    """Approve a task that waits for it.

    Parameters
    ----------
    task
        The task's name or id.
    """

    async def work(client: Client) -> None:
        found = await find_run(client, run)
        wanted = find_task(found, task)
        await client.runs.approve(found.id, wanted.id)
        say(f"task {wanted.name} of run {run_name(found)} is approved")

    return with_client(work)


def _steer(run: str, act: Callable[[Runs, str], Awaitable[None]], outcome: Callable[[Run], str]) -> int:
    """Act on the run, then print the outcome."""

    async def work(client: Client) -> None:
        found = await find_run(client, run)
        await act(client.runs, found.id)
        say(outcome(found))

    return with_client(work)


def _stopping(run: Run) -> str:
    left = sum(task.status == "running" for task in run.tasks.values())
    waiting = f" (waiting for {counted(left, 'task')})" if left else ""
    return f"stopping run {run_name(run)}{waiting}"


def _paused(run: Run) -> str:
    name = run_name(run)
    return f"run {name} is paused: `{us_command()} run resume {name}` resumes it"

"""`runstream run`: stop, cancel, pause, resume, approve. What is not possible now is told by the service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from runstream.cli.finding import RunName, find_run, find_task
from runstream.cli.output import say
from runstream.cli.running import with_client
from runstream.client import Client
from runstream.client.runs import Runs


def stop_run(run: RunName, /) -> int:
    """Ask a running run to stop."""
    return _steer(run, Runs.stop, "run {id} was asked to stop: it ends when its tasks have ended")


def cancel_run(run: RunName, /) -> int:
    """Withdraw a queued run."""
    return _steer(run, Runs.cancel, "run {id} is cancelled")


def pause_run(run: RunName, /) -> int:
    """Let a run start nothing more until it is resumed; what runs goes on to its end."""
    return _steer(run, Runs.pause, "run {id} is paused: `runstream run resume {id}` lets it go on")


def resume_run(run: RunName, /) -> int:
    """Let a paused run go on."""
    return _steer(run, Runs.resume, "run {id} goes on")


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
        say(f"task {wanted.name} of run {found.id} is approved")

    return with_client(work)


def _steer(run: str, act: Callable[[Runs, str], Awaitable[None]], said: str) -> int:
    """Do it to the run, and say that it is done."""

    async def work(client: Client) -> None:
        found = await find_run(client, run)
        await act(client.runs, found.id)
        say(said.format(id=found.id))

    return with_client(work)

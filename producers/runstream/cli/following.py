"""Watching a run until it ends: its events wake us, what is shown is read anew."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from runstream.cli.screen import Screen
from runstream.cli.step_output import StepOutput
from runstream.client import Client, ClientError, Commit, Run

_BUFFERED_EVENTS = 256


async def follow_run(client: Client, run: Run, screen: Screen) -> Run:
    """Show the run until it is finished and all its logs were shown; how it ended. Raises ClientError."""
    screen.show(run)
    try:
        async with asyncio.TaskGroup() as group:
            output = StepOutput(client, group, screen.log)
            commits: asyncio.Queue[Commit] = asyncio.Queue(_BUFFERED_EVENTS)
            tail = group.create_task(_read(client, run.id, commits))
            while not run.finished:
                commit = await commits.get()
                while not commits.empty():
                    commit = commits.get_nowait()
                run = await client.runs.get(run.id, at_least=commit.position)
                output.follow(run)
                if not run.finished:
                    screen.show(run)
            tail.cancel()
            await output.finish()
    except* ClientError as errors:
        raise _first(errors) from errors
    screen.show(run)
    return run


async def _read(client: Client, run_id: str, commits: asyncio.Queue[Commit]) -> None:
    async with aclosing(client.events.tail(run=run_id)) as tail:
        async for commit in tail:
            await commits.put(commit)


def _first(errors: BaseExceptionGroup[ClientError]) -> ClientError:
    for error in errors.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group has at least one error")

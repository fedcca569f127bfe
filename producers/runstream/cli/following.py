"""Watching a run until it ends: its events wake us, what is shown is read anew."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing

from runstream.cli.graph import waits
from runstream.cli.screen import Screen
from runstream.cli.step_output import StepOutput
from runstream.client import Client, ClientError, Commit, Run

_BUFFERED_EVENTS = 256
_FIRST_WHY_SECONDS = 0.5
_WHY_SECONDS = 2.0
"""How often the service is asked why tasks wait that depend on nothing any more."""


async def follow_run(client: Client, run: Run, screen: Screen) -> Run:
    """Show the run until it is finished and all its logs were shown; return how it ended. Raises ClientError."""
    try:
        async with asyncio.TaskGroup() as group:
            run = await _Following(client, run, screen, group).follow()
    except* Exception as errors:
        raise _first(errors) from errors
    return run


class _Following:
    """The reading side of a run that is watched."""

    def __init__(self, client: Client, run: Run, screen: Screen, group: asyncio.TaskGroup) -> None:
        self._client = client
        self._run = run
        self._screen = screen
        self._group = group
        self._output = StepOutput(client, group, screen)

    async def follow(self) -> Run:
        """Return the run as it ended."""
        commits: asyncio.Queue[Commit] = asyncio.Queue(_BUFFERED_EVENTS)
        drawing = self._group.create_task(self._screen.draw())
        reading = [self._group.create_task(self._read(commits)), self._group.create_task(self._explain())]
        self._screen.show(self._run)
        while not self._run.finished:
            commit = await commits.get()
            while not commits.empty():
                commit = commits.get_nowait()
            self._run = await self._client.runs.get(self._run.id, at_least=commit.position)
            self._screen.show(self._run)
            self._output.follow(self._run)
        for reader in reading:
            reader.cancel()
        await self._output.finish()
        drawing.cancel()
        return self._run

    async def _read(self, commits: asyncio.Queue[Commit]) -> None:
        async with aclosing(self._client.events.tail(run=self._run.id)) as tail:
            async for commit in tail:
                await commits.put(commit)

    async def _explain(self) -> None:
        """Ask why it waits while it does; a service that cannot say so now is asked again."""
        await asyncio.sleep(_FIRST_WHY_SECONDS)
        while True:
            if waits(self._run):
                with contextlib.suppress(ClientError):
                    reasons = (await self._client.runs.why(self._run.id)).reasons
                    self._screen.explain(reasons)
                    self._output.explain(self._run, reasons)
            await asyncio.sleep(_WHY_SECONDS)


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    for error in errors.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group has at least one error")

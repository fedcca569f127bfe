"""Follow runs until they end, and print how they ended and what to type next."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import aclosing

from msgspec.structs import replace

from runstream.cli.connection import program_command, with_program
from runstream.cli.finding import run_name
from runstream.cli.graph import (
    by_level,
    by_start,
    detail,
    failed_steps,
    is_waiting,
    log_command,
    outcome,
    title,
    warnings,
)
from runstream.cli.output import STYLES, console, display_word, duration, say
from runstream.cli.screen import Screen, screen
from runstream.cli.step_output import StepOutput
from runstream.client import Client, ClientError, Commit, Run, Task
from runstream.errors import first_of
from runstream.lifecycle import StrictTaskGroup

_NUMBER_SECONDS = 2.0
SUCCEEDED, FAILED, STOPPED = 0, 1, 3
_BUFFERED_EVENTS = 256
_FIRST_WHY_SECONDS = 0.5
_WHY_SECONDS = 2.0
"""Interval of asking the service why tasks wait."""


def exit_code(run: Run) -> int:
    """Return 0 for success, 3 for a run that was stopped or cancelled, 1 for everything else."""
    match outcome(run):
        case "success":
            return SUCCEEDED
        case "stopped" | "cancelled":
            return STOPPED
    return FAILED


async def watch_runs(client: Client, runs: Sequence[Run]) -> int:
    """Follow runs, one after the other, until all have ended; return 1 if one failed, else 3 if one was stopped."""
    if not runs:
        say("no run of the file is for this branch, tag or ref: nothing was created")
        return SUCCEEDED
    ended: list[Run] = []
    try:
        for run in runs:
            with screen() as shown:
                ended.append(await follow_run(client, run, shown))
            print_end(ended[-1])
    except asyncio.CancelledError:
        _print_detached(runs[min(len(ended), len(runs) - 1)])
        raise
    codes = {exit_code(run) for run in ended}
    return FAILED if FAILED in codes else max(codes)


async def print_created(client: Client, runs: Sequence[Run]) -> None:
    """Print the created runs, and what to type next."""
    runs = [await _numbered(client, run) for run in runs]
    for run in runs:
        say(f"{title(run)} is {display_word(run.phase)}  {run_name(run)}")
        for error in run.setup_errors:
            say(f"  setup error: {error}")
    for run in runs[:1]:
        for line in commands_for(run):
            say(line)


async def _numbered(client: Client, run: Run) -> Run:
    """Return the run with its number, which the scheduler assigns soon after the creation; without it if it is late.

    The number is read from the log, because the projection may be behind.
    """
    with contextlib.suppress(TimeoutError, ClientError):  # the run is created, whatever happens here
        async with asyncio.timeout(_NUMBER_SECONDS), aclosing(client.events.tail(run=run.id)) as tail:
            while not run.counter and run.phase != "setuperror":
                commit = await anext(tail)
                for event in commit.events:
                    if event.type == "RunNumbered" and isinstance(number := event.data.get("counter"), int):
                        run = replace(run, counter=number)
                        run = await client.runs.get(run.id, at_least=commit.position)
    return run


async def until_listed(client: Client) -> None:
    """Wait, bounded, until lists have the runs that this client created: the next command finds them as `latest`."""
    with contextlib.suppress(ClientError):  # the runs are created, whatever happens here
        await client.runs.page(limit=1)  # the client asks for what it wrote


def commands_for(run: Run) -> list[str]:
    """Return the commands to type next for a run."""
    program = program_command()
    return [f"  look    {program} run get {run_name(run)}", f"  follow  {program} run follow {run_name(run)}"]


def print_end(run: Run) -> None:
    """Print how a run ended, what failed, and what to type next."""
    word, program = outcome(run), program_command()
    took = f" after {duration(run.start_time, run.end_time)}" if run.start_time and run.end_time else ""
    console().print(f"\n{title(run)}: {display_word(word)}{took}", style=STYLES.get(word, ""), markup=False)
    for error in run.setup_errors:
        say(f"  setup error: {error}")
    for warning in warnings(run):
        say(f"  {warning}")
    for task in by_level(run):
        if task.status == "failed":
            reason = f": {detail(task)}" if detail(task) else ""
            say(f"  {task.name} failed{reason}")
            say(f"    log   {log_command(run, task.name, *failed_steps(task)[:1])}")
    say(f"  look    {program} run get {run_name(run)}")
    if word == "success" and (last := _last_that_ran(run)) is not None:
        say(f"  log     {log_command(run, last.name)}")


def _last_that_ran(run: Run) -> Task | None:
    """Return the task that started last and has a log; None where no step began."""
    begun = [task for task in by_start(run) if any(step.start_time is not None for step in task.steps)]
    return begun[-1] if begun else None


def _print_detached(run: Run) -> None:
    program = program_command()
    say(f"\ndetached: {title(run)} continues")
    say(f"  follow  {program} run follow {run_name(run)}")
    say(f"  stop    {program} run stop {run_name(run)}   (or `run cancel` while it is queued)")


async def follow_run(client: Client, run: Run, screen: Screen) -> Run:
    """Show the run and its logs until both end; return the ended run. Raises ClientError."""
    try:
        async with StrictTaskGroup() as group:
            run = await _RunWatcher(client, run, screen, group).follow()
    except* Exception as errors:
        raise first_of(errors) from errors
    return run


class _RunWatcher:
    """A reader of a run's events, which wake it to read the run again and to update the screen."""

    def __init__(self, client: Client, run: Run, screen: Screen, group: StrictTaskGroup) -> None:
        self._client = client
        self._run = run
        self._screen = screen
        self._group = group
        self._output = StepOutput(client, group, screen)

    async def follow(self) -> Run:
        """Follow the run to its end; return it."""
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
        """Ask why the run waits, at intervals while it does; ignore errors of the service until the next time."""
        await asyncio.sleep(_FIRST_WHY_SECONDS)
        while True:
            if is_waiting(self._run):
                with contextlib.suppress(ClientError):
                    found = await self._client.runs.why(self._run.id)
                    reasons = tuple(replace(one, message=with_program(one.message)) for one in found.reasons)
                    self._screen.explain(reasons)
                    self._output.explain(self._run, reasons)
            await asyncio.sleep(_WHY_SECONDS)

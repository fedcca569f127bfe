"""`runstream run`: list, get, follow."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.text import Text

from runstream.cli.connection import us_command
from runstream.cli.finding import RunName, find_run, point, project_of, run_name
from runstream.cli.graph import RunGraph, outcome
from runstream.cli.log_choice import failed_steps, in_order
from runstream.cli.output import Output, ago, console, counted, lasted, moment, print_json, print_table, say, styled
from runstream.cli.restart_command import what_again
from runstream.cli.running import with_client
from runstream.cli.table import Cell, Column, print_rows
from runstream.cli.terminal_text import printable
from runstream.cli.watching import watch_runs
from runstream.client import Attempt, Client, ClientError, Run, RunSummary, Step, Task
from runstream.errors import BadRequestError

_SHOWN_FAILURES = 3
_SHOWN_LINES = 10
Phase = Literal["setuperror", "queued", "cancelled", "running", "finished"]
Result = Literal["unknown", "stopped", "success", "failed"]


_COLUMNS = (
    Column("RUN"),
    Column("NAME", wraps=True),
    Column("STATE"),
    Column("GROUP", drop=3, wraps=True),
    Column("CREATED", drop=1),
    Column("TOOK", drop=2),
    Column("AT", drop=4),
    Column("ID", drop=5),
)


def list_runs(
    *,
    group: Annotated[list[str] | None, Parameter(negative="")] = None,
    phase: Annotated[list[Phase] | None, Parameter(name=["--phase", "-s"], negative="")] = None,
    result: Annotated[list[Result] | None, Parameter(negative="")] = None,
    limit: int = 25,
    start: int = 0,
    cursor: str = "",
    output: Output = "table",
) -> int:
    """List runs, the latest first.

    Parameters
    ----------
    group
        Only this group and those below it; repeatable.
    phase
        Only runs in this phase; repeatable.
    result
        Only runs with this result; repeatable.
    limit
        How many, at most 40.
    start
        The sequence of the last run of the page before.
    cursor
        The next page of a list: what the page before says. It goes with --limit and --output alone.
    output
        How to print them.
    """

    if cursor and (group or phase or result or start):
        raise BadRequestError(
            "--cursor goes with no other choice of runs",
            code="invalidCursor",
            hint="the cursor says which runs it is of",
        )

    async def work(client: Client) -> None:
        page = await client.runs.page(
            groups=group or (), phases=phase or (), results=result or (), limit=limit, start=start, cursor=cursor
        )
        if output == "json":
            print_json(page)
            return
        chosen = bool(group or phase or result)
        print_table(_COLUMNS, map(_row, page.runs), "no run matches" if chosen else "there are no runs")
        if page.cursor:
            say(f"there are more: {us_command()} run list --limit {limit} --cursor {page.cursor}")

    return with_client(work)


def get_run(run: RunName, /, *, at: str = "", output: Output = "table") -> int:
    """Show a run: its tasks, their steps, how they ended.

    Parameters
    ----------
    at
        As it was: a time such as 2026-11-23T09:30 (of this machine's zone unless it has one), or a position of the
        log such as 1:812,40,0,97 or, of one commit, 1/0/812.
    output
        How to print it.
    """

    async def work(client: Client) -> None:
        found = await find_run(client, run)
        if at:
            found = await client.runs.get(found.id, at=point(at))
        if output == "json":
            print_json(found)
        else:
            _print_run(found)
            if not at:
                await _print_failures(client, found)

    return with_client(work)


def follow_run(run: RunName, /) -> int:
    """Watch a run until it ends; exit code 0 for success, 1 for failure, 3 when it was stopped or cancelled."""

    async def work(client: Client) -> int:
        return await watch_runs(client, [await find_run(client, run)])

    return with_client(work)


def _row(run: RunSummary) -> tuple[Cell, ...]:
    return (
        run_name(run),
        run.name,
        styled(outcome(run)),
        run.group.removeprefix(project_of(run.group)).lstrip("/"),
        ago(run.enqueue_time),
        lasted(run.start_time, run.end_time),
        moment(run.enqueue_time),
        run.id,
    )


_STEP_COLUMNS = (
    Column("TASK", wraps=True),
    Column("STEP"),
    Column("NAME", wraps=True),
    Column("PHASE"),
    Column("EXIT"),
    Column("TOOK", drop=1),
)


def _print_run(run: Run) -> None:
    out = console()
    out.print(RunGraph(run))
    for error in run.setup_errors:
        say(f"setup error: {error}")
    steps: list[tuple[Cell, ...]] = []
    for task in sorted(run.tasks.values(), key=lambda task: (task.level, task.name)):
        attempts: tuple[Attempt | Task, ...] = (*task.attempts, task)
        for attempt in attempts:
            name = f"{task.name} ({attempt.attempt})" if len(attempts) > 1 else task.name
            for index, step in [("setup", attempt.setup_step), *enumerate(attempt.steps)]:
                steps.append((name, str(index), *_step_cells(step)))
    if steps:
        say("")
        print_rows(out, _STEP_COLUMNS, steps)
    reason = "it took longer than its run_timeout_interval" if run.timedout else run.reason
    facts = {
        "run": run_name(run),
        "id": run.id,
        "group": run.group,
        "created": moment(run.enqueue_time),
        "reason": reason,
    }
    if run.restart is not None:
        facts["restarts"] = f"{run.restart.run_id} ({what_again(run.restart)})"
    facts |= {"priority": str(run.priority or "")} | run.annotations
    width = max(map(len, facts))
    say("\n" + "\n".join(f"{name:<{width}}  {value}" for name, value in facts.items() if value))


async def _print_failures(client: Client, run: Run) -> None:
    """Print the last lines of what failed, and the command for the whole log."""
    failed = [task for task in in_order(run) if task.status == "failed" and not task.kept]
    for task in failed[:_SHOWN_FAILURES]:
        for step in failed_steps(task)[:1]:
            which = "setup" if step is None else f"step {step}"
            say(f"\nlast lines of {task.name}, {which}:")
            try:
                text = await client.logs.get(run.id, task.id, step, tail=_SHOWN_LINES)
            except ClientError as error:
                say(f"  ({error.message})")
            else:
                for line in text.decode(errors="replace").splitlines():
                    say(f"  {printable(Text.from_ansi(line).plain)}")
            option = "--setup" if step is None else f"--step {step}"
            say(f"log: {us_command()} log get {run_name(run)} {shlex.quote(task.name)} {option}")
    if len(failed) > _SHOWN_FAILURES:
        more = counted(len(failed) - _SHOWN_FAILURES, "more task")
        say(f"\n{more} failed: {us_command()} log get {run_name(run)} --failed")


def _step_cells(step: Step) -> tuple[Cell, ...]:
    status = "" if step.exit_status is None else str(step.exit_status)
    name = step.name.splitlines()[0][:60] if step.name else ""
    return name, styled(step.phase), status, lasted(step.start_time, step.end_time)

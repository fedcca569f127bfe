"""`runstream run`: list, get, follow."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.text import Text

from runstream.cli.connection import us_command
from runstream.cli.finding import RunName, find_run, name_of, point, project_here, run_name
from runstream.cli.graph import RunGraph, outcome, warnings
from runstream.cli.log_choice import failed_steps, in_order
from runstream.cli.output import Output, ago, console, lasted, moment, print_json, print_table, say, styled
from runstream.cli.restart_command import what_again
from runstream.cli.running import with_client
from runstream.cli.table import Cell, Column, print_rows
from runstream.cli.terminal_text import printable
from runstream.cli.watching import watch_runs
from runstream.client import Attempt, Client, ClientError, Run, RunSummary, Step, Task
from runstream.client.runs import MAX_PAGE
from runstream.counting import counted
from runstream.errors import BadRequestError
from runstream.limits import require_group
from runstream.names import project_of
from runstream.runconfig.environment import RefContext, run_group

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


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunChoice:
    """Which runs are listed."""

    project: str | None = None
    """Only runs of this project, such as web or /project/web."""
    branch: str | None = None
    """Only runs of this branch; of --project, or else of the repository around you."""
    group: Annotated[list[str] | None, Parameter(negative="")] = None
    """Only this group and those below it; repeatable."""
    name: str = ""
    """Only runs of this name."""
    phase: Annotated[list[Phase] | None, Parameter(name=["--phase", "-s"], negative="")] = None
    """Only runs in this phase; repeatable."""
    result: Annotated[list[Result] | None, Parameter(negative="")] = None
    """Only runs with this result; repeatable."""
    waiting_approval: Annotated[bool, Parameter(negative="")] = False
    """Only runs with a task that waits for approval."""

    def groups(self) -> list[str]:
        """Return the groups that are chosen. Raise BadRequestError for one that is none."""
        if self.project is None and self.branch is None:
            return [require_group(group) for group in self.group or ()]
        if self.group:
            raise BadRequestError(
                "say either --group or --project and --branch", code="invalidRunGroup", hint="a group has both in it"
            )
        if not (project := self.project or project_here()):
            raise BadRequestError(
                "--branch needs --project outside of a repository",
                code="invalidRunGroup",
                hint="as in --project web --branch main",
            )
        root = project if project.startswith("/") else f"/project/{project}"
        return [require_group(run_group(root, RefContext(branch=self.branch)) if self.branch else root)]


def list_runs(
    *,
    choice: RunChoice = RunChoice(),
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=MAX_PAGE))] = 25,
    start: int = 0,
    cursor: str = "",
    output: Output = "table",
) -> int:
    """List runs, the latest first.

    Parameters
    ----------
    limit
        How many, 1 to 40.
    start
        The sequence of the last run of the previous page.
    cursor
        Continue a list: the cursor that the previous page printed. Can only be combined with --limit and --output.
    output
        How to print them.
    """
    groups, chosen = choice.groups(), choice != RunChoice()
    if cursor and (chosen or start):
        raise BadRequestError(
            "--cursor goes with no other choice of runs",
            code="invalidCursor",
            hint="the cursor says which runs it is of",
        )

    async def work(client: Client) -> None:
        page = await client.runs.page(
            groups=groups,
            phases=choice.phase or (),
            results=choice.result or (),
            name=choice.name,
            waiting_approval=choice.waiting_approval,
            limit=limit,
            start=start,
            cursor=cursor,
        )
        if output == "json":
            print_json(page)
            return
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
            _print_run(found, await name_of(client, found.restart.run_id) if found.restart is not None else "")
            if not at:
                await _print_failures(client, found)

    return with_client(work)


def follow_run(run: RunName, /) -> int:
    """Watch a run until it ends; exit code 0 for success, 1 for failure, 3 when it was stopped or cancelled."""

    async def work(client: Client) -> int:
        return await watch_runs(client, [await find_run(client, run)])

    return with_client(work, reads_on=True)


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


def _print_run(run: Run, restarted: str) -> None:
    out = console()
    out.print(RunGraph(run))
    for error in run.setup_errors:
        say(f"setup error: {error}")
    for warning in warnings(run):
        say(warning)
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
        facts["restarts"] = f"{restarted} ({what_again(run.restart)})"
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

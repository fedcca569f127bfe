"""`runstream run`: create, restart, list, get, follow, explain, steer and delete runs, annotate their tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.text import Text

from runstream.cli.client_session import with_client
from runstream.cli.config_inputs import ConfigFile, ConfigPath, Flag, InputOptions, Texts, pairs, read_config
from runstream.cli.confirming import require_confirmed
from runstream.cli.connection import program_command, with_program
from runstream.cli.finding import (
    BY_NAME,
    RunName,
    RunNumber,
    find_run,
    find_run_id,
    find_task,
    load_run,
    load_run_name,
    own_group,
    position_text,
    project_here,
    run_name,
)
from runstream.cli.graph import RunGraph, by_level, by_start, detail, failed_steps, log_command, outcome, warnings
from runstream.cli.output import (
    Cell,
    Column,
    Output,
    ago,
    console,
    display_word,
    duration,
    print_items,
    print_json,
    print_rows,
    print_table,
    say,
    styled,
    timestamp,
    warn,
)
from runstream.cli.owned_runs import list_owned, owner_name
from runstream.cli.repository import MAX_NAMED, NO_COMMIT, RepositoryCommit, enclosing_commit, find_commit
from runstream.cli.terminal_text import printable
from runstream.cli.watching import print_created, watch_runs
from runstream.client import (
    Attempt,
    Client,
    ClientError,
    CreatedRuns,
    Inputs,
    Restart,
    Run,
    RunSummary,
    Source,
    Step,
    Task,
    Why,
)
from runstream.client.pages import PAGE as OWNED_PAGE
from runstream.client.runs import MAX_PAGE, Runs
from runstream.counting import counted, listed
from runstream.errors import BadRequestError
from runstream.ids import new_id
from runstream.limits import require_group
from runstream.names import project_of
from runstream.runconfig.parse import MAX_PRIORITY
from runstream.runconfig.problems import Problem, quoted
from runstream.runconfig.refs import SKIP_MARKS, RefContext, run_group, skip_mark

_SHOWN_FAILURES = 3
_SHOWN_LINES = 10
Phase = Literal["setuperror", "queued", "cancelled", "running", "finished"]
Result = Literal["unknown", "stopped", "success", "failed"]


_LIST_COLUMNS: dict[Column, Callable[[RunSummary], Cell]] = {
    Column("RUN"): run_name,
    Column("NAME", wraps=True): lambda run: run.name,
    Column("STATE"): lambda run: styled(outcome(run)),
    Column("GROUP", drop=3, wraps=True): lambda run: run.group.removeprefix(project_of(run.group)).lstrip("/"),
    Column("CREATED", drop=1): lambda run: ago(run.enqueue_time),
    Column("TOOK", drop=2): lambda run: duration(run.start_time, run.end_time),
    Column("AT", drop=4): lambda run: timestamp(run.enqueue_time),
    Column("ID", drop=5): lambda run: run.id,
}


_LOGS_PENDING_SECONDS = (0.2, 0.4, 0.8, 1.6, 3.2)
"""Pauses between attempts to delete a run whose last logs are not stored yet."""
_STEP_COLUMNS = (
    Column("TASK", wraps=True),
    Column("STEP"),
    Column("NAME", wraps=True),
    Column("PHASE"),
    Column("EXIT"),
    Column("TOOK", drop=1),
)
_NAMED_TASKS = 5
"""Maximum number of tasks named in a line."""
_APPROVERS = "approvers"
"""Not a note: the service stores under this name who approved the task."""
TaskName = Annotated[str, Parameter(help="The task's name or id.")]
Follow = Annotated[bool, Parameter(name=["--follow", "-f"], negative="")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """Which runs are listed."""

    project: str | None = None
    """Only runs of this project: its path such as org/acme/web, its id, or a group such as /project/web."""
    username: Annotated[str | None, Parameter(name=["--username"])] = None
    """Only direct runs of this user."""
    branch: str | None = None
    """Only runs of this branch of --project. Default project: the repository you are in."""
    group: Annotated[list[str] | None, Parameter(negative="")] = None
    """Only this group and those below it; repeatable."""
    name: str = ""
    """Only runs of this name."""
    text: str = ""
    """Only runs of this number (12) or of the commit that begins with this (7 digits or more); or with this text in
    their name, their group or an annotation, such as the message of the commit."""
    phase: Annotated[list[Phase] | None, Parameter(name=["--phase", "-s"], negative="")] = None
    """Only runs in this phase; repeatable."""
    result: Annotated[list[Result] | None, Parameter(negative="")] = None
    """Only runs with this result; repeatable."""
    waiting_approval: Flag = False
    """Only runs with a task that is waiting for approval."""

    def groups(self) -> list[str]:
        """Return the selected groups. Raises BadRequestError for an invalid one."""
        if self.project is None and self.branch is None:
            return [require_group(group) for group in self.group or ()]
        if self.group:
            raise BadRequestError(
                "give either --group or --project and --branch", code="invalidRunGroup", hint="a group contains both"
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
    choice: RunFilter = RunFilter(),
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=MAX_PAGE))] = 10,
    start: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    cursor: str = "",
    output: Output = "table",
) -> int:
    """List runs, the latest first.

    Parameters
    ----------
    limit
        Maximum number of runs to list, 1 to 40.
    start
        Begin behind this run: its number in a list of --project org/… or --username, else its sequence (`run list -o
        json`).
    cursor
        Cursor printed by the previous page, to continue its list. Can only be combined with --limit and --output.
    """
    if (owner := owner_name(choice.project, choice.username)) is not None:
        if choice.group or choice.name or choice.text or choice.waiting_approval:
            raise BadRequestError(
                "the runs of a project or user are selected by --branch, --phase and --result",
                code="invalidRunGroup",
                hint="leave out --group, --name, --text and --waiting-approval",
            )
        return list_owned(
            owner,
            branch=choice.branch,
            phases=choice.phase or (),
            results=choice.result or (),
            limit=min(limit, OWNED_PAGE),
            start=start,
            cursor=cursor,
            output=output,
        )
    groups, chosen = choice.groups(), choice != RunFilter()
    if cursor and (chosen or start):
        raise BadRequestError(
            "--cursor cannot be combined with other filters",
            code="invalidCursor",
            hint="the cursor contains the filters of its list",
        )

    async def work(client: Client) -> None:
        page = await client.runs.page(
            groups=groups,
            phases=choice.phase or (),
            results=choice.result or (),
            name=choice.name,
            text=choice.text,
            waiting_approval=choice.waiting_approval,
            limit=limit,
            start=start,
            cursor=cursor,
        )
        if output == "json":
            print_json(page)
            return
        print_items(page.runs, _LIST_COLUMNS, "no run matches" if chosen else "there are no runs")
        if page.cursor:
            say(f"there are more: {program_command()} run list --limit {limit} --cursor {page.cursor}")

    return with_client(work)


def get_run(run: RunName | None = None, /, *, of: RunNumber = BY_NAME, at: str = "", output: Output = "table") -> int:
    """Show a run: its tasks, their steps, how they ended.

    Parameters
    ----------
    at
        Show the run as of a time such as 2026-11-23T09:30 (in this machine's time zone unless it names one), or as of a
        position in the log such as 1:812,40,0,97 or, for one commit, 1/0/812.
    """
    name = of.name(run)

    async def work(client: Client) -> None:
        if at:
            found = await client.runs.get(await find_run_id(client, name), at=position_text(at))
        else:
            found = await find_run(client, name)
        if output == "json":
            print_json(found)
        else:
            restarted = await load_run_name(client, found.restart.run_id) if found.restart is not None else ""
            print_run(found, restarted, _moment(at, found) if at else None)
            if not at:
                await _print_failures(client, found)

    return with_client(work)


def follow_run(run: RunName | None = None, /, *, of: RunNumber = BY_NAME) -> int:
    """Watch a run until it ends; exit code 0 for success, 1 for failure, 3 when it was stopped or cancelled."""
    name = of.name(run)

    async def work(client: Client) -> int:
        return await watch_runs(client, [await find_run(client, name)])

    return with_client(work, reads_on=True)


def _moment(at: str, run: Run) -> datetime:
    """Return the time as of which a run is shown: for a position of the log, the last one that the run has."""
    with contextlib.suppress(ValueError):
        return min(datetime.fromisoformat(at).astimezone(), datetime.now(UTC))
    attempts: list[Attempt | Task] = []
    for task in run.tasks.values():
        attempts += (*task.attempts, task)
    steps = [step for attempt in attempts for step in (attempt.setup_step, *attempt.steps)]
    timed = (run, *attempts, *steps)
    times = [run.enqueue_time, *(each.start_time for each in timed), *(each.end_time for each in timed)]
    return max(filter(None, times), default=datetime.now(UTC))


def print_run(run: Run, restarted: str, now: datetime | None = None) -> None:
    """Print a run as of `now`; None for this moment."""
    out = console()
    out.print(RunGraph(run, now))
    for error in run.setup_errors:
        say(f"setup error: {error}")
    for warning in warnings(run):
        say(warning)
    steps: list[tuple[Cell, ...]] = []
    for task in by_level(run):
        attempts: tuple[Attempt | Task, ...] = (*task.attempts, task)
        for attempt in attempts:
            name = f"{task.name} ({attempt.attempt})" if len(attempts) > 1 else task.name
            for index, step in [("setup", attempt.setup_step), *enumerate(attempt.steps)]:
                steps.append((name, str(index), *_step_cells(step, now)))
    if steps:
        say("")
        print_rows(out, _STEP_COLUMNS, steps)
    reason = "it took longer than its run_timeout_interval" if run.timedout else run.reason
    facts = {
        "run": run_name(run),
        "id": run.id,
        "group": run.group,
        "created": timestamp(run.enqueue_time),
        "reason": reason,
    }
    if run.restart is not None:
        facts["restarts"] = f"{restarted} ({restart_scope(run.restart)})"
    facts |= {"priority": str(run.priority or "")} | run.annotations
    facts = {printable(name): printable(value) for name, value in facts.items() if value}
    width = max(map(len, facts))
    say("\n" + "\n".join(f"{name:<{width}}  {value}" for name, value in facts.items()))


async def _print_failures(client: Client, run: Run) -> None:
    """Print the last lines of failed steps, and the command for the whole log."""
    failed = [task for task in by_start(run) if task.status == "failed" and not task.kept]
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
            say(f"log: {log_command(run, task.name, step)}")
    if len(failed) > _SHOWN_FAILURES:
        more = counted(len(failed) - _SHOWN_FAILURES, "more task")
        say(f"\n{more} failed: {program_command()} log get {run_name(run)} --failed")


def _step_cells(step: Step, now: datetime | None) -> tuple[Cell, ...]:
    status = "" if step.exit_status is None else str(step.exit_status)
    name = step.name.splitlines()[0][:60] if step.name else ""
    return name, styled(step.phase), status, duration(step.start_time, step.end_time, now)


def why(run: RunName | None = None, /, *, of: RunNumber = BY_NAME, output: Output = "table") -> int:
    """Say why a run waits: its group, what its tasks depend on, approval, executors, a pause, maintenance."""
    name = of.name(run)

    async def work(client: Client) -> None:
        found = await client.runs.why(await find_run_id(client, name))
        if output == "json":
            print_json(found)
        else:
            about = await load_run(client, found.run)
            _print_why(found, found.run if about is None else run_name(about))
            for task in by_level(about) if about is not None and found.phase == "finished" else ():
                if task.status == "failed" and not task.kept:
                    say(f"{task.name} failed: {detail(task)}".removesuffix(": "))

    return with_client(work)


def _print_why(found: Why, name: str) -> None:
    say(f"run {name}" + (f" is {_why_state(found)}" if found.phase else ""))
    rows = [
        (reason.code, listed(reason.tasks, _NAMED_TASKS) or "-", with_program(reason.message))
        for reason in found.reasons
    ]
    print_table(
        (Column("REASON"), Column("TASKS", wraps=True), Column("WHY", wraps=True)), rows, "it waits for nothing"
    )
    if found.omitted:
        say(f"and {counted(found.omitted, 'further reason')}")


def _why_state(found: Why) -> str:
    return display_word(found.phase) if found.result == "unknown" else f"{found.phase}, {found.result}"


def stop_run(run: RunName | None = None, /, *, of: RunNumber = BY_NAME) -> int:
    """Stop a running run."""
    return _steer(of.name(run), Runs.stop, _stopping)


def cancel_run(run: RunName | None = None, /, *, of: RunNumber = BY_NAME) -> int:
    """Withdraw a queued run."""
    return _steer(of.name(run), Runs.cancel, lambda found: f"run {run_name(found)} is cancelled")


def delete_runs(run: RunName | None = None, /, *more: RunName, of: RunNumber = BY_NAME, yes: Flag = False) -> int:
    """Delete runs that have ended, with the logs and archives that no other run refers to.

    They stay in the log of events: `run get --at` shows them as they were. Asks first on a terminal.

    Parameters
    ----------
    yes
        Delete without asking.
    """
    wanted = of.words(run, *more, most=None)

    async def work(client: Client) -> None:
        found = {one.id: one for one in [await find_run(client, text) for text in wanted]}
        names = [run_name(one) for one in found.values()]
        require_confirmed(
            f"delete {listed(names, MAX_NAMED)}, and the logs and archives that no other run refers to?", yes=yes
        )
        for run_id, name in zip(found, names, strict=True):
            await _delete(client, run_id)
            say(f"run {name} ({run_id}) is deleted")

    return with_client(work)


async def _delete(client: Client, run_id: str) -> None:
    """Delete a run; wait a moment for the logs of one that has just ended."""
    for seconds in _LOGS_PENDING_SECONDS:
        try:
            return await client.runs.delete(run_id)
        except ClientError as error:
            if error.code != "runLogsPending":
                raise
        await asyncio.sleep(seconds)
    return await client.runs.delete(run_id)


def pause_run(run: RunName | None = None, /, *, of: RunNumber = BY_NAME) -> int:
    """Pause a run: start no further tasks until it is resumed. Running tasks continue."""
    return _steer(of.name(run), Runs.pause, _paused)


def resume_run(run: RunName | None = None, /, *, of: RunNumber = BY_NAME) -> int:
    """Resume a paused run."""
    return _steer(of.name(run), Runs.resume, lambda found: f"run {run_name(found)} is resumed")


def approve_task(run: RunName | None = None, task: TaskName | None = None, /, *, of: RunNumber = BY_NAME) -> int:
    """Approve a task that waits for it."""
    name, task_name = of.words(run, task, least=2, most=2)

    async def work(client: Client) -> None:
        found = await find_run(client, name)
        wanted = find_task(found, task_name)
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
    return f"run {name} is paused: `{program_command()} run resume {name}` resumes it"


def annotate_task(
    run: RunName | None = None,
    task: TaskName | None = None,
    /,
    *notes: str,
    of: RunNumber = BY_NAME,
    remove: Annotated[list[str] | None, Parameter(negative="")] = None,
    replace: Flag = False,
) -> int:
    """Attach notes to a task of a run, as NAME=VALUE; notes with other names stay.

    Parameters
    ----------
    notes
        NAME=VALUE; repeatable.
    remove
        Remove the note NAME; repeatable.
    replace
        Remove all earlier notes.
    """
    name, task_name, *rest = of.words(run, task, *notes, least=2, most=None)
    given = pairs(rest, "annotation")
    if not (given or remove or replace):
        raise BadRequestError("no note was given", code="invalidAnnotations", hint="give NAME=VALUE, or --remove")

    def changed(before: Mapping[str, str]) -> dict[str, str]:
        dropped = before.keys() if replace else {_APPROVERS, *(remove or ())}
        return {note: value for note, value in before.items() if note not in dropped} | given

    async def work(client: Client) -> None:
        found = await find_run(client, name)
        wanted = find_task(found, task_name)
        noted = await client.runs.change_annotations(found.id, wanted.id, changed)
        names = ", ".join(sorted(noted)) or "none"
        say(f"notes of task {wanted.name} of run {run_name(found)}: {names}")

    return with_client(work)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class NewRunOptions:
    """Options of the new runs beside the configuration file."""

    repo: str | None = None
    """Repository for the clone step: a path or a URL. Default: the one that contains the configuration file."""
    ref: str = ""
    """Branch, tag, ref or commit to run. Default: the one that is checked out."""
    group: str = ""
    """Runs of one group run one at a time. Default: /project/REPOSITORY/branch/BRANCH; with the token of a user,
    /user/ID/branch/BRANCH."""
    env: Texts = None
    """NAME=VALUE for all tasks; repeatable."""
    priority: Annotated[int | None, Parameter(validator=Number(gte=-MAX_PRIORITY, lte=MAX_PRIORITY))] = None
    """Overrides the file's priority: -100 to 100; when executors are busy, higher runs first."""
    cache_group: str = ""
    """Use the caches of this project or user, such as /project/web. Default: those of the run's own."""
    on_setup_error: Literal["refuse", "run"] = "refuse"
    """What to do with an invalid file: refuse it, or create a run that shows the errors."""

    def source(self, file: ConfigFile) -> RepositoryCommit | None:
        """Return the commit of the runs, or None. Raises BadRequestError, NotExistError for an unknown one."""
        if self.repo is not None:
            return find_commit(self.repo, self.ref)
        if self.ref:
            return find_commit(str(file.path.resolve().parent), self.ref)
        return enclosing_commit(file.path)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class OfProjectOptions:
    """A commit of a project's repository, in place of a file."""

    project: str = ""
    """A project by its path, such as org/acme/web/site, or id: run a commit of its repository, not a file."""
    branch: str = ""
    """A branch of --project."""
    tag: str = ""
    """A tag of --project."""
    commit_sha: str = ""
    """Another commit of --project than the ref's, or the beginning of its id."""


def create(
    *,
    config: ConfigPath = None,
    of: OfProjectOptions = OfProjectOptions(),
    new: NewRunOptions = NewRunOptions(),
    given: InputOptions = InputOptions(),  # noqa: B008
    idempotency_key: str = "",
    strict: Flag = False,
    follow: Follow = False,
    output: Output = "table",
) -> int:
    """Create the runs of a configuration file.

    Parameters
    ----------
    idempotency_key
        Any text of your choice; repeating the command with the same key returns the same runs and creates no new ones.
    strict
        Treat warnings as errors and create nothing: about the file, its inputs, executors or uncommitted changes.
    follow
        Watch the runs until they end.
    """
    if of != OfProjectOptions():
        of_file = (
            config
            or new != NewRunOptions(ref=new.ref, cache_group=new.cache_group)
            or given
            or idempotency_key
            or strict
        )
        if of_file or follow or output != "table":
            raise BadRequestError(
                "the runs of a project are those of its repository's configuration",
                code="invalidRunGroup",
                hint="with --project, give only --branch, --tag, --ref, --commit-sha and --cache-group",
            )
        return _create_of_project(of, new)
    file = read_config(config, Path.cwd())
    inputs, source, environment = given.inputs(file), new.source(file), pairs(new.env or (), "--env")
    changes = _uncommitted(source, file.path)
    for change, consequence in () if strict else changes.items():
        warn(f"warning: {change}: {consequence}")

    key = idempotency_key or new_id()

    async def created(client: Client, group: str) -> CreatedRuns:
        return await client.runs.create_from_config(
            inputs,
            source=_run_source(source),
            group=group,
            environment=environment,
            priority=new.priority,
            cache_group=new.cache_group,
            on_setup_error=new.on_setup_error,
            strict=strict,
            warnings=[*changes] if strict else (),  # the service refuses them together with its own
            idempotency_key=key,
        )

    async def work(client: Client) -> int:
        try:
            runs = await created(client, new.group or group_of_commit(source))
        except ClientError as error:
            # Groups that are named after a folder are for administrators.
            refused = error.code == "projectDoesNotExist" and not new.group
            if not refused or not (own := await own_group(client)):
                raise
            runs = await created(client, group_of_commit(source, own) or f"{own}/direct")
        _print_warnings(runs)
        if follow and runs:
            return await watch_runs(client, runs)
        if output == "json":
            print_json(runs.runs)
        else:
            _print_none_created(runs, source)
            await print_created(client, [await client.runs.get(run.id) for run in runs] if idempotency_key else runs)
        return 1 if any(run.setup_errors for run in runs) else 0

    return with_client(work)


def _create_of_project(of: OfProjectOptions, new: NewRunOptions) -> int:
    from runstream.cli.directrun_commands import RefOptions, create_project_runs  # its modules are for git

    if not of.project:
        raise BadRequestError(
            "--branch, --tag and --commit-sha are of a project's repository",
            code="invalidRunGroup",
            hint="name it with --project; of the repository you are in, --ref names a branch, tag or commit",
        )
    return create_project_runs(
        project=of.project,
        choice=RefOptions(branch=of.branch, tag=of.tag, ref=new.ref),
        commit_sha=of.commit_sha,
        cache_group=new.cache_group,
    )


def _run_source(source: RepositoryCommit | None) -> Source:
    about = source or NO_COMMIT
    return Source(about.branch, about.tag, about.ref, about.commit, about.url, about.message)


def group_of_commit(source: RepositoryCommit | None, root: str = "") -> str:
    """Return the default group of a commit below a group root, by default that of the repository's name.

    It is empty without a commit, so that the service chooses.
    """
    if source is None:
        return ""
    root = root or f"/project/{source.project}"
    if source.branch or source.tag:
        return run_group(root, RefContext(branch=source.branch, tag=source.tag))
    return f"{root}/ref/{quote(source.ref or source.commit, safe='')}"


def _print_warnings(runs: CreatedRuns) -> None:
    for warning in runs.warnings:
        hint = with_program(warning.hint)
        warn(f"warning: {Problem(warning.path, warning.line or 0, warning.message, hint)}")


def _uncommitted(source: RepositoryCommit | None, config: Path) -> dict[str, str]:
    """Return sentences about uncommitted changes, each with what they mean for the run.

    The configuration is read from the work tree, everything else from the commit.
    """
    found: dict[str, str] = {}
    if source is not None and source.changed:
        own = {name for name in source.changed if Path(source.url, name) == config.resolve()}
        if rest := [name for name in source.changed if name not in own]:
            found[_changes(rest)] = "they are not in this run"
        if own:
            found[_changes(own)] = "the run uses the file as it is here"
    return found


def _changes(files: Collection[str]) -> str:
    names = listed([quoted(name).strip('"') for name in files], MAX_NAMED)
    return f"{names} {'has' if len(files) == 1 else 'have'} changes that are not committed"


def _print_none_created(runs: CreatedRuns, source: RepositoryCommit | None) -> None:
    if any(run.reason == "ci_skip" for run in runs.skipped):
        mark = skip_mark(source.message) if source is not None else ""
        say(f"the message of the commit says {mark or SKIP_MARKS[0]}: nothing was created")
    elif not runs:
        say("no run of the file is for this branch, tag or ref: nothing was created")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RestartOptions:
    """Which tasks of the earlier run to re-run, and with which environment."""

    from_failed: Flag = False
    """Only tasks that did not succeed, and those that depend on them. Default: all tasks."""
    task: Texts = None
    """Only this task, even if it succeeded, by name or id; repeatable."""
    and_descendants: Flag = False
    """With --task: also the tasks that depend on them. Without it, those keep their outcome."""
    env: Texts = None
    """NAME=VALUE for all tasks, replacing the environment of the earlier run; repeatable."""

    @property
    def environment(self) -> dict[str, str] | None:
        """The new environment; None for the earlier run's. Raises BadRequestError for a text that is not NAME=VALUE."""
        return pairs(self.env, "--env") if self.env else None

    def require_one(self) -> None:
        """Raise BadRequestError for options that exclude each other."""
        if self.from_failed and self.task:
            raise BadRequestError(
                "give either --from-failed or --task", code="invalidRestart", hint="--task names the tasks to run again"
            )
        if self.and_descendants and not self.task:
            raise BadRequestError(
                "--and-descendants needs --task",
                code="invalidRestart",
                hint="--from-failed includes the tasks that depend on failed ones",
            )


def restart(
    run: RunName | None = None,
    /,
    *,
    of: RunNumber = BY_NAME,
    which: RestartOptions = RestartOptions(),
    fresh: Flag = False,
    config: ConfigPath = None,
    given: InputOptions = InputOptions(),  # noqa: B008
    dry_run: Flag = False,
    idempotency_key: str = "",
    follow: Follow = False,
    output: Output = "table",
) -> int:
    """Re-run a finished run, as a new run. Tasks that do not run again keep their outcome, logs and files.

    Parameters
    ----------
    fresh
        Resolve variables and secrets again, from the same file (--config) with new inputs (--var, --var-file,
        --secret-file). Default: reuse the earlier values.
    dry_run
        Only show which tasks would run again, and which would keep their outcome.
    idempotency_key
        Any text of your choice; repeating the command with the same key returns the same run and creates no new one.
    follow
        Watch the run until it ends.
    """
    name = of.name(run)
    which.require_one()
    inputs = _fresh_inputs(config, given, fresh=fresh)

    async def work(client: Client) -> int:
        earlier = await find_run(client, name)
        names = which.task or ()
        if dry_run:
            return await _preview(client, earlier, which, output)
        new = await client.runs.restart(
            earlier.id,
            from_start=not (which.from_failed or names),
            tasks=[find_task(earlier, one).name for one in names],
            descendants=which.and_descendants,
            environment=which.environment,
            fresh=inputs,
            idempotency_key=idempotency_key or new_id(),
        )
        if follow:
            return await watch_runs(client, [new])
        if output == "json":
            print_json(new)
        else:
            await print_created(client, [await client.runs.get(new.id)] if idempotency_key else [new])
        return 0

    return with_client(work)


async def _preview(client: Client, run: Run, which: RestartOptions, output: Output) -> int:
    """Print what a restart would run again; return 1 if it is not possible."""
    names = which.task or ()
    found = await client.runs.preview_restart(
        run.id,
        from_start=not (which.from_failed or names),
        tasks=[find_task(run, name).name for name in names],
        descendants=which.and_descendants,
    )
    if output == "json":
        print_json(found)
    elif found.possible:
        say(f"runs again: {', '.join(found.again)}")
        say(f"keeps its outcome: {', '.join(found.kept) or 'no task'}")
    else:
        say(f"{found.reason}: {found.hint}")
    return 0 if found.possible else 1


def restart_scope(restart: Restart) -> str:
    """Return which tasks a restart runs again, in words."""
    if restart.scope == "all":
        return "all of it"
    if restart.scope == "failed":
        return "what did not succeed"
    return ", ".join(restart.tasks) + (" and what depends on it" if restart.descendants else "")


def _fresh_inputs(config: Path | None, given: InputOptions, *, fresh: bool) -> Inputs | None:
    if fresh:
        from runstream.runconfig.variables import read_inputs

        for warning in read_inputs({}, (), given.secret_files).warnings:
            warn(f"warning: {warning}")
        return given.inputs(read_config(config, Path.cwd()))
    if config or given:
        raise BadRequestError(
            "--config, --var, --var-file and --secret-file need --fresh",
            code="invalidRestart",
            hint="without --fresh, variables and secrets are those of the earlier run",
        )
    return None

"""Runs of a project, and direct runs of a user: their list and their logs, by `--project` and `--username`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cyclopts import Parameter

from runstream.cli.client_session import with_client
from runstream.cli.config_inputs import Flag
from runstream.cli.finding import RunNumber, did_you_mean
from runstream.cli.log_files import STDOUT, writing_log
from runstream.cli.output import Cell, Column, Output, ago, duration, print_items, print_json, say, styled, timestamp
from runstream.client import Client, OwnedRun, OwnedRunSummary, OwnedTask
from runstream.client.owned_runs import OwnedRuns
from runstream.errors import BadRequestError, NotExistError
from runstream.ids import is_uuid
from runstream.runconfig.refs import RefContext, run_group

_COLUMNS: dict[Column, Callable[[OwnedRunSummary], Cell]] = {
    Column("NUMBER"): lambda run: str(run.number or "-"),
    Column("NAME", wraps=True): lambda run: run.name,
    Column("STATE"): lambda run: styled(run.result if run.phase == "finished" else run.phase),
    Column("REF", drop=3, wraps=True): lambda run: run.annotations.get("ref", ""),
    Column("CREATED", drop=1): lambda run: ago(run.enqueue_time),
    Column("TOOK", drop=2): lambda run: duration(run.start_time, run.end_time),
    Column("AT", drop=4): lambda run: timestamp(run.enqueue_time),
}


@dataclass(frozen=True, slots=True)
class OwnerName:
    """A project or a user."""

    project: str
    username: str

    def runs(self, client: Client) -> OwnedRuns:
        """Return the operations on its runs."""
        return client.project_runs if self.project else client.user_runs

    def __str__(self) -> str:
        return self.project or self.username


def owner_name(project: str | None, username: str | None) -> OwnerName | None:
    """Return the project or user that options name; None for no project of the service, such as /project/web.

    Raises BadRequestError for both.
    """
    if project and username:
        raise BadRequestError("give either --project or --username", code="invalidRun")
    if username or (project and (is_uuid(project) or project.startswith(("org/", "user/")))):
        return OwnerName(project or "", username or "")
    return None


def list_owned(
    owner: OwnerName,
    *,
    branch: str | None,
    phases: Sequence[str],
    results: Sequence[str],
    limit: int,
    start: int,
    cursor: str,
    output: Output,
) -> int:
    """List the runs of a project or user, the latest first."""
    subgroup = run_group("", RefContext(branch=branch)).lstrip("/") if branch else ""

    async def work(client: Client) -> None:
        runs, following = await owner.runs(client).page(
            str(owner), subgroup=subgroup, phases=phases, results=results, limit=limit, start=start, cursor=cursor
        )
        if output == "json":
            print_json(runs)
            return
        print_items(runs, _COLUMNS, f"{owner} has no such runs")
        if following:
            say(f"there are more: --cursor {following}")

    return with_client(work)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class OwnedLog(RunNumber):
    """A log of a run of a project or user, instead of RUN and TASK."""

    taskname: str = ""
    """The name of the task."""
    taskid: str = ""
    """The id of the task."""

    @property
    def owner(self) -> OwnerName:
        """The project or user."""
        return OwnerName(self.project, self.username)

    def __bool__(self) -> bool:
        return bool(RunNumber.__bool__(self) or self.taskname or self.taskid)


def print_owned_log(wanted: OwnedLog, step: str | None, *, setup: bool, follow: bool, output: str = STDOUT) -> int:
    """Print the log of one step, or of the setup, as it was written; or write it to a file."""
    number = _require_whole(wanted, step, setup=setup)

    async def work(client: Client) -> None:
        runs, owner = wanted.owner.runs(client), str(wanted.owner)
        task_id, chosen = await _chosen(runs, wanted, number, step)
        with writing_log(output) as file:
            async for chunk in runs.log(owner, number, task_id, chosen, follow=follow):
                file.write(chunk)
                file.flush()

    return with_client(work, reads_on=True)


def delete_log(
    *,
    owned: OwnedLog = OwnedLog(),
    step: str | None = None,
    setup: Flag = False,
) -> int:
    """Delete the stored log of a step, or of the setup, of a run of a project or user.

    Parameters
    ----------
    step
        The step, by name or by number (from 0).
    setup
        The log of the task's setup.
    """
    number = _require_whole(owned, step, setup=setup)

    async def work(client: Client) -> None:
        runs = owned.owner.runs(client)
        task_id, chosen = await _chosen(runs, owned, number, step)
        await runs.delete_log(str(owned.owner), number, task_id, chosen)
        say("the log is deleted")

    return with_client(work)


def _require_whole(wanted: OwnedLog, step: str | None, *, setup: bool) -> int:
    """Return the number of the run. Raises BadRequestError for options that do not name one log."""
    number = wanted.require()
    if bool(wanted.taskname) == bool(wanted.taskid):
        raise BadRequestError("give either --taskname or --taskid", code="invalidRun")
    if setup == (step is not None):
        raise BadRequestError("give either --step or --setup", code="invalidRunTaskStepNumber")
    return number


async def _chosen(runs: OwnedRuns, wanted: OwnedLog, number: int, step: str | None) -> tuple[str, int | None]:
    """Return the id of the task, and the number of the step; None for the setup."""
    owner = str(wanted.owner)
    task_id = wanted.taskid or _task_id(await runs.get(owner, number), wanted.taskname)
    return task_id, None if step is None else _step_number(await runs.task(owner, number, task_id), step)


def _task_id(run: OwnedRun, name: str) -> str:
    """Return the id of a task. Raises NotExistError."""
    names = {task.name: task.id for task in run.tasks.values()}
    if name not in names:
        raise NotExistError(
            f"run {run.number} has no task {name[:80]!r}",
            code="runTaskDoesNotExist",
            hint=f"{did_you_mean(name, [*names])}its tasks are: {', '.join(sorted(names)) or 'none'}",
        )
    return names[name]


def _step_number(task: OwnedTask, step: str) -> int:
    """Return the number of a step that is named by number or name. Raises NotExistError."""
    if step.isascii() and step.isdigit() and len(step) < 10:
        return int(step)
    for number, one in enumerate(task.steps):
        if one.name == step:
            return number
    names = [one.name for one in task.steps]
    raise NotExistError(
        f"task {task.name!r} has no step {step[:80]!r}",
        code="runTaskStepDoesNotExist",
        hint=f"{did_you_mean(step, names)}its steps are: {', '.join(names)}",
    )

"""Names of runs and tasks: find the one that a name or an id means.

/project/web/12   the number of a run in its project, as every list shows it
12                the same, inside a clone of that project's repository; else a direct run of the user
latest, @         the latest run: of this repository's project, else of all that the user sees
/project/web/latest, /project/web/branch/main/@     the latest run of a project, a user or a group
0b9f7f6e          a prefix of an id; one of less than 7 characters among the latest runs
org/acme/web/12   the number of a run of a project, by the project's path or id
user/alice/12     the number of a direct run of a user
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import CycloptsError, Parameter

from runstream.cli.repository import enclosing_commit
from runstream.client import Client, ClientError, Run, RunSummary, Task
from runstream.client.runs import MAX_PAGE
from runstream.counting import counted
from runstream.errors import BadRequestError, NotExistError
from runstream.ids import is_uuid
from runstream.limits import require_group
from runstream.names import numbered_name, project_of

_NUMBERED = re.compile(r"(/.+)/(\d{1,18})")
_OWNED = re.compile(r"((?:org|user)/.+|[0-9a-f-]{36})/(\d{1,18})")
_LATEST_OF = re.compile(r"(/.+)/(?:latest|@)")
_NUMBER = re.compile(r"#?(\d{1,18})")
_BEGINNING = re.compile(r"[0-9a-f][0-9a-f-]{3,35}")
_LATEST = ("latest", "@")
_PAGES = 5
"""Pages of the latest runs that are searched for a prefix of an id."""
_INDEXED_FROM, _INDEXED = 7, 8
"""Number of characters of an id from which on, and up to which, the service finds runs by them."""
_SHOWN = 3
_HINT = (
    "name it as `runstream run list` does, such as /project/web/12 or org/acme/web/12, by its id or the beginning of "
    "it, as `latest`, or as /project/web/latest"
)

RunName: TypeAlias = Annotated[
    str,
    Parameter(help="PROJECT/NUMBER such as /project/web/12, an id or the beginning of one, `latest`, or GROUP/latest."),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunNumber:
    """A run of a project or user, instead of RUN."""

    project: str = ""
    """The project's path, such as org/acme/web, or its id; needs --runnumber."""
    username: str = ""
    """The user whose direct run it is; needs --runnumber."""
    runnumber: int | None = None
    """The number of the run."""

    def __bool__(self) -> bool:
        return bool(self.project or self.username or self.runnumber is not None)

    def require(self) -> int:
        """Return the number. Raises BadRequestError unless there is one, of either a project or a user."""
        if bool(self.project) == bool(self.username) or self.runnumber is None:
            raise BadRequestError("give --runnumber, and either --project or --username", code="invalidRun")
        return self.runnumber

    def name(self, run: str | None) -> str:
        """Return the run's name: RUN, or that of the options. Raises as `words` does."""
        (name,) = self.words(run)
        return name

    def words(self, *given: str | None, least: int = 1, most: int | None = 1) -> list[str]:
        """Return the words of a command that begin with RUN, for which the options stand if there are any.

        Raises CycloptsError for too few words, as for a missing argument, and BadRequestError for too many.
        """
        words = [word for word in given if word is not None]
        if self:
            words.insert(0, self._name())
        if not words:
            raise CycloptsError(msg="no run is named: give RUN, or --runnumber with --project or --username")
        if len(words) < least:
            raise CycloptsError(msg="no task is named: give its name or its id, behind the run")
        if most is not None and len(words) > most:
            raise BadRequestError("give either RUN, or --runnumber with --project or --username", code="invalidRun")
        return words

    def _name(self) -> str:
        number = self.require()
        if self.username:
            return f"user/{self.username}/{number}"
        owned = is_uuid(self.project) or self.project.startswith(("org/", "user/", "/"))
        return f"{self.project}/{number}" if owned else f"/project/{self.project}/{number}"


BY_NAME = RunNumber()
"""No options: RUN names the run."""


def run_name(run: RunSummary) -> str:
    """Return the shortest name of a run that commands accept: PROJECT/NUMBER, or its id while it has no number."""
    return numbered_name(run.group, run.counter, run.id)


async def load_run_name(client: Client, run_id: str) -> str:
    """Return the name of the run with this id, or the id while the database does not have the run yet."""
    found = await load_run(client, run_id)
    return run_id if found is None else run_name(found)


async def load_run(client: Client, run_id: str) -> Run | None:
    """Return the run with this id; None while the database does not have it yet."""
    try:
        return await client.runs.get(run_id)
    except ClientError as error:
        if error.kind != "not-exist":
            raise
        return None


async def find_run(client: Client, text: str) -> Run:
    """Return the run with a name or id. Raises BadRequestError, NotExistError, ClientError."""
    if is_uuid(text):
        return await client.runs.get(text)
    if numbered := _NUMBERED.fullmatch(text):
        return await _by_number(client, numbered[1], int(numbered[2]))
    if owned := _OWNED.fullmatch(text):
        return await _by_number(client, await _owned_group(client, owned[1]), int(owned[2]))
    if text in _LATEST:
        return await _latest(client)
    if latest := _LATEST_OF.fullmatch(text):
        return await _latest_of(client, require_group(latest[1]))
    if (number := _NUMBER.fullmatch(text)) and (project := project_here()):
        return await _by_number_here(client, project, int(number[1]))
    if _BEGINNING.fullmatch(text):
        return await _by_beginning(client, text)
    hint = "a number alone needs a clone of the project's repository around you; " if _NUMBER.fullmatch(text) else ""
    raise BadRequestError(f"{text[:80]!r} does not name a run", code="invalidRun", hint=hint + _HINT)


async def find_run_id(client: Client, text: str) -> str:
    """Return the id of the run with a name or id, also of a deleted run.

    Raises BadRequestError, NotExistError, ClientError.
    """
    if is_uuid(text):
        return text
    try:
        return (await find_run(client, text)).id
    except ClientError as error:
        if error.code != "runDeleted":
            raise
        return str(error.details["run"])


async def _by_number(client: Client, group: str, number: int) -> Run:
    project = project_of(group)
    try:
        return await client.runs.by_number(project, number)
    except ClientError as error:
        if error.kind != "not-exist" or error.code == "runDeleted":
            raise
        latest = (await client.runs.page(groups=[project], limit=_SHOWN)).runs
        hint = f"its latest runs are {_listed(latest)}" if latest else f"{project} has no runs"
        raise NotExistError(
            f"{project} has no run {number}", code="runDoesNotExist", details=error.details, hint=hint
        ) from error


async def _by_number_here(client: Client, project: str, number: int) -> Run:
    try:
        return await _by_number(client, project, number)
    except (NotExistError, ClientError) as error:
        if error.kind != "not-exist" or error.code == "runDeleted" or not (own := await own_group(client)):
            raise
    return await _by_number(client, own, number)


async def _owned_group(client: Client, owner: str) -> str:
    """Return the group root of the runs of `user/NAME`, or of a project."""
    kind, _, name = owner.partition("/")
    if kind == "user" and "/" not in name:
        return f"/user/{(await client.users.get(name)).id}"
    return f"/project/{(await client.projects.get(owner)).id}"


async def own_group(client: Client) -> str:
    """Return the group root of the direct runs of the token's user; empty for the administrator's token."""
    try:
        return f"/user/{(await client.users.current()).id}"
    except ClientError as error:
        if error.kind != "forbidden":
            raise
        return ""


async def _latest(client: Client) -> Run:
    project, runs = project_here(), tuple[RunSummary, ...]()
    if project:
        try:
            runs = (await client.runs.page(groups=[project], limit=1)).runs
        except ClientError as error:
            if error.kind != "not-exist":  # a user sees no runs of a folder's name
                raise
    runs = runs or (await client.runs.page(limit=1)).runs
    if not runs:
        raise NotExistError("there are no runs", code="runDoesNotExist", hint="`runstream run create` creates one")
    return await client.runs.get(runs[0].id)


async def _latest_of(client: Client, group: str) -> Run:
    runs = (await client.runs.page(groups=[group], limit=1)).runs
    if not runs:
        raise NotExistError(
            f"{group} has no runs", code="runDoesNotExist", hint="`runstream run list` shows the runs of all groups"
        )
    return await client.runs.get(runs[0].id)


async def _by_beginning(client: Client, beginning: str) -> Run:
    found: list[RunSummary] = []
    # The service finds the runs whose id begins so by an index.
    text = beginning[:_INDEXED] if len(beginning) >= _INDEXED_FROM else ""
    start: int | None = 0
    for _ in range(_PAGES):
        page = await client.runs.page(limit=MAX_PAGE, start=start or 0, text=text)
        found += [run for run in page.runs if run.id.startswith(beginning)]
        start = page.next_start
        if start is None:
            break
    if len(found) == 1:
        return await client.runs.get(found[0].id)
    if found:
        raise BadRequestError(
            f"{beginning!r} is ambiguous: the ids of {counted(len(found), 'run')} begin with it",
            code="invalidRun",
            hint=f"name one of {_listed(found[:_SHOWN])}",
        )
    raise NotExistError(
        f"no run has an id that begins with {beginning!r}"
        if text
        else f"none of the latest {_PAGES * MAX_PAGE} runs has an id that begins with {beginning!r}",
        code="runDoesNotExist",
        hint=_HINT,
    )


def project_here() -> str:
    """Return the project of the repository around the working directory; empty outside of one."""
    source = enclosing_commit(Path.cwd() / "here")
    return f"/project/{source.project}" if source is not None else ""


def _listed(runs: Sequence[RunSummary]) -> str:
    return ", ".join(run_name(run) for run in runs)


PastPoint = Annotated[
    str,
    Parameter(
        name="--at",
        help="As of a time such as 2026-11-23T09:30 (in this machine's time zone unless it names one), or as of the "
        "position of a change, such as 1/0/812, as `audit` shows it.",
    ),
]
"""A point in the past of users, projects and secrets."""


def position_text(text: str) -> str:
    """Return a time with its zone (by default this machine's), or the text itself as a position of the log."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text  # the service validates positions
    return time.astimezone().isoformat()


def find_task(run: Run, text: str) -> Task:
    """Return the task with a name or id. Raises NotExistError, with the names of the tasks."""
    task = run.task(text)
    if task is not None:
        return task
    names = sorted(task.name for task in run.tasks.values())
    raise NotExistError(
        f"{run_name(run)} has no task {text[:80]!r}",
        code="runTaskDoesNotExist",
        hint=f"{did_you_mean(text, names)}its tasks are: {', '.join(names) or 'none: its setup failed'}",
    )


def did_you_mean(text: str, names: Sequence[str]) -> str:
    """Return a question that names the closest of the names, with a space behind it; empty if none is close."""
    near = difflib.get_close_matches(text, names, 1)
    return f"did you mean {near[0]!r}? " if near else ""

"""Which run or task somebody means: an id, or a name that people can type."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, TypeAlias

from cyclopts import Parameter

from runstream.client import Client, Run, Task
from runstream.errors import BadRequestError, NotExistError

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NUMBERED = re.compile(r"(/.+)/(\d{1,18})")

RunName: TypeAlias = Annotated[str, Parameter(help="An id, or GROUP/NUMBER such as /project/web/branch/main/12.")]


def is_id(text: str) -> bool:
    """Whether this can only be the id of a run."""
    return _ID.fullmatch(text) is not None


async def find_run(client: Client, text: str) -> Run:
    """The run of an id, or of GROUP/NUMBER. Raises BadRequestError for what is neither."""
    if is_id(text):
        return await client.runs.get(text)
    if numbered := _NUMBERED.fullmatch(text):
        return await client.runs.by_number(numbered[1], int(numbered[2]))
    raise BadRequestError(
        f"{text[:80]!r} does not name a run",
        code="invalidRun",
        hint="name it by its id, or by group and number as in /project/web/branch/main/12; see `runstream run list`",
    )


def point(text: str) -> str:
    """The point in time or in the log that somebody means; a time without a zone is of this machine's."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text  # The service says what a position is, and refuses what is none.
    return moment.astimezone().isoformat()


def find_task(run: Run, text: str) -> Task:
    """The task of a name or id. Raises NotExistError that lists the tasks there are."""
    task = run.task(text)
    if task is not None:
        return task
    names = ", ".join(sorted(task.name for task in run.tasks.values())) or "none: its setup failed"
    raise NotExistError(
        f"run {run.id} has no task {text[:80]!r}", code="runTaskDoesNotExist", hint=f"its tasks are: {names}"
    )

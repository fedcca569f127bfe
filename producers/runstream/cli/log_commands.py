"""`runstream log`: what the steps of a task wrote."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Annotated

from cyclopts import Parameter

from runstream.cli.finding import RunName, find_run, find_task
from runstream.cli.log_text import LogText
from runstream.cli.output import shows_colours
from runstream.cli.running import with_client
from runstream.client import Client, ClientError, Run, Task
from runstream.errors import BadRequestError, NotExistError


def get_log(
    run: RunName,
    task: str,
    /,
    *,
    step: int | None = None,
    setup: Annotated[bool, Parameter(negative="")] = False,
    attempt: int | None = None,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
) -> int:
    """Print the log of a step, of the setup, or of all steps of a task one after the other.

    A terminal gets its text and colours; a file or a pipe the bytes as they were written.

    Parameters
    ----------
    task
        The task's name or id.
    step
        The number of a step, from 0. Default: all steps.
    setup
        The log of the setup.
    attempt
        Of which attempt at the task, from 1. Default: the last.
    follow
        Go on until the log ends.
    """
    if setup and step is not None:
        raise BadRequestError("say either --setup or --step", code="invalidRunTaskStepNumber")

    async def work(client: Client) -> None:
        found, wanted = await _find(client, run, task)
        if setup or step is not None:
            await _print_step(client, found, wanted, attempt, None if setup else step, follow=follow)
        else:
            await _print_all(client, found, wanted, attempt, follow=follow)

    return with_client(work)


async def _find(client: Client, run: str, task: str) -> tuple[Run, Task]:
    """Whatever of run and task is missing, it is the log that was asked for."""
    try:
        found = await find_run(client, run)
        return found, find_task(found, task)
    except (ClientError, NotExistError) as error:
        if isinstance(error, ClientError) and error.kind != "not-exist":
            raise
        raise NotExistError(
            f"log doesn't exist: {error.message}", code=error.code, details=error.details, hint=error.hint
        ) from error


async def _print_step(
    client: Client, run: Run, task: Task, attempt: int | None, step: int | None, *, follow: bool
) -> None:
    read = client.logs.follow if follow else client.logs.read
    await _print(read(run.id, task.id, step, attempt=attempt))


async def _print_all(client: Client, run: Run, task: Task, attempt: int | None, *, follow: bool) -> None:
    printed = 0
    missing: ClientError | None = None
    for step in range(len(task.steps)):
        try:
            await _print_step(client, run, task, attempt, step, follow=follow)
            printed += 1
        except ClientError as error:
            if error.kind != "not-exist":
                raise
            missing = error
            break  # the steps behind it have not run either
    if not printed and missing is not None:
        raise missing


async def _print(chunks: AsyncIterator[bytes]) -> None:
    """Write a log as it is, or to a terminal as what a terminal may be sent."""
    if sys.stdout.isatty():
        text = LogText(colours=shows_colours())
        async for chunk in chunks:
            sys.stdout.write(text.feed(chunk))
            sys.stdout.flush()
        sys.stdout.write(text.end())
        sys.stdout.flush()
    else:
        async for chunk in chunks:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()

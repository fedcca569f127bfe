"""A command's session with the service: event loop, client, errors, exit code; and `runstream env`, which names it."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from runstream.cli.connection import connect, find_service, global_options
from runstream.cli.output import say
from runstream.client import Client, ClientError, ConnectionFailedError
from runstream.errors import Kind, RemoteError
from runstream.runconfig.problems import Problem

Work = Callable[[Client], Awaitable[int | None]]


def with_client(work: Work, *, reads_on: bool = False) -> int:
    """Run a command's work with a client; return its exit code, 0 for None. Raises RunstreamError.

    `reads_on`: the work follows the service and only prints, so it ends as soon as the reader of its output has left.
    """

    async def run() -> int:
        async with connect() as client:
            return await (_until_reader_leaves(work, client) if reads_on else work(client)) or 0

    with service_errors():
        return asyncio.run(run())


async def _until_reader_leaves(work: Work, client: Client) -> int | None:
    """Run the work; raise BrokenPipeError once stdout is a pipe without a reader, even while it writes nothing."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work(client))
    left = False

    def leave() -> None:
        nonlocal left
        left = True
        loop.remove_reader(output)
        task.cancel()

    try:
        output = sys.stdout.fileno()
        watched = stat.S_ISFIFO(os.fstat(output).st_mode)
        if watched:
            loop.add_reader(output, leave)  # the write end of a pipe becomes readable only when it is broken
    except (OSError, ValueError):  # stdout has no file descriptor, or one that cannot be watched
        watched = False
    try:
        return await task
    except asyncio.CancelledError:
        if left:
            raise BrokenPipeError(errno.EPIPE, "the reader of the output left") from None
        raise
    finally:
        task.cancel()
        if watched:
            loop.remove_reader(output)


class ServiceCause(Exception):  # noqa: N818  a line of another process's chain, not an error of its own
    """A cause in the service's own chain of causes."""

    def __str__(self) -> str:
        return f"at the service: {self.args[0]}"


@contextmanager
def service_errors() -> Iterator[None]:
    """Turn errors of the client into errors of the command line: the same sentence, with the chain of causes."""
    try:
        yield
    except ClientError as error:
        raise _translated(error) from _with_chain(error)


def _translated(error: ClientError) -> RemoteError:
    hint = error.hint
    if isinstance(error, ConnectionFailedError) and error.code == "serviceUnreachable":
        hint = _unreachable_hint(hint)
    kind = Kind(error.kind) if error.kind in set(Kind) else Kind.REMOTE
    return RemoteError(_sentence(error), remote_kind=kind, code=error.code, details=error.details, hint=hint)


def _sentence(error: ClientError) -> str:
    """Return the message; for a configuration file with several problems, a line for each."""
    match error.details:
        case {"source": str(source), "problems": [_, _, *_] as problems}:
            return "\n".join([f"{source} is not valid:", *(f"  {_problem(problem)}" for problem in problems)])
    return error.message


def _problem(problem: object) -> str:
    match problem:
        case {"line": int(line), "path": str(path), "message": str(message), "hint": str(hint)}:
            return str(Problem(path, line, message, hint))
    return str(problem)


def _unreachable_hint(hint: str) -> str:
    """Return a hint for a service that does not answer; a killed local service leaves its file behind."""
    service = find_service(global_options(), os.environ)
    if service.data_dir is None:
        return "check the URL, and whether the service runs"
    return (
        f"the service of {service.data_dir} (process {service.pid}) is not there any more: "
        "start it again with `runstream serve`"
    )


def _with_chain(error: ClientError) -> ClientError:
    """Return the error with the service's chain appended to its causes."""
    current: BaseException = error
    while current.__cause__ is not None:
        current = current.__cause__
    for line in error.chain:
        current.__cause__ = ServiceCause(line)
        current = current.__cause__
    return error


def print_environment(*, shell: Literal["sh", "fish"] = "sh") -> None:
    """Print the variables that name this service, for a shell to evaluate.

    Parameters
    ----------
    shell
        The shell's syntax; sh also works for bash and zsh.
    """
    with service_errors():
        service = find_service(global_options(), os.environ)
    variables = {"RUNSTREAM_URL": service.url, "RUNSTREAM_TOKEN": service.token}
    if service.data_dir is not None:
        variables["RUNSTREAM_DATA_DIR"] = str(service.data_dir.absolute())
    for name, value in variables.items():
        if value:
            say(f"set -gx {name} {shlex.quote(value)}" if shell == "fish" else f"export {name}={shlex.quote(value)}")

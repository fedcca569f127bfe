"""How an error of the client becomes one that the command line tells: the same sentence, the chain kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from runstream.cli.connection import find_service, given
from runstream.client import ClientError, ConnectionFailedError
from runstream.errors import Kind, RemoteError


class AtService(Exception):  # noqa: N818  a line of another process's chain, not an error of its own
    """A cause that the service told."""

    def __str__(self) -> str:
        return f"at the service: {self.args[0]}"


@contextmanager
def told_by_service() -> Iterator[None]:
    """Turn what the client raises into an error of the command line."""
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
    """What is wrong; all that is wrong with a configuration file, a line each."""
    match error.details:
        case {"source": str(source), "problems": [_, _, *_] as problems}:
            return "\n".join([f"{source} is not valid:", *(f"  {_problem(problem)}" for problem in problems)])
    return error.message


def _problem(problem: object) -> str:
    match problem:
        case {"line": int(line), "path": str(path), "message": str(message), "hint": str(hint)}:
            where = ", ".join(filter(None, (f"line {line}" if line else "", path)))  # what a program made has no line
            return f"{where}{': ' if where else ''}{message}{f' ({hint})' if hint else ''}"
    return str(problem)


def _unreachable_hint(hint: str) -> str:
    """A local service that was killed leaves its file behind."""
    service = find_service(given(), os.environ)
    if service.data_dir is None:
        return "check the URL, and whether the service runs"
    return (
        f"the service of {service.data_dir} (process {service.pid}) is not there any more: "
        f"start it again with `runstream --data-dir {service.data_dir} serve`"
    )


def _with_chain(error: ClientError) -> ClientError:
    """The error, with the causes that the service told as its causes."""
    current: BaseException = error
    while current.__cause__ is not None:
        current = current.__cause__
    for line in error.chain:
        current.__cause__ = AtService(line)
        current = current.__cause__
    return error

"""The errors of Runstream, and how they are found in a chain, shown, and mapped to an HTTP status.

There is one base class, with a subclass for each kind. An error has a sentence for people (what and where), a code for
programs, details, and a hint if there is a way out. Every re-raise keeps its cause, so that the chain can be followed;
the *outermost* Runstream error is shown to the user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import PurePath
from typing import Any, ClassVar


class Kind(StrEnum):
    """The kind of an error; the value is used on the wire."""

    NOT_EXIST = "not-exist"
    BAD_REQUEST = "bad-request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    CONFLICT = "conflict"
    INTERNAL = "internal"
    REMOTE = "remote"


HTTP_STATUS: Mapping[Kind, int] = {
    Kind.NOT_EXIST: 404,
    Kind.BAD_REQUEST: 400,
    Kind.UNAUTHORIZED: 401,
    Kind.FORBIDDEN: 403,
    Kind.CONFLICT: 409,
    Kind.INTERNAL: 500,
    Kind.REMOTE: 500,
}


DEPENDENCY_OF_CODE: Mapping[str, str] = {
    **dict.fromkeys(("consumerLost", "logClosed", "logUnreachable", "natsUnreachable", "notStored"), "nats"),
    **dict.fromkeys(
        (
            "databaseContended",
            "databaseCredentialsRefused",
            "databaseDisconnected",
            "databaseFull",
            "databaseMissing",
            "databaseStarting",
            "databaseTimeout",
            "databaseUnreachable",
        ),
        "postgres",
    ),
    **dict.fromkeys(("objectsFailed", "objectsUnreachable"), "objects"),
}
"""The service that is unavailable or full, by error code: retrying later may help."""


class RunstreamError(Exception):
    """Base of every error that Runstream raises on purpose.

    `message` is one sentence for people; `code` names the case for machines (camelCase); `details` are
    JSON-able facts; `hint` says what to do about it.
    """

    kind: ClassVar[Kind] = Kind.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        details: Mapping[str, Any] | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.details: dict[str, Any] = dict(details or {})
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class NotExistError(RunstreamError):
    """The requested object does not exist."""

    kind = Kind.NOT_EXIST


class BadRequestError(RunstreamError):
    """The request is invalid."""

    kind = Kind.BAD_REQUEST


class UnauthorizedError(RunstreamError):
    """The request does not identify its sender."""

    kind = Kind.UNAUTHORIZED


class ForbiddenError(RunstreamError):
    """The sender may not do what it requests."""

    kind = Kind.FORBIDDEN


class ConflictError(RunstreamError):
    """Another writer changed it first."""

    kind = Kind.CONFLICT


class InternalError(RunstreamError):
    """A part of Runstream failed; the message is meant for the user."""

    kind = Kind.INTERNAL


class RemoteError(RunstreamError):
    """Another service returned an error.

    It is never mistaken for an error of Runstream itself: `remote_kind` is the kind that the other service reported,
    and `kind` stays `remote` unless a caller changes it on purpose.
    """

    kind = Kind.REMOTE

    def __init__(
        self,
        message: str,
        *,
        remote_kind: Kind,
        code: str = "",
        details: Mapping[str, Any] | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, code=code, details=details, hint=hint)
        self.remote_kind = remote_kind


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, outermost first; the branches of a group one after the other."""
    seen: set[int] = set()
    queue: list[BaseException] = [error]
    while queue:
        current = queue.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            queue[:0] = current.exceptions
        if current.__cause__ is not None:
            queue.append(current.__cause__)
        elif current.__context__ is not None and not current.__suppress_context__:
            queue.append(current.__context__)


def find(error: BaseException, kind: Kind) -> RunstreamError | None:
    """Return the outermost error of this kind in the chain of causes; None without one."""
    for cause in causes(error):
        if isinstance(cause, RunstreamError) and cause.kind is kind:
            return cause
    return None


def first_of(error: BaseException) -> BaseException:
    """Return the error, or the first one in a group."""
    return next(cause for cause in causes(error) if not isinstance(cause, BaseExceptionGroup))


def outermost(error: BaseException) -> RunstreamError | None:
    """Return the outermost Runstream error, which is shown to the user."""
    return next((cause for cause in causes(error) if isinstance(cause, RunstreamError)), None)


def sentence_of(error: BaseException) -> str:
    """Return the text of the error that explains a failure best: the outermost Runstream error, or else the first
    one."""
    first = first_of(error)
    return str(outermost(error) or "") or str(first) or type(first).__name__


def chain_lines(error: BaseException) -> list[str]:
    """Return the chain of causes for logs and `--detailed-errors`, one per line: `(Type) file:line: text`.

    The place is where the error was raised (the innermost frame of its own traceback), never a stack trace.
    """
    return [f"({type(cause).__name__}) {_place(cause)}{cause}" for cause in causes(error)]


def _place(error: BaseException) -> str:
    traceback = error.__traceback__
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    parts = PurePath(traceback.tb_frame.f_code.co_filename).parts
    root = max((i for i, part in enumerate(parts) if part in ("runstream", "site-packages")), default=len(parts) - 2)
    return f"{'/'.join(parts[max(root, 0) :])}:{traceback.tb_lineno}: "

"""Errors as responses: one JSON shape for every error, wherever it was raised.

    [{"code", "details", "message", "hint", "kind"}]

The outermost RunstreamError of the chain decides status and text. A stack trace never leaves the process; the chain
of causes does, in `chain`, when a client with a valid token asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import nats.errors
import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from runstream.database.failures import POSTGRES_ERRORS, failure
from runstream.errors import (
    DEPENDENCY_OF_CODE,
    HTTP_STATUS,
    BadRequestError,
    InternalError,
    NotExistError,
    RunstreamError,
    causes,
    chain_lines,
    outermost,
)
from runstream.jetstream.api import UnavailableError, is_away
from runstream.limits import MAX_WORD_BYTES
from runstream.open_files import OpenFilesError, out_of_files
from runstream.runconfig.problems import suggestion

JSON_TYPE = "application/json"
STATUS_OF_CODE: Mapping[str, int] = {
    "bodyTooLarge": 413,
    "aggregateParked": 503,
    "configBehind": 503,
    "configNotReady": 503,
    "configsBusy": 503,
    "gitBusy": 503,
    "invalidContentType": 415,
    "maintenance": 503,
    "methodNotAllowed": 405,
    "projectionBehind": 503,
    "repositoryBusy": 503,
    "repositoryFull": 413,
    "requestTimeout": 408,
    "tooManyFailedLogins": 429,
    "tooManyOpenFiles": 503,
    "webhooksBusy": 503,
    **dict.fromkeys(DEPENDENCY_OF_CODE, 503),
}
"""The status of codes that differ from the status of their kind."""
_MAX_NAMED = 10
"""Query parameters that an error names."""
RETRY_AFTER_SECONDS: Mapping[str, int] = {"maintenance": 10, "tooManyFailedLogins": 300}
"""Seconds after which a client should retry; other codes take 2."""
_RETRY_AFTER_SECONDS = 2


class JsonResponse(Response):
    """A JSON response, encoded by orjson."""

    media_type = JSON_TYPE

    def render(self, content: Any) -> bytes:
        """Encode the content."""
        return orjson.dumps(content)


def public_error(error: BaseException) -> RunstreamError:
    """Return the error to show: the outermost RunstreamError of the chain, else an internal one.

    A missing file descriptor comes before what was made of it on the way.
    """
    if out_of_files(error):
        return OpenFilesError("gateway")
    ours = outermost(error)
    if ours is not None:
        return ours
    for cause in causes(error):
        if isinstance(cause, nats.errors.Error) and is_away(cause):
            return UnavailableError("", str(cause) or type(cause).__name__)
        if isinstance(cause, POSTGRES_ERRORS) and (known := failure(cause)) is not None:
            return known
    return InternalError(
        f"the gateway failed: {type(error).__name__}: {error}",
        code="internal",
        hint="the log of the gateway has a record with the chain of causes",
    )


def status_of(error: RunstreamError) -> int:
    """Return the HTTP status of an error."""
    return STATUS_OF_CODE.get(error.code, HTTP_STATUS[error.kind])


def error_entry(error: BaseException, *, detailed: bool) -> dict[str, Any]:
    """Return the one entry of an error's body."""
    ours = public_error(error)
    dependency = DEPENDENCY_OF_CODE.get(ours.code)
    body: dict[str, Any] = {
        "code": ours.code,
        "details": ours.details | ({"dependency": dependency} if dependency else {}),
        "message": ours.message,
        "hint": ours.hint,
        "kind": ours.kind.value,
    }
    if detailed:
        body["chain"] = chain_lines(error)
    return body


def error_response(error: BaseException, *, detailed: bool = False, to_git: bool = False) -> Response:
    """Return an error as a response: JSON, or for git, plain text, which it shows to its user.

    Git sends a user and a password only when it is asked for them.
    """
    ours = public_error(error)
    status = status_of(ours)
    after = str(RETRY_AFTER_SECONDS.get(ours.code, _RETRY_AFTER_SECONDS))
    headers = {"Retry-After": after} if status in (429, 503) else {}
    if status == 405 and "allow" in ours.details:
        headers["Allow"] = ", ".join(ours.details["allow"])
    if to_git:
        if status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="Runstream"'
        text = "\n".join(filter(None, (ours.message, ours.hint)))
        return Response(text, status, headers, "text/plain")
    return JsonResponse([error_entry(error, detailed=detailed)], status_code=status, headers=headers)


def route_error(error: HTTPException, path: str, allowed: Iterable[str] = ()) -> RunstreamError:
    """Return the error for an unknown route, or for a method that the route does not take."""
    if error.status_code == 405:
        return BadRequestError(
            f"{path} does not take this method",
            code="methodNotAllowed",
            details={"allow": sorted(allowed)},
            hint="/api/v1alpha/openapi.json describes the methods of each route",
        )
    if error.status_code == 404:
        return NotExistError(
            f"there is no route {path}",
            code="routeDoesNotExist",
            hint="/api/v1alpha/openapi.json lists the routes",
        )
    return BadRequestError(str(error.detail), code="badRequest")


def unknown_parameters(route: str, unknown: Sequence[str], known: Sequence[str]) -> RunstreamError:
    """Return the error that names query parameters which a route does not have, and suggests the first one's name."""
    names = ", ".join(repr(name[:MAX_WORD_BYTES]) for name in unknown[:_MAX_NAMED])
    return BadRequestError(
        f"{route} has no query parameter{'s' if len(unknown) > 1 else ''} {names}",
        code="unknownParameter",
        details={"unknown": list(unknown[:_MAX_NAMED]), "known": list(known)},
        hint=suggestion(unknown[0], known) if known else "it takes no query parameters",
    )


def validation_error(error: RequestValidationError) -> RunstreamError:
    """Return the error that lists every invalid parameter with its place."""
    places = [(".".join(str(part) for part in item["loc"]), str(item["msg"])) for item in error.errors()]
    return BadRequestError(
        "; ".join(f"{place}: {text}" for place, text in places),
        code="invalidParameter",
        details={"errors": [{"path": place, "message": text} for place, text in places]},
        hint="/api/v1alpha/openapi.json describes the parameters of each route",
    )

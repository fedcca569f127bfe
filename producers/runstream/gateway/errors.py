"""What a client is told when something is wrong: one shape for every error, whatever raised it.

    [{"code", "details", "message", "hint", "kind"}]

The outermost error of ours decides status and text. A stack trace never leaves the process; the chain of
causes does, in `chain`, when a client with a valid token asked for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from runstream.jetstream.api import UnavailableError

JSON_TYPE = "application/json"
STATUS_OF_CODE: Mapping[str, int] = {
    "bodyTooLarge": 413,
    "configsBusy": 503,
    "maintenance": 503,
    "methodNotAllowed": 405,
    "projectionBehind": 503,
    **dict.fromkeys(DEPENDENCY_OF_CODE, 503),
}
"""Where HTTP has a status of its own for a case."""
RETRY_AFTER_SECONDS: Mapping[str, int] = {"maintenance": 10}
"""After how long to ask again; 2 seconds where nothing is said."""
_RETRY_AFTER_SECONDS = 2


class JsonResponse(Response):
    """JSON, written by orjson."""

    media_type = JSON_TYPE

    def render(self, content: Any) -> bytes:
        """The content's bytes."""
        return orjson.dumps(content)


def public_error(error: BaseException) -> RunstreamError:
    """The error that a user is told: the outermost of ours, or an internal one that says what failed."""
    ours = outermost(error)
    if ours is not None:
        return ours
    for cause in causes(error):
        if isinstance(cause, nats.errors.Error):
            return UnavailableError("", str(cause) or type(cause).__name__)
        if isinstance(cause, POSTGRES_ERRORS) and (known := failure(cause)) is not None:
            return known
    return InternalError(
        f"the gateway failed: {type(error).__name__}: {error}",
        code="internal",
        hint="the log of the gateway has a record with the chain of causes",
    )


def status_of(error: RunstreamError) -> int:
    """The HTTP status of an error that is told."""
    return STATUS_OF_CODE.get(error.code, HTTP_STATUS[error.kind])


def error_entry(error: BaseException, *, detailed: bool) -> dict[str, Any]:
    """The one entry of an error's body."""
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


def error_response(error: BaseException, *, detailed: bool = False) -> Response:
    """The answer that an error becomes."""
    ours = public_error(error)
    status = status_of(ours)
    after = str(RETRY_AFTER_SECONDS.get(ours.code, _RETRY_AFTER_SECONDS))
    headers = {"Retry-After": after} if status == 503 else {}
    if status == 405 and "allow" in ours.details:
        headers["Allow"] = ", ".join(ours.details["allow"])
    return JsonResponse([error_entry(error, detailed=detailed)], status_code=status, headers=headers)


def route_error(error: HTTPException, path: str, allowed: Iterable[str] = ()) -> RunstreamError:
    """Our error for what the router refuses: no such route, or not with this method."""
    if error.status_code == 405:
        return BadRequestError(
            f"{path} does not take this method",
            code="methodNotAllowed",
            details={"allow": sorted(allowed)},
            hint="what each route takes is described in /api/v1alpha/openapi.json",
        )
    if error.status_code == 404:
        return NotExistError(
            f"there is no route {path}",
            code="routeDoesNotExist",
            hint="the routes are listed in /api/v1alpha/openapi.json",
        )
    return BadRequestError(str(error.detail), code="badRequest")


def validation_error(error: RequestValidationError) -> RunstreamError:
    """Our error for parameters that do not fit: every one of them, each with its place."""
    places = [(".".join(str(part) for part in item["loc"]), str(item["msg"])) for item in error.errors()]
    return BadRequestError(
        "; ".join(f"{place}: {text}" for place, text in places),
        code="invalidParameter",
        details={"errors": [{"path": place, "message": text} for place, text in places]},
        hint="the parameters of every route are described in /api/v1alpha/openapi.json",
    )

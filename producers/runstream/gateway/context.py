"""What the routes work with, and what they have in common: parameters, answers, positions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

import msgspec
from fastapi import Depends, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream.commits import Position
from runstream.domain.executor import Offer, Sighting
from runstream.errors import BadRequestError
from runstream.evaluation.reader import ConfigReader
from runstream.gateway.errors import JSON_TYPE
from runstream.gateway.reads import PastRuns, Reads
from runstream.gateway.requests import decoded, read_content
from runstream.gateway.runs.actions import Actions
from runstream.gateway.runs.create import RunCreation
from runstream.gateway.runs.idempotency import IdempotencyKey, idempotency_key
from runstream.gateway.runs.restart import Restarts
from runstream.gateway.runs.why import Explainer
from runstream.jetstream.api import UnavailableError
from runstream.limits import MAX_WORD_BYTES
from runstream.log.port import Log
from runstream.sealing import Keyring
from runstream.settings import Settings
from runstream.subjects import StepLogKey


class StepLogs(Protocol):
    """Where the logs of steps are read: live while they are written, then the stored object."""

    async def open(self, key: StepLogKey, *, follow: bool, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes of a log from an offset on, each once; none where the log ends before it.

        With `follow` it may have nothing yet, and ends when the log does. Without, it ends with what there is
        now; raises NotExistError, before anything is read, when there is no such log.
        """
        ...

    async def tail(self, key: StepLogKey, lines: int) -> int:
        """Return the offset at which the last lines of what is written now begin."""
        ...


class Sightings(Protocol):
    """The leases of executors (`runstream.leases.ExecutorSightings`)."""

    async def seen(self) -> Mapping[str, Sighting]:
        """Every executor that holds its lease, by id. Raises UnavailableError."""
        ...


T = TypeVar("T")

OFFERS_SECONDS = 1.0
"""How long a request waits for what executors take: it only adds warnings."""
POSITION_HEADER = "Runstream-Position"

Flag = Annotated[str | None, Query(max_length=MAX_WORD_BYTES, description="a flag: there, or not")]


async def _named_positions(
    at_least: Annotated[
        str,
        Query(
            max_length=MAX_WORD_BYTES,
            description="answer with a state that includes these positions (as Runstream-Position gave them; commas)",
        ),
    ] = "",
    runstream_position: Annotated[
        str, Header(max_length=MAX_WORD_BYTES, alias=POSITION_HEADER, description="the same as at_least")
    ] = "",
) -> tuple[Position, ...]:
    return parse_positions(at_least or runstream_position)


AtLeast = Annotated[tuple[Position, ...], Depends(_named_positions)]
"""What the answer of a route has to include, as its query or a header names it."""


@dataclass(frozen=True, slots=True)
class GatewayContext:
    """What the gateway was given, and what it made of it."""

    settings: Settings
    log: Log
    reads: Reads
    past: PastRuns
    step_logs: StepLogs
    creation: RunCreation
    actions: Actions
    explainer: Explainer
    restarts: Restarts
    configs: ConfigReader
    keyring: Keyring
    stopping: asyncio.Event
    sightings: Sightings | None = None
    """Without it, no executor is known to be alive."""

    async def offers(self) -> dict[str, Offer]:
        """What the living executors take, by their ids; none while that cannot be read."""
        if self.sightings is None:
            return {}
        try:
            async with asyncio.timeout(OFFERS_SECONDS):
                seen = await self.sightings.seen()
        except (UnavailableError, TimeoutError):
            return {}
        return {name: sighting.offer for name, sighting in seen.items()}

    async def body(self, request: Request, kind: type[T]) -> T:
        """The request's body as a `kind`. Raises BadRequestError."""
        return decoded(await self._content(request), kind)

    async def keyed_body(self, request: Request, kind: type[T]) -> tuple[T, IdempotencyKey | None]:
        """The request's body as a `kind`, and its idempotency key if it has one. Raises BadRequestError."""
        content = await self._content(request)
        return decoded(content, kind), idempotency_key(request, content, self.keyring)

    async def _content(self, request: Request) -> bytes:
        return await read_content(request, self.settings.max_body_bytes)


def json_response(
    shape: object,
    *,
    status: int = 200,
    positions: Iterable[Position] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A shape as JSON; with the positions of what was appended, if something was."""
    return Response(msgspec.json.encode(shape), status, _with_positions(headers or {}, positions), JSON_TYPE)


def no_content(positions: Iterable[Position]) -> Response:
    """Done, and nothing to say but where it is in the log."""
    return Response(status_code=204, headers=_with_positions({}, positions))


def _with_positions(headers: Mapping[str, str], positions: Iterable[Position]) -> dict[str, str]:
    """Of each partition the last: it includes those before."""
    last = {position.partition: position for position in positions}
    texts = {POSITION_HEADER: ",".join(map(position_text, last.values()))} if last else {}
    return {**headers, **texts}


def position_text(position: Position) -> str:
    """How a position is written: `epoch/partition/sequence`."""
    return f"{position.epoch}/{position.partition}/{position.sequence}"


def parse_positions(text: str) -> tuple[Position, ...]:
    """The positions that a client names, separated by commas; none for empty. Raises BadRequestError."""
    return tuple(parse_position(one) for one in text.split(",")) if text else ()


def parse_position(text: str) -> Position:
    """The position that a client names. Raises BadRequestError."""
    parts = text.strip().split("/")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise BadRequestError(
            f"{text[:80]!r} is not a position",
            code="invalidPosition",
            hint=f"a position is EPOCH/PARTITION/SEQUENCE, as the header {POSITION_HEADER} of an answer has it",
        )
    return Position(*map(int, parts))


def flag(value: str | None) -> bool:
    """Whether a flag was given: `?follow`, `?follow=1`, `?follow=true`."""
    return value is not None and value.lower() not in ("0", "false", "no")


def documented(body: type | None, *answered: type | None, statuses: tuple[int, ...] = (200,)) -> dict[str, Any]:
    """Return what OpenAPI says of a route that answers with one of these shapes; `schemas` adds the shapes."""
    extra: dict[str, Any] = {}
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        extra["requestBody"] = {"required": True, "content": {JSON_TYPE: {"schema": schema}}}
    schemas = [{"$ref": f"#/components/schemas/{one.__name__}"} for one in answered if one is not None]
    if schemas:
        content = {JSON_TYPE: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}
        extra["responses"] = {str(status): {"description": _DONE[status], "content": content} for status in statuses}
    return extra


_DONE = {200: "done", 201: "created"}

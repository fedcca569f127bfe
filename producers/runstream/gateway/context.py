"""The context shared by the routes: dependencies, common parameters, JSON responses and positions of the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Protocol, TypeVar, get_args, get_origin

import msgspec
from fastapi import Depends, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream.api import CacheList
from runstream.commits import Position
from runstream.config.store import ConfigStore
from runstream.domain.executor import Offer, Sighting
from runstream.errors import InternalError
from runstream.evaluation.reader import ConfigReader
from runstream.gateway.config_bodies import decoded_leniently
from runstream.gateway.errors import JSON_TYPE
from runstream.gateway.reads import PastRuns, Reads
from runstream.gateway.requests import Body, decoded, read_content
from runstream.gateway.responses import SCHEMA_NAMES
from runstream.gateway.runs.actions import Actions
from runstream.gateway.runs.create import RunCreation
from runstream.gateway.runs.idempotency import IdempotencyKey, idempotency_key
from runstream.gateway.runs.recent import RecentRuns
from runstream.gateway.runs.restart import Restarts
from runstream.gateway.runs.why import Explainer
from runstream.gateway.sessions import Sessions
from runstream.git.mirrors import Mirrors
from runstream.git.server import GitServer
from runstream.git.sources import DEFAULT_SOURCES, AllowedSources
from runstream.jetstream.api import UnavailableError
from runstream.limits import MAX_WORD_BYTES
from runstream.log.port import Log
from runstream.log_lines import LinePage
from runstream.log_search import SearchPage
from runstream.log_times import TimedBytes
from runstream.sealing import Keyring
from runstream.settings import Settings
from runstream.subjects import StepLogKey


class StepLogSource(Protocol):
    """The logs of steps: live while a step writes, then the stored object."""

    async def open(self, key: StepLogKey, *, follow: bool, offset: int = 0) -> AsyncIterator[bytes]:
        """Yield the bytes of a log from `offset`, each once; none where the log ends before it.

        With `follow`, wait for a log that has no bytes yet, and end when the log ends. Without, end with the bytes of
        now. Raises NotExistError before the first byte when there is no such log.
        """

    async def open_timed(self, key: StepLogKey, *, follow: bool, offset: int = 0) -> AsyncIterator[TimedBytes]:
        """Yield the same bytes as `open`, with their times."""

    async def lines(self, key: StepLogKey, first: int, count: int) -> LinePage:
        """Return `count` lines of the log as it is now from a number on; a negative one counts from the end."""

    async def search(self, key: StepLogKey, first: int, count: int, query: Any) -> SearchPage:
        """Return up to `count` lines of the log as it is now that match, from a number on."""

    async def since(self, key: StepLogKey, time: int) -> int:
        """Return the offset of the first line that was written at a time (milliseconds since 1970) or later."""

    async def stored_size(self, key: StepLogKey) -> int | None:
        """Return the size of a log that is stored, and so does not change; None for any other."""

    async def delete(self, key: StepLogKey) -> None:
        """Delete a stored log. Raises NotExistError for a missing one, BadRequestError for one that is not stored."""

    async def tail(self, key: StepLogKey, lines: int) -> int:
        """Return the offset of the last `lines` lines that are written now."""


class CacheStore(Protocol):
    """The caches of tasks (`runstream.objects.caches`)."""

    async def page(self, group: str, prefix: str, limit: int, cursor: str) -> CacheList:
        """Return the caches of a group, or of all groups, whose key begins with a text."""
        ...

    async def delete(self, group: str, key: str) -> None:
        """Delete a cache. Raises NotExistError."""
        ...


class Sightings(Protocol):
    """The leases of executors (`runstream.leases.ExecutorSightings`)."""

    async def seen(self) -> Mapping[str, Sighting]:
        """Return every executor that holds its lease, by id. Raises UnavailableError."""


T = TypeVar("T")

OFFERS_SECONDS = 1.0
"""Maximum wait of a request for the offers of executors, in seconds; they only add warnings."""
POSITION_HEADER = "Runstream-Position"

Flag = Annotated[str | None, Query(max_length=MAX_WORD_BYTES, description="a flag: there, or not")]
WithConfig = Annotated[
    str, Query(max_length=MAX_WORD_BYTES, description="`false`: respond without the run config, half of the response")
]


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
    text = at_least or runstream_position
    return tuple(Position.parse(one.strip()) for one in text.split(",")) if text else ()


AtLeast = Annotated[tuple[Position, ...], Depends(_named_positions)]
"""Positions that the response must include, from the query or the header."""


@dataclass(frozen=True, slots=True)
class GitRepositories:
    """The git repositories of a gateway."""

    mirrors: Mirrors
    server: GitServer
    expiry: timedelta | None = None
    """Age of a commit at which a ref that a user pushed is deleted; None for never."""


@dataclass(frozen=True, slots=True)
class GatewayContext:
    """The dependencies of all routes."""

    settings: Settings
    log: Log
    reads: Reads
    past: PastRuns
    step_logs: StepLogSource
    caches: CacheStore
    creation: RunCreation
    actions: Actions
    explainer: Explainer
    restarts: Restarts
    configs: ConfigReader
    keyring: Keyring
    stopping: asyncio.Event
    sightings: Sightings | None = None
    """Without it, no executor is known to be alive."""
    store: ConfigStore | None = None
    """Users, projects and secrets; `config` returns it."""
    git: GitRepositories | None = None
    """Repositories; `mirrors` and `repositories` return them."""
    sessions: Sessions | None = None
    """Logins of browsers; without it, there are tokens alone."""
    recent: RecentRuns = field(default_factory=RecentRuns)
    """The runs of projects and users that this gateway created a moment ago."""

    @property
    def mirrors(self) -> Mirrors:
        """The mirrors of projects' repositories. Raises InternalError in a gateway without them."""
        return self._git().mirrors

    @property
    def repositories(self) -> GitServer:
        """The repositories of users. Raises InternalError in a gateway without them."""
        return self._git().server

    @property
    def allowed_sources(self) -> AllowedSources:
        """Where the repositories of users' runs may be."""
        return self.git.mirrors.allowed if self.git is not None else DEFAULT_SOURCES

    def _git(self) -> GitRepositories:
        if self.git is None:
            raise InternalError("this gateway has no git repositories", code="gitNotReady")
        return self.git

    @property
    def config(self) -> ConfigStore:
        """Users, projects and secrets. Raises InternalError in a gateway without them."""
        if self.store is None:
            raise InternalError("this gateway has no users and projects", code="configNotReady")
        return self.store

    async def offers(self) -> dict[str, Offer]:
        """Return what the live executors offer, by id; empty when the leases cannot be read."""
        if self.sightings is None:
            return {}
        try:
            async with asyncio.timeout(OFFERS_SECONDS):
                seen = await self.sightings.seen()
        except (UnavailableError, TimeoutError):
            return {}
        return {name: sighting.offer for name, sighting in seen.items()}

    async def body(self, request: Request, kind: type[T]) -> T:
        """Decode the request's body as a `kind`. Raises BadRequestError."""
        return _decoded(await self._content(request), kind)

    async def keyed_body(self, request: Request, kind: type[T]) -> tuple[T, IdempotencyKey | None]:
        """Decode the request's body as a `kind`; return it with the idempotency key, if any. Raises BadRequestError."""
        content = await self._content(request)
        return _decoded(content, kind), idempotency_key(request, content, self.keyring)

    async def _content(self, request: Request) -> bytes:
        return await read_content(request, self.settings.max_body_bytes)


def _decoded(content: bytes, kind: type[T]) -> T:
    """Decode a body; those that clients of the model send leniently, where null is a field that is left out."""
    return decoded(content, kind) if issubclass(kind, Body) else decoded_leniently(content, kind)


def json_response(
    shape: object,
    *,
    status: int = 200,
    positions: Iterable[Position] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a response model as JSON, with the positions of the commits that the request appended."""
    return Response(msgspec.json.encode(shape), status, _with_positions(headers or {}, positions), JSON_TYPE)


def no_content(positions: Iterable[Position]) -> Response:
    """Return 204 with the positions of the commits that the request appended."""
    return Response(status_code=204, headers=_with_positions({}, positions))


def position_headers(positions: Iterable[Position]) -> dict[str, str]:
    """Return the header with the positions of the commits that the request appended."""
    return _with_positions({}, positions)


def _with_positions(headers: Mapping[str, str], positions: Iterable[Position]) -> dict[str, str]:
    """Add the last position of each partition, which includes those before it."""
    last = {position.partition: position for position in positions}
    texts = {POSITION_HEADER: ",".join(map(str, last.values()))} if last else {}
    return {**headers, **texts}


def flag(value: str | None) -> bool:
    """Return whether a flag is set: `?follow`, `?follow=1`, `?follow=true`."""
    return value is not None and value.lower() not in ("0", "false", "no")


def documented(
    body: type | None, *answered: Any, statuses: tuple[int, ...] = (200,), required: bool = True
) -> dict[str, Any]:
    """Return the OpenAPI entry of a route with these request and response models, which `openapi` describes.

    `required` says that a request without a body is refused.
    """
    extra: dict[str, Any] = {}
    if body is not None:
        extra["requestBody"] = {"required": required, "content": {JSON_TYPE: {"schema": _reference(body)}}}
    schemas = [_reference(one) for one in answered if one is not None]
    if schemas:
        content = {JSON_TYPE: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}
        extra["responses"] = {str(status): {"description": _DONE[status], "content": content} for status in statuses}
    return extra


def _reference(kind: Any) -> dict[str, Any]:
    if get_origin(kind) is list:
        return {"type": "array", "items": _reference(get_args(kind)[0])}
    return {"$ref": f"#/components/schemas/{SCHEMA_NAMES.get(kind.__name__, kind.__name__)}"}


_DONE = {200: "done", 201: "created", 202: "begun"}

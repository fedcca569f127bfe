"""Git's smart HTTP protocol: the refs of a repository, fetching from it and pushing to it.

    GET  /<user id>/<repository uuid>.git/info/refs?service=git-upload-pack|git-receive-pack
    POST /<user id>/<repository uuid>.git/git-upload-pack
    POST /<user id>/<repository uuid>.git/git-receive-pack

Bodies may be gzipped; their limits are about what they inflate to, and inflating ends there. It also ends where a small
body inflates to a large one: the work for a request is in proportion to what its client sends.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, TypeAlias

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from runstream.counting import counted
from runstream.errors import BadRequestError, NotExistError
from runstream.git.server import GitServer, GitService, RepositoryName

Access: TypeAlias = Literal["read", "push"]
Authorize: TypeAlias = Callable[[Request, RepositoryName, Access], Awaitable[None]]
"""Raises RunstreamError for a request that may not read, or push to, this repository."""

_PATH = re.compile(r"/([^/]+/[^/]+)\.git/(info/refs|git-upload-pack|git-receive-pack)")
_INFLATED_BYTES = 64 << 10
_INFLATED_FREELY = 4 << 20
"""Bytes that any gzipped body may inflate to."""
_INFLATED_TIMES = 20
"""Beyond that, how many times its size: packs are compressed already, and lists of commits shrink to a half."""
_NO_CACHE = {"Cache-Control": "no-cache, max-age=0, must-revalidate", "Expires": "0", "Pragma": "no-cache"}


class GitHttp:
    """The routes of a git server as an ASGI application, to be mounted.

    It raises errors as the routes of the API do. The middleware makes responses of them that git shows, and asks git
    for a user and a password (see `runstream.gateway.errors`).
    """

    def __init__(self, server: GitServer, authorize: Authorize) -> None:
        self._server = server
        self._authorize = authorize

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. Raises RunstreamError before the first byte of the answer."""
        request = Request(scope, receive)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if (found := _PATH.fullmatch(path)) is None:
            raise NotExistError(
                f"there is no route {path[:200]}",
                code="routeDoesNotExist",
                hint="a repository is /repos/<user id>/<repository uuid>.git",
            )
        name, action = RepositoryName.parse(found[1]), found[2]
        wanted = "GET" if action == "info/refs" else "POST"
        if request.method != wanted:
            raise BadRequestError(
                f"{path} does not take this method", code="methodNotAllowed", details={"allow": [wanted]}
            )
        service = _service(request) if action == "info/refs" else GitService(action)
        await self._authorize(request, name, "push" if service is GitService.PUSH else "read")
        if action == "info/refs":
            await self._advertise(request, name, service, send)
        elif service is GitService.FETCH:
            await self._fetch(request, name, send)
        else:
            await self._push(request, name, send)

    async def _advertise(self, request: Request, name: RepositoryName, service: GitService, send: Send) -> None:
        content = await self._server.advertise(name, service, request.headers.get("git-protocol", ""))
        response = Response(content, media_type=f"application/x-{service}-advertisement", headers=_NO_CACHE)
        await response(request.scope, request.receive, send)

    async def _fetch(self, request: Request, name: RepositoryName, send: Send) -> None:
        parts = [part async for part in body_of(request, GitService.FETCH, self._server.limits.request_bytes)]
        protocol = request.headers.get("git-protocol", "")
        async with self._server.fetch(name, b"".join(parts), protocol) as answer:
            first = await anext(answer, b"")  # a failure before the first byte is an error of its own
            response = StreamingResponse(
                _with_first(first, answer),
                media_type=f"application/x-{GitService.FETCH}-result",
                headers=_NO_CACHE,
            )
            await response(request.scope, request.receive, send)

    async def _push(self, request: Request, name: RepositoryName, send: Send) -> None:
        body = body_of(request, GitService.PUSH, self._server.limits.push_bytes)
        report = await self._server.push(name, body)
        response = Response(report, media_type=f"application/x-{GitService.PUSH}-result", headers=_NO_CACHE)
        await response(request.scope, request.receive, send)


async def body_of(request: Request, service: GitService, limit: int) -> AsyncIterator[bytes]:
    """Yield the body of a request, inflated. Raises BadRequestError for another content, or for too much of it."""
    media = request.headers.get("content-type", "")
    if media != f"application/x-{service}-request":
        raise BadRequestError(f"the content type {media[:80]!r} is not one of {service}", code="invalidContentType")
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in ("gzip", "x-gzip", "identity"):
        raise BadRequestError(f"the content encoding {encoding[:80]!r} is not gzip", code="invalidContentType")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(service, limit)
    parts = request.stream() if encoding == "identity" else _inflated(request.stream())
    size = 0
    async for part in parts:
        size += len(part)
        if size > limit:
            raise _too_large(service, limit)
        yield part


async def _inflated(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    inflating, received, size = zlib.decompressobj(wbits=31), 0, 0
    try:
        async for part in parts:
            data, inflated, received = part, b"", received + len(part)
            while data or len(inflated) == _INFLATED_BYTES:  # without input, there may be output left
                inflated = inflating.decompress(data, _INFLATED_BYTES)
                size += len(inflated)
                if size > _INFLATED_FREELY + _INFLATED_TIMES * received:
                    raise BadRequestError(
                        f"the body inflates to more than {_INFLATED_TIMES} times its size",
                        code="bodyTooLarge",
                        hint="send it without gzip",
                    )
                yield inflated
                data = inflating.unconsumed_tail
            if inflating.unused_data:
                raise _no_gzip("it goes on behind its end")
    except zlib.error as error:
        raise _no_gzip(str(error)) from error
    if not inflating.eof:
        raise _no_gzip("its end is missing")


def _no_gzip(reason: str) -> BadRequestError:
    return BadRequestError(f"the body is not gzip: {reason}", code="malformedBody")


def _too_large(service: GitService, limit: int) -> BadRequestError:
    what = "push" if service is GitService.PUSH else "request"
    return BadRequestError(
        f"the {what} is larger than {counted(limit, 'byte')}",
        code="bodyTooLarge",
        details={"limit": limit},
        hint="leave large files out of it, such as by .gitignore" if service is GitService.PUSH else "",
    )


def _service(request: Request) -> GitService:
    given = request.query_params.getlist("service")
    if len(given) != 1 or len(request.query_params.multi_items()) != 1 or given[0] not in list(GitService):
        raise BadRequestError(
            f"the service {given[:1]} is not one of {', '.join(GitService)}",
            code="invalidParameter",
            hint="use git 1.6.6 or later, which speaks the smart protocol",
        )
    return GitService(given[0])


async def _with_first(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part

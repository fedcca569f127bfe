"""The page for browsers, at /ui: one document for every path, and assets whose names have the hash of their content.

The files in `page/` are built from `producers/web` and committed, so that a service needs no Node. They hold no data:
they are served without a login, in maintenance, and while NATS is away. The page asks the API, with the session's
cookies, and the API decides what its user may see.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from runstream.errors import BadRequestError, NotExistError, RunstreamError
from runstream.gateway.errors import error_response

PREFIX = "/ui"
_FOLDER = "page"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
SAFETY: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
)
"""Headers of everything at /ui."""
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_FOREVER = "public, max-age=31536000, immutable"
_COMMAND = "{command}"
"""The place in the document for the command that shows the same."""


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    compressed: bytes
    media_type: str
    tag: str


def _file(name: str, content: bytes) -> _File:
    # Without a time, so that all gateways of a deployment send the same bytes.
    compressed = gzip.compress(content, 9, mtime=0)
    return _File(content, compressed, _TYPES[Path(name).suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


class PageFiles:
    """The ASGI application below /ui."""

    def __init__(self, folder: Path | None = None) -> None:
        """Read the files of `folder`, by default the ones of this package."""
        self._folder = folder if folder is not None else Path(str(resources.files("runstream.gateway") / _FOLDER))
        self._built = 0
        self._assets: dict[str, _File] = {}
        self._document = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            response = self._response(Request(scope))
        except RunstreamError as error:
            response = error_response(error)
            response.headers.update(SAFETY)
        await response(scope, receive, send)

    def _response(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise BadRequestError(
                f"{request.url.path} does not take {request.method}",
                code="methodNotAllowed",
                details={"allow": ["GET", "HEAD"]},
                hint="the API is at /api/v1alpha",
            )
        self._refresh()
        path = request.scope["path"].removeprefix(PREFIX)
        if path.startswith("/assets/"):
            return self._asset(path.removeprefix("/assets/"), request.headers)
        raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
        base = f"{request.url.scheme}://{request.url.netloc}/"
        command = escape(command_for(raw.decode("latin-1").removeprefix(PREFIX), base))
        document = self._document.replace(_COMMAND, command).encode()
        return _answer(_file("index.html", document), request.headers, "no-cache")

    def _refresh(self) -> None:
        """Read the files when they were built since; the document is written last."""
        document = self._folder / "index.html"
        built = document.stat().st_mtime_ns
        if built == self._built:
            return
        self._document = document.read_text()
        assets = {path.name: _file(path.name, path.read_bytes()) for path in (self._folder / "assets").iterdir()}
        # A page that is open still asks for the chunks of its own version.
        self._assets = {**self._assets, **assets}
        self._built = built

    def _asset(self, name: str, headers: Headers) -> Response:
        found = self._assets.get(name)
        if found is None:
            raise NotExistError(
                f"the page has no file {name[:80]!r}", code="assetDoesNotExist", hint="load the page again"
            )
        return _answer(found, headers, _FOREVER)


def _answer(file: _File, headers: Headers, caching: str) -> Response:
    sent = {**SAFETY, "Cache-Control": caching, "ETag": file.tag, "Vary": "Accept-Encoding"}
    known = [tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")]
    if file.tag in known:
        return Response(status_code=304, headers=sent)
    accepted = [one.partition(";")[0].strip() for one in headers.get("accept-encoding", "").split(",")]
    if "gzip" in accepted:
        return Response(file.compressed, headers={**sent, "Content-Encoding": "gzip"}, media_type=file.media_type)
    return Response(file.content, headers=sent, media_type=file.media_type)


_COMMANDS: tuple[tuple[str, str], ...] = (
    (r"/runs/([^/]+)/log/([^/]+)/([^/]+)", "log get {0} {1} --step {2}"),
    (r"/runs/([^/]+)/events", "events tail --run {0}"),
    (r"/runs/([^/]+)/diff", "run diff {0}"),
    (r"/runs/([^/]+)/restart", "run restart {0} --dry-run"),
    (r"/runs/([^/]+).*", "run get {0}"),
    (r"/groups/([^/]+)", "run list --group {0}"),
    (r"/events", "events tail"),
    (r"/executors", "executor list"),
    (r"/ops.*", "status"),
    (r"/p/(.+)", "project get --ref {0}"),
    (r"/g/(.+)", "project list --parent {0}"),
    (r"/p", "org list"),
    (r"/orgs(?:/.*)?", "org list"),
    (r"/(?:user|admin).*", "user list"),
    (r".*", "run list"),
)


def command_for(path: str, url: str) -> str:
    """Return the command that shows what the page shows at a (raw) path below /ui."""
    for pattern, command in _COMMANDS:
        if (found := re.fullmatch(pattern, path)) is not None:
            words = [shlex.quote(unquote(word)) for word in found.groups()]
            return f"runstream --url {url} --token TOKEN {command.format(*words)}"
    raise AssertionError(path)


async def _to_page(_request: Request) -> Response:
    return RedirectResponse(f"{PREFIX}/", 307, headers=dict(SAFETY))


def page_routes() -> list[BaseRoute]:
    """Return the routes of the page: / leads there."""
    return [Route("/", _to_page), Route(PREFIX, _to_page), Mount(PREFIX, PageFiles())]

"""HTTP to one git host: every call bounded, its limits respected, every failure a HostError.

- A call is retried if that cannot do harm: a host that was not reached, a limit that the host says is over soon, and
  any passing failure of a call that may be repeated.
- A host that names a time (`Retry-After`, `X-RateLimit-Reset`, `RateLimit-Reset`) gets no call of that token before it.
- An answer with an `ETag` is kept, and asked for only if it has changed, which GitHub does not count.
- A redirect is followed on the same origin only: a token never goes elsewhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx2
import msgspec
from cachetools import LRUCache

from runstream.backoff import Backoff
from runstream.errors import BadRequestError
from runstream.hosts.errors import HostError
from runstream.hosts.port import HostSettings
from runstream.repository_urls import DEFAULT_PORTS

T = TypeVar("T")
_REPEATABLE = frozenset({"GET", "PUT", "PATCH", "DELETE"})
_LIMITED_SECONDS = 60.0
"""The wait after a refusal for too many requests that names no time."""
_LONGEST_SECONDS = 86_400.0
"""The longest wait that a host can impose."""
_DELTA = 1_000_000_000
"""A reset below this is a number of seconds, above it a Unix time."""
_KEPT_ANSWERS = 500
_KEPT_BYTES = 64 << 10
_REDIRECTS = 3
_PAGES = 100
_NEXT = re.compile(r'<([^<>]*)>\s*;[^,]*\brel="?next"?')
_REASON = 200
_SECRET_FIELDS = frozenset({"client_secret", "code", "code_verifier", "refresh_token", "secret", "token"})


@dataclass(frozen=True, slots=True)
class HostLimits:
    """Limits of calls to a host."""

    seconds: float = 30.0
    """Maximum duration of one request."""
    connect_seconds: float = 10.0
    json_bytes: int = 8 << 20
    """Maximum size of an answer in JSON."""
    wait_seconds: float = 10.0
    """The longest wait that a call sits out; for a longer one it fails, and says how long."""
    retries: Backoff = field(default_factory=lambda: Backoff(0.5, 4.0, attempts=3, jitter=True))


@dataclass(frozen=True, slots=True)
class HostClock:
    """The time, and how a call waits."""

    now: Callable[[], float] = time.time
    """Return the Unix time in seconds."""
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


DEFAULT_LIMITS = HostLimits()
DEFAULT_CLOCK = HostClock()


@dataclass(frozen=True, slots=True)
class HostAnswer:
    """A successful answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    url: str

    def decode(self, kind: type[T]) -> T:
        """Decode JSON. Raises HostError `hostAnswerInvalid`."""
        try:
            return msgspec.json.decode(self.content, type=kind)
        except (ValueError, RecursionError) as error:
            raise HostError(
                f"the answer of {_shown(self.url)} cannot be understood: {str(error)[:_REASON]}",
                code="hostAnswerInvalid",
                hint="is the API URL of the remote source that of its git host, and its type the right one?",
            ) from error


@dataclass(frozen=True, slots=True)
class HostRequest:
    """A request to a host."""

    method: str
    url: str
    token: str = field(default="", repr=False)
    login: tuple[str, str] | None = field(default=None, repr=False)
    """A user and password, instead of a token."""
    query: Mapping[str, str] = field(default_factory=dict)
    body: object | None = field(default=None, repr=False)
    """What is sent as JSON."""
    form: Mapping[str, str] | None = field(default=None, repr=False)
    accept: str = "application/json"
    limit: int = 0
    """Maximum size of the answer in bytes; 0 for that of JSON."""

    @property
    def caller(self) -> str:
        """A digest of the token or login, by which limits and kept answers are told apart."""
        return hashlib.sha256("\0".join((self.token, *(self.login or ()))).encode()).hexdigest()

    def shown(self, text: str) -> str:
        """Return what the host says of this request, for a message: short, printable, without the request's secrets."""
        found = {self.token, *(self.login or ())[1:], *_secrets(self.form), *_secrets(self.body)} - {""}
        for secret in sorted(found, key=len, reverse=True):
            text = text.replace(secret, "***")
        return "".join(letter if letter.isprintable() else " " for letter in text[:_REASON])


class HostClient:
    """Connections to one host, below the URL `api`."""

    def __init__(
        self,
        api: str,
        settings: HostSettings,
        limits: HostLimits = DEFAULT_LIMITS,
        clock: HostClock = DEFAULT_CLOCK,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.api = api
        self._limits = limits
        self._clock = clock
        self._origin = _origin(api)
        self._http = httpx2.AsyncClient(
            headers={"User-Agent": "runstream", "Accept-Encoding": "identity", **(headers or {})},
            verify=_tls(settings, self._origin[0]),
            timeout=httpx2.Timeout(limits.seconds, connect=limits.connect_seconds),
            follow_redirects=False,
        )
        self._blocked: LRUCache[str, float] = LRUCache(1000)
        self._kept: LRUCache[tuple[str, str, str], HostAnswer] = LRUCache(_KEPT_ANSWERS)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def get(self, path: str, kind: type[T], token: str, query: Mapping[str, str] | None = None) -> T:
        """Read an object."""
        return (await self.send("GET", path, token=token, query=query or {})).decode(kind)

    async def get_all(self, path: str, kind: type[T], token: str, query: Mapping[str, str] | None = None) -> list[T]:
        """Read a list, page by page."""
        return [
            item
            for page in await self.pages(path, token, query or {})
            for item in page.decode(list[kind])  # type: ignore[valid-type]
        ]

    async def pages(self, path: str, token: str, query: Mapping[str, str]) -> list[HostAnswer]:
        """Read the pages of a list, by their links to the next one. Raises HostError after 100 of them."""
        pages = [await self.send("GET", path, token=token, query=query)]
        while found := _NEXT.search(pages[-1].headers.get("link", "")):
            if len(pages) >= _PAGES:
                raise HostError(f"{_shown(pages[0].url)} has more than {_PAGES} pages", code="hostAnswerTooLarge")
            url = str(httpx2.URL(pages[-1].url).join(found[1]))
            self._require_origin(url, pages[-1].url)
            pages.append(await self.request(HostRequest("GET", url, token)))
        return pages

    async def send(self, method: str, path: str, **options: Any) -> HostAnswer:
        """Send a request to a path below the API, which begins with `/`."""
        return await self.request(HostRequest(method, f"{self.api}{path}", **options))

    async def request(self, request: HostRequest) -> HostAnswer:
        """Send a request, and retry it by the rules above. Raises HostError for an answer other than 2xx."""
        for delay in self._limits.retries.delays():
            try:
                return await self._once(request)
            except HostError as error:
                wait = error.retry_after or delay
                refused = error.code == "hostLimited" or not error.sent
                repeatable = refused or (error.passing and request.method in _REPEATABLE)
                if not repeatable or wait > self._limits.wait_seconds:
                    raise
            await self._clock.pause(wait)
        return await self._once(request)

    async def _once(self, request: HostRequest) -> HostAnswer:
        left = self._blocked.get(request.caller, 0.0) - self._clock.now()
        if left > 0:
            raise _limited(self._host, left)
        url = request.url
        for _ in range(_REDIRECTS + 1):
            try:
                async with asyncio.timeout(self._limits.seconds):
                    answer = await self._exchange(request, url)
            except TimeoutError as error:
                raise self._timeout(request) from error
            location = answer.headers.get("location", "")
            followed = (301, 302, 307, 308) if request.method == "GET" else (307, 308)
            if not (answer.status in followed and location):
                return self._checked(request, answer)
            target = str(httpx2.URL(url).join(location))
            self._require_origin(target, url)
            url = target
        raise HostError(f"{_shown(request.url)} leads from redirect to redirect", code="hostRedirected")

    async def _exchange(self, request: HostRequest, url: str) -> HostAnswer:
        headers = {"Accept": request.accept}
        if request.token:
            headers["Authorization"] = f"Bearer {request.token}"
        key = (request.caller, url if not request.query else f"{url}?{sorted(request.query.items())}", request.accept)
        limit = request.limit or self._limits.json_bytes
        kept = self._kept.get(key) if request.method == "GET" else None
        if kept is not None and len(kept.content) <= limit:
            headers["If-None-Match"] = kept.headers["etag"]
        try:
            async with self._http.stream(
                request.method,
                url,
                params=dict(request.query) or None,
                headers=headers,
                json=request.body,
                data=dict(request.form) if request.form is not None else None,
                auth=httpx2.BasicAuth(*request.login) if request.login else None,
            ) as response:
                found = {name.lower(): value for name, value in response.headers.items()}
                self._note_limit(request, response.status_code, found)
                if response.status_code == 304 and kept is not None:
                    return kept
                content = await _content(response, limit)
                answer = HostAnswer(response.status_code, found, content, str(response.url))
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._failed(request, error) from error
        if request.method == "GET" and answer.status == 200 and "etag" in found and len(content) <= _KEPT_BYTES:
            self._kept[key] = answer
        return answer

    def _checked(self, request: HostRequest, answer: HostAnswer) -> HostAnswer:
        """Return a 2xx; raise the error of any other answer."""
        status = answer.status
        if 200 <= status < 300:
            return answer
        wait = self._wait(answer.headers)
        if _is_limit(status, answer.headers):
            wait = wait or _LIMITED_SECONDS
            self._blocked[request.caller] = self._clock.now() + wait
            raise _limited(self._host, wait, status)
        if 300 <= status < 400:
            raise HostError(
                f"{self._host} answers {request.method} {_shown(request.url)} with a redirect ({status})",
                code="hostRedirected",
                status=status,
                hint="give the API URL at which the host itself answers",
            )
        what = f"{self._host} answers {request.method} {_shown(request.url)} with {status}"
        what = f"{what}{_reason(request, answer)}"
        if status >= 500:
            raise HostError(what, code="hostFailed", status=status, retry_after=wait, hint="the host has a problem")
        match status:
            case 401:
                raise HostError(
                    what, code="hostCredentialsRefused", status=status, hint="link the account at the host again"
                )
            case 403:
                raise HostError(
                    what,
                    code="hostForbidden",
                    status=status,
                    hint="the account needs the rights of an administrator on the repository, and the token its scopes",
                )
            case 404 | 410:
                raise HostError(
                    what,
                    code="hostObjectDoesNotExist",
                    status=404,
                    hint="was it deleted, or can the account not see it?",
                )
        raise HostError(what, code="hostRefused", status=status)

    @property
    def _host(self) -> str:
        return urlsplit(self.api).netloc

    def _wait(self, headers: Mapping[str, str]) -> float:
        """Return the seconds until the host takes calls again, as far as it says so; 0 if not."""
        after = headers.get("retry-after", "")
        if after.isascii() and after.isdigit():
            return min(float(after[:9]), _LONGEST_SECONDS)
        if after:
            try:
                until = parsedate_to_datetime(after).timestamp()
            except ValueError:  # no date: as if the header were not there
                until = 0.0
            return min(max(until - self._clock.now(), 0.0), _LONGEST_SECONDS)
        reset = headers.get("x-ratelimit-reset") or headers.get("ratelimit-reset") or ""
        if not (_remaining(headers) == "0" and reset.isascii() and reset.isdigit() and len(reset) < 12):
            return 0.0
        seconds = float(reset) if int(reset) < _DELTA else float(reset) - self._clock.now()
        return min(max(seconds, 0.0), _LONGEST_SECONDS)

    def _note_limit(self, request: HostRequest, status: int, headers: Mapping[str, str]) -> None:
        """Remember that an answer was the last one before the host's limit."""
        if status < 400 and _remaining(headers) == "0" and (wait := self._wait(headers)):
            self._blocked[request.caller] = self._clock.now() + wait

    def _require_origin(self, url: str, source: str) -> None:
        if _origin(url) != self._origin:
            raise HostError(
                f"{_shown(source)} leads to another server, {urlsplit(url).netloc[:100]}",
                code="hostRedirected",
                hint="give the API URL at which the host itself answers",
            )

    def _timeout(self, request: HostRequest) -> HostError:
        return HostError(
            f"{self._host} did not answer {request.method} {_shown(request.url)} within {self._limits.seconds:g} s",
            code="hostTimeout",
        )

    def _failed(self, request: HostRequest, error: Exception) -> HostError:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):  # the client drops the error that has a type of its own
            return HostError(
                f"the certificate of {self._host} is not valid: {str(error)[:_REASON]}",
                code="hostCertificateInvalid",
                hint="give the remote source the certificate authority of the host",
            )
        unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
        if isinstance(error, httpx2.TimeoutException) and not unsent:
            return self._timeout(request)
        what = "cannot reach" if unsent else "the connection broke off to"
        why = str(error)[:_REASON] or type(error).__name__
        return HostError(
            f"{what} {self._host} for {request.method} {_shown(request.url)}: {why}",
            code="hostUnreachable",
            sent=not unsent,
            hint="is the host up, and its API URL right?",
        )


async def _content(response: httpx2.Response, limit: int) -> bytes:
    """Read a body within the limit. A compressed one is refused: its size is not known before it is unpacked."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise HostError(f"{_shown(str(response.url))} answers compressed, unasked", code="hostAnswerInvalid")
    content = bytearray()
    async for part in response.aiter_raw():
        content += part
        if len(content) > limit:
            raise HostError(
                f"the answer of {_shown(str(response.url))} is larger than {limit} bytes", code="hostAnswerTooLarge"
            )
    return bytes(content)


def _secrets(sent: object) -> list[str]:
    """Return the values of the fields that hold secrets."""
    if not isinstance(sent, Mapping):
        return []
    return [
        secret
        for name, value in sent.items()
        for secret in ([str(value)] if name in _SECRET_FIELDS else _secrets(value))
    ]


def _tls(settings: HostSettings, scheme: str) -> ssl.SSLContext:
    if scheme != "https":  # loading the trusted certificates takes 20 ms
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = httpx2.create_ssl_context(verify=settings.verify_tls)
    if settings.ca_certificates:
        try:
            context.load_verify_locations(cadata=settings.ca_certificates)
        except (ssl.SSLError, ValueError) as error:
            raise BadRequestError(
                f"the certificate authority of {settings.api_url} cannot be read: {error}",
                code="invalidCertificate",
                hint="give certificates in PEM",
            ) from error
    return context


def segments(path: str) -> str:
    """Return a path of a URL, each element escaped. Raises BadRequestError for one that could lead elsewhere."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(ord(letter) < 32 for letter in path):
        raise BadRequestError(
            f"{path[:200]!r} is not a path on a git host", code="invalidPath", hint="use names with single '/' between"
        )
    return "/".join(quote(part, safe="") for part in parts)


def _origin(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        return "", "", 0
    return parts.scheme, (parts.hostname or "").lower(), port


def _shown(url: str) -> str:
    """Return the path of a URL: a query may hold a secret."""
    return urlsplit(url).path[:_REASON] or "/"


def _remaining(headers: Mapping[str, str]) -> str:
    return headers.get("x-ratelimit-remaining") or headers.get("ratelimit-remaining") or ""


def _is_limit(status: int, headers: Mapping[str, str]) -> bool:
    """GitHub refuses with 403, too, and then says when to come back."""
    return status == 429 or (status == 403 and ("retry-after" in headers or _remaining(headers) == "0"))


def _limited(host: str, wait: float, status: int = 429) -> HostError:
    return HostError(
        f"{host} takes no more requests for {wait:.0f} s", code="hostLimited", status=status, retry_after=wait
    )


class _Reason(msgspec.Struct):
    """What hosts call the reason of a refusal."""

    message: object = ""
    error_description: object = ""
    error: object = ""


def _reason(request: HostRequest, answer: HostAnswer) -> str:
    try:
        told = msgspec.json.decode(answer.content, type=_Reason)
    except (ValueError, RecursionError):
        return ""  # a proxy's page: all there is, is its status
    text = request.shown(str(told.message or told.error_description or told.error))
    return f": {text}" if text else ""

"""Objects in a bucket, by their own paths behind the location's prefix, in plain key order.

Empty path elements collapse. Deleting a missing object succeeds. What is written is durable when it is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx2
import obstore
import structlog
from obstore.exceptions import GenericError
from obstore.store import S3Store

from runstream.errors import BadRequestError, NotExistError, RunstreamError
from runstream.objects.port import CHUNK_BYTES, ByteSource, BytesSource, FileSource, Object, elements, impossible
from runstream.objects.s3_errors import NO_BUCKET, Answer, broken, heard, translated
from runstream.objects.s3_location import S3Location
from runstream.telemetry.secrets import hide_secret

if TYPE_CHECKING:  # the client has these for type checkers alone
    from obstore import GetOptions, GetResult, ObjectMeta
    from obstore.store import ClientConfig, RetryConfig, S3Credential, S3CredentialProvider

_WRITES = 8
"""Objects of one `write_all` at once."""


class S3Objects:
    """The object storage in a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def stat(self, path: str) -> Object:
        """What is known of an object. Raises NotExistError."""
        key = self._bucket.key(path)
        async with self._bucket.requests:
            with translated(self._bucket.location, path):
                return described(self._bucket, await obstore.head_async(self._bucket.store, key))

    async def read(self, path: str) -> S3Reader:
        """Open an object. Raises NotExistError."""
        key = self._bucket.key(path)
        async with self._bucket.requests:
            with translated(self._bucket.location, path):
                return S3Reader(self._bucket, path, await obstore.get_async(self._bucket.store, key))

    async def write(self, path: str, source: ByteSource, *, size: int = -1, persist: bool = False) -> None:
        """Store an object; see the port. It is durable with and without `persist`."""
        del persist
        await upload(self._bucket, path, source, size)

    async def write_all(self, contents: Mapping[str, bytes | Path]) -> None:
        """Store several objects, side by side."""
        for path in contents:
            self._bucket.key(path)
        rest = iter(contents.items())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_WRITES, len(contents))):
                    group.create_task(self._store_each(rest))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def delete(self, path: str) -> None:
        """Delete an object; one that is missing is deleted already."""
        key = self._bucket.key(path)
        async with self._bucket.requests:
            with translated(self._bucket.location, path):
                await obstore.delete_async(self._bucket.store, key)

    def list(self, prefix: str = "", *, start_after: str = "", recursive: bool = True) -> AsyncIterator[Object]:
        """The objects whose path begins with `prefix`; see the port."""
        return found(self._bucket, prefix.lstrip("/"), start_after.lstrip("/"), recursive)

    async def _store_each(self, rest: Iterator[tuple[str, bytes | Path]]) -> None:
        for path, content in rest:
            if isinstance(content, bytes):
                await upload(self._bucket, path, BytesSource(content), len(content))
            else:
                async with FileSource(content) as source:
                    await upload(self._bucket, path, source, -1)


REQUESTS = 32
"""At once, of one process."""
UPLOADS = 4
"""Objects in several parts at once, of one process: each keeps some parts in memory."""
_LONGEST = 1024
"""Bytes of a key: S3's limit."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where requests go."""

    location: S3Location
    store: S3Store
    requests: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(REQUESTS))
    """Held while a request is under way, never while somebody else's code runs: that may need one itself."""
    uploads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(UPLOADS))
    """Held while an object is sent in parts, instead of the other one."""

    def key(self, path: str) -> str:
        """The key of an object. Raises BadRequestError for a path that cannot be one."""
        key = self.location.prefix + "/".join(elements(path))
        try:
            short = len(key.encode()) <= _LONGEST
        except UnicodeEncodeError as error:
            raise impossible(path) from error
        if not short:
            raise impossible(path)
        return key

    def path(self, key: str) -> str:
        """The path of the object with this key."""
        return key.removeprefix(self.location.prefix)


_ATTEMPTS = 3
"""How often a request that breaks off is made again without a byte having come."""


class S3Reader:
    """An open object of a bucket."""

    def __init__(self, bucket: Bucket, path: str, opened: GetResult) -> None:
        self._bucket = bucket
        self._path = path
        self._key = opened.meta["path"]
        self._etag = opened.meta["e_tag"]
        self.size = opened.meta["size"]
        self._offset = 0
        """What the stream gives next, behind what is kept of it."""
        self._rest = b""
        self._stream: AsyncIterator[bytes] | None = _chunks(opened)

    async def read(self, offset: int, size: int) -> bytes:
        """The bytes from this offset, `size` of them or up to the end. Raises InternalError."""
        if offset >= self.size or size <= 0:
            return b""
        if offset != self._offset - len(self._rest):
            self._stream, self._rest, self._offset = None, b"", offset
        wanted = min(size, self.size - offset)
        parts = [self._rest]
        missing = wanted - len(self._rest)
        while missing > 0:
            chunk = await self._next_chunk()
            parts.append(chunk)
            missing -= len(chunk)
        found = b"".join(parts)
        self._rest = found[wanted:]
        return found[:wanted]

    async def close(self) -> None:
        """Give up the request that is open."""
        self._stream = None
        self._rest = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _next_chunk(self) -> bytes:
        with translated(self._bucket.location, self._path):
            for _ in range(_ATTEMPTS):
                try:
                    chunk = await self._from_stream()
                except GenericError:
                    chunk = b""
                if chunk:
                    self._offset += len(chunk)
                    return chunk
                self._stream = None
            return await self._from_stream() or self._ended()

    async def _from_stream(self) -> bytes:
        async with self._bucket.requests:
            if self._stream is None:
                options: GetOptions = {"range": {"offset": self._offset}, "if_match": self._etag}
                self._stream = _chunks(await obstore.get_async(self._bucket.store, self._key, options=options))
            return await anext(self._stream, b"")

    def _ended(self) -> bytes:
        raise GenericError(f"the answer ended at byte {self._offset} of {self.size}, {_ATTEMPTS + 1} times")


def _chunks(opened: GetResult) -> AsyncIterator[bytes]:
    return aiter(opened.stream(CHUNK_BYTES))


_PAGE = 1000
_CONTROL = re.compile("[\x00-\x1f\x7f]")


async def found(bucket: Bucket, prefix: str, start_after: str, recursive: bool) -> AsyncIterator[Object]:
    """The objects whose path begins with the text `prefix`, behind `start_after`."""
    folder = prefix[: prefix.rfind("/") + 1]
    if not _possible(folder):
        return
    if start_after < prefix and not prefix.endswith("/"):
        async for exact in _exactly(bucket, prefix):
            yield exact
    start = max(start_after, prefix)
    async with contextlib.aclosing(_pages(bucket, folder, start, recursive=recursive)) as pages:
        async for page in pages:
            for meta in page:
                path = bucket.path(meta["path"])
                if path > start and path.startswith(prefix):
                    yield described(bucket, meta)
                elif path > start:  # all others are behind the prefix too
                    return


def described(bucket: Bucket, meta: ObjectMeta) -> Object:
    """The object that the client describes."""
    return Object(bucket.path(meta["path"]), meta["size"], meta["last_modified"].astimezone(UTC))


async def _exactly(bucket: Bucket, path: str) -> AsyncIterator[Object]:
    """The object with this path, if there is one: a list behind a path leaves out the path itself."""
    if not _possible(path):
        return
    try:
        async with bucket.requests:
            with translated(bucket.location, path):
                meta = await obstore.head_async(bucket.store, bucket.key(path))
    except NotExistError:
        return
    yield described(bucket, meta)


async def _pages(
    bucket: Bucket, folder: str, start: str, *, recursive: bool
) -> AsyncGenerator[Sequence[ObjectMeta], None]:
    key = bucket.location.prefix + folder
    if not recursive:
        async with bucket.requests:
            with translated(bucket.location, folder):
                listed = await obstore.list_with_delimiter_async(bucket.store, key.rstrip("/") or None)
        yield sorted(listed["objects"], key=lambda meta: meta["path"])
        return
    offset = bucket.location.prefix + start if start and _possible(start) else None
    with translated(bucket.location, folder):
        pages = obstore.list(bucket.store, key.rstrip("/") or None, offset=offset, chunk_size=_PAGE)
    while True:
        async with bucket.requests:
            with translated(bucket.location, folder):
                page = await anext(pages, None)
        if page is None:
            return
        yield page


def _possible(path: str) -> bool:
    """Whether objects can have this path, or be below it."""
    elements = path.removesuffix("/").split("/")
    return not path or not (_CONTROL.search(path) or any(element in ("", ".", "..") for element in elements))


PART_BYTES = 8 << 20
_MOST_PARTS = 10_000
_PARTS_AT_ONCE = 2
_ABORT_SECONDS = 10.0
T = TypeVar("T")


async def upload(bucket: Bucket, path: str, source: ByteSource, size: int) -> None:
    """Store an object; of a size that is not -1 at most so many bytes are taken. Raises what the source raises."""
    key = bucket.key(path)
    parts = _Parts(source, size)
    first = await parts.next()
    if len(first) < parts.size:
        async with bucket.requests:
            with translated(bucket.location, path):
                await obstore.put_async(bucket.store, key, first, use_multipart=False)
    else:
        async with bucket.uploads:
            await _in_parts(bucket, path, key, first, parts)


class _Parts:
    """A source, cut into parts of one size; the last one is smaller, or empty."""

    def __init__(self, source: ByteSource, size: int) -> None:
        self._source = source
        self._left = size if size >= 0 else None
        self.size = max(PART_BYTES, -(-size // (_MOST_PARTS - 1)))
        self.error: Exception | None = None
        """What the source has raised."""

    async def next(self) -> bytes:
        """The next part."""
        chunks: list[bytes] = []
        missing = self.size if self._left is None else min(self.size, self._left)
        try:
            while missing > 0 and (chunk := await self._source.read(min(missing, CHUNK_BYTES))):
                chunks.append(chunk)
                missing -= len(chunk)
        except Exception as error:
            self.error = error
            raise
        part = b"".join(chunks)
        if self._left is not None:
            self._left -= len(part)
        return part


async def _in_parts(bucket: Bucket, path: str, key: str, first: bytes, parts: _Parts) -> None:
    stopped = asyncio.Event()
    sending = asyncio.ensure_future(
        obstore.put_async(
            bucket.store,
            key,
            _until(stopped, first, parts),
            use_multipart=True,
            chunk_size=parts.size,
            max_concurrency=_PARTS_AT_ONCE,
        )
    )
    try:
        with translated(bucket.location, path):
            await asyncio.shield(sending)
    except asyncio.CancelledError:
        # Cancelling the request itself would leave the parts that were sent; a source that fails has them deleted.
        stopped.set()
        await asyncio.wait({sending}, timeout=_ABORT_SECONDS)
        if sending.done():
            sending.exception()  # looked at, because nobody else will
        else:
            sending.cancel()
        raise
    except Exception:
        if parts.error is not None:  # the client may say it in other words
            raise parts.error from parts.error.__cause__
        raise


async def _until(stopped: asyncio.Event, first: bytes, parts: _Parts) -> AsyncIterator[bytes]:
    """All parts; an error as soon as it is stopped."""
    yield first
    while part := await _unless(stopped, parts.next()):
        yield part


async def _unless(stopped: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stopped.is_set():
            raise InterruptedError("nobody waits for this upload any more")
        return working.result()
    finally:
        working.cancel()
        stopping.cancel()


_DEFAULT_REGION = "us-east-1"
_MADE_MEANWHILE = ("BucketAlreadyOwnedByYou", "OperationAborted")
_SIGNED = timedelta(minutes=5)
_CREATE_SECONDS = 30.0
_CONNECT = timedelta(seconds=5)
_SILENT = timedelta(seconds=60)
"""How long a request may say nothing; then it is made again."""
_WHOLE = timedelta(hours=1)
"""How long the answer to one request may be read; then the rest is asked for anew."""
_RETRIES: RetryConfig = {
    "max_retries": 8,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 2},
    "retry_timeout": timedelta(minutes=2),
}
_FEW_RETRIES: RetryConfig = {
    "max_retries": 2,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
    "retry_timeout": timedelta(seconds=10),
}
"""At the start, where somebody waits to see what is wrong."""
_IMPATIENT = timedelta(seconds=5)
"""At the start, in place of `_SILENT`."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials."""

    access: str
    secret: str = field(repr=False)

    def __call__(self) -> S3Credential:
        """What the client asks for."""
        return {"access_key_id": self.access, "secret_access_key": self.secret, "token": None, "expires_at": None}


async def open_s3(location: S3Location, keys: Keys | None, *, make: bool = True) -> S3Objects:
    """The storage in a bucket, which is made if it is missing; unless not to `make` it, which is an error then.

    Without keys those of the environment are taken: AWS's variables, or the role of the machine. Raises
    BadRequestError for a file of certificates that is none, InternalError for what does not work.
    """
    hide_secret(keys.secret if keys is not None else os.environ.get("AWS_SECRET_ACCESS_KEY", ""))
    first = Bucket(location, _store(location, keys, _FEW_RETRIES, _IMPATIENT))
    try:
        await _look(first)
    except RunstreamError as error:
        if error.code != NO_BUCKET or not make:
            raise
        await _create(first)
        await _look(first)
    return S3Objects(Bucket(location, _store(location, keys, _RETRIES, _SILENT)))


def region_of(location: S3Location) -> str:
    """The region that requests are signed for."""
    environ = os.environ
    return location.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or _DEFAULT_REGION


def _store(location: S3Location, keys: S3CredentialProvider | None, retries: RetryConfig, silent: timedelta) -> S3Store:
    options: ClientConfig = {
        "allow_http": not location.tls,
        "connect_timeout": _CONNECT,
        "read_timeout": silent,
        "timeout": _WHOLE,
    }
    if location.ca is not None:
        options["root_certificate"] = _certificates(location)
    region = region_of(location)
    return S3Store(
        location.bucket,
        config={
            "endpoint": location.url(region),
            "region": region,
            "virtual_hosted_style_request": location.style == "virtual",
            "disable_bulk_delete": True,
        },
        client_options=options,
        retry_config=retries,
        credential_provider=keys,
    )


def _certificates(location: S3Location) -> bytes:
    try:
        ssl.create_default_context(cafile=location.ca)
        return location.ca.read_bytes() if location.ca is not None else b""
    except (OSError, ssl.SSLError) as error:
        raise BadRequestError(
            f"{location.ca} has no certificates that can be trusted: {error}",
            code="invalidObjectsURL",
            hint="the option ca of the object storage's URL names a file of certificates in PEM",
        ) from error


async def _look(bucket: Bucket) -> None:
    """Ask for a list: the one request that tells a missing bucket from a missing object."""
    with translated(bucket.location, ""):
        await anext(obstore.list(bucket.store, f"{bucket.location.prefix}probes"), None)


async def _create(bucket: Bucket) -> None:
    """Make the bucket; another process may have made it at the same moment. The client signs, and cannot ask."""
    location = bucket.location
    region = region_of(location)
    body = ""
    if region != _DEFAULT_REGION:
        body = (
            '<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
        )
    with translated(location, ""):
        url = await obstore.sign_async(bucket.store, "PUT", "", _SIGNED)
    verify = ssl.create_default_context(cafile=location.ca) if location.ca is not None else True
    try:
        async with httpx2.AsyncClient(verify=verify, timeout=_CREATE_SECONDS) as client:
            answer = await client.put(url, content=body)
    except httpx2.HTTPError as error:
        raise broken(location, Answer(message=str(error))) from error
    if answer.is_success:
        log.info(f"made the bucket of {location}", action="objects_bucket_made", bucket=location.bucket)
        return
    said = heard(f"{answer.text}\nstatus code: {answer.status_code}")
    if said.code not in _MADE_MEANWHILE:
        raise broken(location, said)

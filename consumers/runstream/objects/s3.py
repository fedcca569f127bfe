"""Objects in a bucket of AWS S3, MinIO, or another service that speaks its protocol.

    storage = await open_s3(parse_location("s3://bucket/prefix?endpoint=minio:9000&tls=off"), keys)

Paths are keys below the location's prefix, listed in plain key order; empty path elements collapse. Deleting a missing
object succeeds. A write is durable once it is acknowledged.

Processes that use a bucket run on uvloop: with asyncio's own loop the client's threads may still hold the interpreter
when it ends, and abort it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx2
import obstore
import structlog
from obstore.exceptions import AlreadyExistsError, GenericError
from obstore.store import S3Store

from runstream.backoff import Backoff, retry
from runstream.errors import BadRequestError, NotExistError, RunstreamError
from runstream.lifecycle import for_each
from runstream.objects.port import (
    CHUNK_BYTES,
    ByteSource,
    BytesSource,
    FileSource,
    Object,
    elements,
    impossible,
    source_chunks,
)
from runstream.objects.s3_errors import NO_BUCKET, ServiceReply, answer_in, broken, translated
from runstream.objects.s3_location import S3Location
from runstream.telemetry.logs import hide_secret

if TYPE_CHECKING:  # types that the client provides only to type checkers
    from obstore import GetOptions, GetResult, ObjectMeta
    from obstore.store import ClientConfig, RetryConfig, S3Credential, S3CredentialProvider

REQUESTS = 32
"""Concurrent requests of one process."""
UPLOADS = 4
"""Concurrent multipart uploads of one process: each keeps a few parts in memory."""
PART_BYTES = 8 << 20
MAX_BODY_BYTES = 4 * PART_BYTES
"""Of a file that the client sends from memory, if there is no object; a larger one is streamed."""
MAX_CONDITIONAL_BYTES = 5 << 30
"""Of a file that is stored, if there is no object: S3's limit for one request, and only one can be conditional."""
_MAX_PARTS = 10_000
_CONCURRENT_PARTS = 2
_ABORT_SECONDS = 10.0
_CONCURRENT_WRITES = 8
"""Objects that one `write_all` sends at a time."""
_MAX_KEY_BYTES = 1024
"""S3's limit."""
_PAGE = 1000
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_READ_ATTEMPTS = 3
"""Attempts to resume a broken answer that yield no byte."""

_DEFAULT_REGION = "us-east-1"
_CREATED_MEANWHILE = ("BucketAlreadyOwnedByYou", "OperationAborted")
_SIGNED = timedelta(minutes=5)
_CREATE_SECONDS = 30.0
_STREAM_BACKOFF = Backoff(0.1, 10.0, attempts=6, jitter=True)
_AGAIN = (HTTPStatus.CONFLICT, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS, *range(500, 600))
"""Statuses after which a request is repeated; 409 is S3's for two conditional writes at the same moment."""
_CONNECT = timedelta(seconds=5)
_READ_TIMEOUT = timedelta(seconds=60)
"""Time without a byte after which a request is retried."""
_STREAMED = httpx2.Timeout(_READ_TIMEOUT.total_seconds(), connect=_CONNECT.total_seconds())
_ANSWER_TIMEOUT = timedelta(hours=1)
"""Time for one answer; after it, the rest is requested again."""
_RETRIES: RetryConfig = {
    "max_retries": 8,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 2},
    "retry_timeout": timedelta(minutes=2),
}
_STARTUP_RETRIES: RetryConfig = {
    "max_retries": 2,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
    "retry_timeout": timedelta(seconds=10),
}
"""Fewer attempts, because a user waits for the error."""
_STARTUP_READ_TIMEOUT = timedelta(seconds=5)
T = TypeVar("T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials."""

    access: str
    secret: str = field(repr=False)

    def __call__(self) -> S3Credential:
        """Return the credentials as the client wants them."""
        return {"access_key_id": self.access, "secret_access_key": self.secret, "token": None, "expires_at": None}


async def open_s3(location: S3Location, keys: Credentials | None, *, make: bool = True) -> S3Objects:
    """Open the storage in a bucket; create a missing bucket if `make`, else fail.

    Without keys, take AWS's environment variables or the role of the machine. Raises BadRequestError for an invalid
    certificate file, InternalError for a storage that does not work.
    """
    hide_secret(keys.secret if keys is not None else os.environ.get("AWS_SECRET_ACCESS_KEY", ""))
    first = _store(location, keys, _STARTUP_RETRIES, _STARTUP_READ_TIMEOUT)
    try:
        await _probe(location, first)
    except RunstreamError as error:
        if error.code != NO_BUCKET or not make:
            raise
        await _create(location, keys)
        await _probe(location, first)
    return S3Objects(location, _store(location, keys, _RETRIES, _READ_TIMEOUT))


class _UnavailableError(Exception):
    """A request that may succeed when it is repeated; `meaning` says what went wrong."""

    def __init__(self, meaning: RunstreamError) -> None:
        super().__init__(str(meaning))
        self.meaning = meaning


class S3Objects:
    """The object storage in a bucket."""

    def __init__(self, location: S3Location, store: S3Store) -> None:
        self.location = location
        self.store = store
        self.requests = asyncio.Semaphore(REQUESTS)
        """Held during one request, never while a caller's code runs: that may need a request itself."""
        self._uploads = asyncio.Semaphore(UPLOADS)
        """Held during a multipart upload, in place of `requests`."""

    async def stat(self, path: str) -> Object:
        """Describe an object. Raises NotExistError."""
        key = self._key(path)
        async with self._request(path):
            return _described(await obstore.head_async(self.store, key))

    async def read(self, path: str) -> S3Reader:
        """Open an object. Raises NotExistError."""
        key = self._key(path)
        async with self._request(path):
            return S3Reader(self, path, await obstore.get_async(self.store, key))

    async def write(self, path: str, source: ByteSource, *, size: int = -1, persist: bool = False) -> None:
        """Store an object, durably with and without `persist`; see the port.

        A small object takes one request; a larger one is sent in parts and appears with the last request. Memory holds
        a few parts. The parts of a killed process stay: a lifecycle rule of the bucket should delete them.
        """
        del persist
        key = self._key(path)
        part_bytes = max(PART_BYTES, -(-size // (_MAX_PARTS - 1)))
        chunks = source_chunks(source, size)
        first = await _gather(chunks, part_bytes)
        if len(first) < part_bytes:
            async with self._request(path):
                await obstore.put_async(self.store, key, first, use_multipart=False)
        else:
            async with self._uploads:
                await self._upload_parts(path, key, first, chunks, part_bytes)

    async def write_all(self, contents: Mapping[str, bytes | Path]) -> None:
        """Store several objects concurrently."""
        for path in contents:
            self._key(path)
        await for_each(contents.items(), self._write_content, at_once=_CONCURRENT_WRITES)

    async def create(self, path: str, content: Path) -> bool:
        """Store a local file as a new object; return False if there is one, and never replace it.

        Above MAX_CONDITIONAL_BYTES, of several writers that begin at the same time each returns True, and one of their
        files becomes the object.
        """
        key = self._key(path)
        size = (await asyncio.to_thread(content.stat)).st_size
        if size > MAX_BODY_BYTES:
            with contextlib.suppress(NotExistError):
                await self.stat(path)
                return False
            if size <= MAX_CONDITIONAL_BYTES:
                return await self._create_streamed(path, key, content, size)
            await self._write_content((path, content))
            return True
        body = await asyncio.to_thread(content.read_bytes)
        async with self._request(path):
            try:
                await obstore.put_async(self.store, key, body, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    async def delete(self, path: str) -> None:
        """Delete an object; a missing one counts as deleted."""
        key = self._key(path)
        async with self._request(path):
            await obstore.delete_async(self.store, key)

    async def list(self, prefix: str = "", *, start_after: str = "", recursive: bool = True) -> AsyncIterator[Object]:
        """Yield the objects whose path begins with `prefix`, in key order; see the port.

        The client lists by prefixes of whole elements only. The rest of a text prefix is a matter of where the list
        starts and ends.
        """
        prefix, start_after = prefix.lstrip("/"), start_after.lstrip("/")
        folder = prefix[: prefix.rfind("/") + 1]
        if not _possible(folder):
            return
        if start_after < prefix and not prefix.endswith("/") and _possible(prefix):
            # A list after a path leaves out the path itself.
            with contextlib.suppress(NotExistError):
                yield await self.stat(prefix)
        start = max(start_after, prefix)
        async with contextlib.aclosing(self._pages(folder, start, recursive=recursive)) as pages:
            async for page in pages:
                for meta in page:
                    path = meta["path"]
                    if path > start and path.startswith(prefix):
                        yield _described(meta)
                    elif path > start:  # all others are past the prefix too
                        return

    async def _pages(self, folder: str, start: str, *, recursive: bool) -> AsyncGenerator[Sequence[ObjectMeta], None]:
        parent = folder.rstrip("/") or None
        if not recursive:
            async with self._request(folder):
                listed = await obstore.list_with_delimiter_async(self.store, parent)
            yield sorted(listed["objects"], key=lambda meta: meta["path"])
            return
        offset = start if start and _possible(start) else None
        with translated(self.location, folder):
            pages = obstore.list(self.store, parent, offset=offset, chunk_size=_PAGE)
        while True:
            async with self._request(folder):
                page = await anext(pages, None)
            if page is None:
                return
            yield page

    def _key(self, path: str) -> str:
        """Return an object's key below the prefix. Raises BadRequestError for an impossible path."""
        key = "/".join(elements(path))
        try:
            short = len((self.location.prefix + key).encode()) <= _MAX_KEY_BYTES
        except UnicodeEncodeError as error:
            raise impossible(path) from error
        if not short:
            raise impossible(path)
        return key

    @contextlib.asynccontextmanager
    async def _request(self, path: str) -> AsyncIterator[None]:
        """Wait for a free request, and translate its errors."""
        async with self.requests:
            with translated(self.location, path):
                yield

    async def _write_content(self, named: tuple[str, bytes | Path]) -> None:
        path, content = named
        if isinstance(content, bytes):
            await self.write(path, BytesSource(content), size=len(content))
        else:
            async with FileSource(content) as source:
                await self.write(path, source)

    async def _create_streamed(self, path: str, key: str, content: Path, size: int) -> bool:
        """Send a file in one conditional request. The client would keep it in memory, and only signs the request.

        When an answer is lost, the next attempt finds the object of the one before, and returns False.
        """
        headers = {"If-None-Match": "*", "Content-Length": str(size)}

        async def attempt() -> bool:
            with translated(self.location, path):
                url = await obstore.sign_async(self.store, "PUT", key, _SIGNED)
            try:
                async with FileSource(content) as source:
                    response = await client.put(url, content=source_chunks(source, size), headers=headers)
            except httpx2.HTTPError as error:
                answer = ServiceReply(message=str(error) or type(error).__name__)
                raise _UnavailableError(broken(self.location, answer)) from error
            if response.status_code == HTTPStatus.PRECONDITION_FAILED:
                return False
            if not response.is_success:
                failed = broken(self.location, _answer(response))
                raise _UnavailableError(failed) if response.status_code in _AGAIN else failed
            return True

        async with self._uploads, httpx2.AsyncClient(verify=_verified(self.location), timeout=_STREAMED) as client:
            try:
                return await retry(attempt, _UnavailableError, _STREAM_BACKOFF)
            except _UnavailableError as error:
                raise error.meaning from error

    async def _upload_parts(
        self, path: str, key: str, first: bytes, chunks: AsyncIterator[bytes], part_bytes: int
    ) -> None:
        stopped = asyncio.Event()
        source_errors: list[Exception] = []

        async def parts() -> AsyncIterator[bytes]:
            part = first
            while part:
                yield part
                try:
                    part = await _unless(stopped, _gather(chunks, part_bytes))
                except Exception as error:
                    source_errors.append(error)
                    raise

        sending = asyncio.ensure_future(
            obstore.put_async(
                self.store,
                key,
                parts(),
                use_multipart=True,
                chunk_size=part_bytes,
                max_concurrency=_CONCURRENT_PARTS,
            )
        )
        try:
            with translated(self.location, path):
                await asyncio.shield(sending)
        except asyncio.CancelledError:
            # The client deletes the sent parts when its source fails, but not when its request is cancelled.
            stopped.set()
            await asyncio.wait({sending}, timeout=_ABORT_SECONDS)
            if sending.done():
                sending.exception()  # retrieved, or asyncio logs it
            else:
                sending.cancel()
            raise
        except Exception:
            if source_errors:  # the client rewords the source's error
                raise source_errors[0] from source_errors[0].__cause__
            raise


class S3Reader:
    """An open object of a bucket.

    Sequential reads share one request; a read elsewhere makes a new one. Each request names the ETag of the opened
    object, so a replaced object is an error and never a mixture. A broken request is resumed where it ended.
    """

    def __init__(self, storage: S3Objects, path: str, opened: GetResult) -> None:
        self._storage = storage
        self._path = path
        self._key = opened.meta["path"]
        self._etag = opened.meta["e_tag"]
        self.size = opened.meta["size"]
        self._offset = 0
        """Offset of the stream's next byte; `_rest` ends there."""
        self._rest = b""
        """Bytes that the stream yielded and no read has taken."""
        self._stream: AsyncIterator[bytes] | None = _chunks(opened)

    async def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from this offset, or those up to the end. Raises InternalError."""
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
        content = b"".join(parts)
        self._rest = content[wanted:]
        return content[:wanted]

    async def close(self) -> None:
        """Drop the open request."""
        self._stream = None
        self._rest = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _next_chunk(self) -> bytes:
        with translated(self._storage.location, self._path):
            for _ in range(_READ_ATTEMPTS):
                try:
                    chunk = await self._from_stream()
                except GenericError:
                    chunk = b""
                if chunk:
                    self._offset += len(chunk)
                    return chunk
                self._stream = None
            if chunk := await self._from_stream():
                return chunk
            raise GenericError(f"the answer ended at byte {self._offset} of {self.size}, {_READ_ATTEMPTS + 1} times")

    async def _from_stream(self) -> bytes:
        async with self._storage.requests:
            if self._stream is None:
                options: GetOptions = {"range": {"offset": self._offset}, "if_match": self._etag}
                self._stream = _chunks(await obstore.get_async(self._storage.store, self._key, options=options))
            return await anext(self._stream, b"")


def region_of(location: S3Location) -> str:
    """Return the region that requests are signed for."""
    environ = os.environ
    return location.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or _DEFAULT_REGION


def _store(
    location: S3Location, keys: S3CredentialProvider | None, retries: RetryConfig, read_timeout: timedelta
) -> S3Store:
    options: ClientConfig = {
        "allow_http": not location.tls,
        "connect_timeout": _CONNECT,
        "read_timeout": read_timeout,
        "timeout": _ANSWER_TIMEOUT,
    }
    if location.ca is not None:
        options["root_certificate"] = _certificates(location)
    region = region_of(location)
    return S3Store(
        location.bucket,
        prefix=location.prefix.rstrip("/") or None,
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


def _verified(location: S3Location) -> ssl.SSLContext | bool:
    return ssl.create_default_context(cafile=location.ca) if location.ca is not None else True


async def _probe(location: S3Location, store: S3Store) -> None:
    """Request a list: the one request that tells a missing bucket from a missing object."""
    with translated(location, ""):
        await anext(obstore.list(store, "probes"), None)


async def _create(location: S3Location, keys: Credentials | None) -> None:
    """Create the bucket, unless another process just did. The client can sign this request, but not send it."""
    region = region_of(location)
    body = ""
    if region != _DEFAULT_REGION:
        body = (
            '<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
        )
    store = _store(replace(location, prefix=""), keys, _STARTUP_RETRIES, _STARTUP_READ_TIMEOUT)
    with translated(location, ""):
        url = await obstore.sign_async(store, "PUT", "", _SIGNED)
    try:
        async with httpx2.AsyncClient(verify=_verified(location), timeout=_CREATE_SECONDS) as client:
            response = await client.put(url, content=body)
    except httpx2.HTTPError as error:
        raise broken(location, ServiceReply(message=str(error))) from error
    if response.is_success:
        log.info(f"created the bucket of {location}", action="objects_bucket_made", bucket=location.bucket)
        return
    answer = _answer(response)
    if answer.code not in _CREATED_MEANWHILE:
        raise broken(location, answer)


def _answer(response: httpx2.Response) -> ServiceReply:
    return answer_in(f"{response.text}\nstatus code: {response.status_code}")


def _described(meta: ObjectMeta) -> Object:
    return Object(meta["path"], meta["size"], meta["last_modified"].astimezone(UTC))


def _possible(path: str) -> bool:
    """Return whether an object can have this path, or be below it."""
    names = path.removesuffix("/").split("/")
    return not path or not (_CONTROL.search(path) or any(name in ("", ".", "..") for name in names))


def _chunks(opened: GetResult) -> AsyncIterator[bytes]:
    return aiter(opened.stream(CHUNK_BYTES))


async def _gather(chunks: AsyncIterator[bytes], size: int) -> bytes:
    """Return the next chunks, joined: `size` bytes or a little more, or those up to the end."""
    gathered: list[bytes] = []
    while size > 0 and (chunk := await anext(chunks, b"")):
        gathered.append(chunk)
        size -= len(chunk)
    return b"".join(gathered)


async def _unless(stopped: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of the work; raise InterruptedError as soon as the event is set."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stopped.is_set():
            raise InterruptedError("the upload was cancelled")
        return working.result()
    finally:
        working.cancel()
        stopping.cancel()

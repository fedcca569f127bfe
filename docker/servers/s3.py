"""A small S3 server for trying out a distributed deployment: one process, its objects on one disk.

It has what Runstream asks of a bucket: objects with ranges and conditions, lists, uploads in parts. An object is on the
disk before its request is answered, and replaced as a whole. Requests are signed with the one key of the environment
(S3_ACCESS_KEY, S3_SECRET_KEY); there are no users, policies, versions or copies elsewhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

FOLDER = Path(os.environ.get("S3_FOLDER", "/var/lib/servers/s3"))
_ACCESS_KEY = os.environ["S3_ACCESS_KEY"]
_SECRET_KEY = os.environ["S3_SECRET_KEY"]
# Tests do without.
_DURABLE = os.environ.get("S3_DURABLE", "yes") == "yes"
_SKEW_SECONDS = 900
_CHUNK = 1 << 20
_TABLES = """
CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS objects
  (bucket TEXT, key TEXT, size INT, etag TEXT, modified REAL, blob TEXT, PRIMARY KEY (bucket, key));
CREATE TABLE IF NOT EXISTS uploads (id TEXT PRIMARY KEY, bucket TEXT, key TEXT);
CREATE TABLE IF NOT EXISTS parts
  (upload TEXT, number INT, size INT, etag TEXT, blob TEXT, PRIMARY KEY (upload, number));
"""


class RefusedError(Exception):
    """A request that is answered with an error: status and S3's code."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


class Store:
    """The objects: a table of what there is, and a file for the bytes of each."""

    def __init__(self, folder: Path) -> None:
        self.blobs = folder / "blobs"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.table = sqlite3.connect(folder / "objects.sqlite", isolation_level=None)
        self.table.execute("PRAGMA journal_mode = WAL")
        self.table.execute(f"PRAGMA synchronous = {'FULL' if _DURABLE else 'OFF'}")
        self.table.executescript(_TABLES)
        used = {name for (name,) in self.table.execute("SELECT blob FROM objects UNION SELECT blob FROM parts")}
        for left in set(os.listdir(self.blobs)) - used:  # noqa: PTH208 - names alone
            (self.blobs / left).unlink()

    async def receive(self, chunks: AsyncIterator[bytes]) -> tuple[str, int, str]:
        """Write a file of these bytes to the disk; return its name, its size and its MD5."""
        name, size, digest = secrets.token_hex(16), 0, hashlib.md5(usedforsecurity=False)
        path = self.blobs / name
        try:
            with path.open("wb") as file:
                async for chunk in chunks:
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                file.flush()
                if _DURABLE:
                    await asyncio.to_thread(os.fsync, file.fileno())
        except BaseException:
            path.unlink()
            raise
        return name, size, digest.hexdigest()

    def put(self, bucket: str, key: str, written: tuple[str, int, str], *, create: bool = False) -> str:
        """Make a written file the object of this key; return its ETag."""
        name, size, md5 = written
        old = self.find(bucket, key)
        if old is not None and create:
            self.drop(name)
            raise RefusedError(412, "PreconditionFailed")
        etag = f'"{md5}"'
        row = (bucket, key, size, etag, time.time(), name)
        self.table.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)", row)
        if old is not None:
            self.drop(old[3])
        return etag

    def find(self, bucket: str, key: str) -> tuple[int, str, float, str] | None:
        """Return size, ETag, time and file of an object."""
        query = "SELECT size, etag, modified, blob FROM objects WHERE bucket = ? AND key = ?"
        row: tuple[int, str, float, str] | None = self.table.execute(query, (bucket, key)).fetchone()
        return row

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; an absent one is removed already."""
        old = self.find(bucket, key)
        if old is not None:
            self.table.execute("DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, key))
            self.drop(old[3])

    def keys(self, bucket: str, prefix: str, after: str) -> Iterator[tuple[str, int, str, float]]:
        """Yield key, size, ETag and time of the objects with this prefix, in the order of their keys."""
        query = "SELECT key, size, etag, modified FROM objects WHERE bucket = ? AND key > ? AND key >= ? ORDER BY key"
        for row in self.table.execute(query, (bucket, after, prefix)):
            if not row[0].startswith(prefix):
                return
            yield row

    def drop(self, blob: str) -> None:
        """Remove a file."""
        (self.blobs / blob).unlink(missing_ok=True)


async def answer(request: Request) -> Response:
    """Answer one request."""
    store: Store = request.app.state.store
    try:
        _check_signature(request)
        bucket, _, key = unquote(request.scope["raw_path"].decode().split("?")[0].lstrip("/")).partition("/")
        if not key:
            return await _of_bucket(store, request, bucket)
        if not store.table.execute("SELECT 1 FROM buckets WHERE name = ?", (bucket,)).fetchone():
            raise RefusedError(404, "NoSuchBucket")
        return await _of_object(store, request, bucket, key)
    except RefusedError as error:
        return _xml(f"<Error><Code>{error.code}</Code><Message>{error.code}</Message></Error>", error.status)


async def _of_bucket(store: Store, request: Request, bucket: str) -> Response:
    if request.method == "PUT":
        try:
            store.table.execute("INSERT INTO buckets VALUES (?)", (bucket,))
        except sqlite3.IntegrityError:
            raise RefusedError(409, "BucketAlreadyOwnedByYou") from None
        return Response()
    if not store.table.execute("SELECT 1 FROM buckets WHERE name = ?", (bucket,)).fetchone():
        raise RefusedError(404, "NoSuchBucket")
    if request.method == "GET":
        return _list(store, bucket, dict(request.query_params))
    if request.method == "POST" and "delete" in request.query_params:
        for element in ElementTree.fromstring(await request.body()).iter():  # noqa: S314 - of a signed request
            if element.tag.rpartition("}")[2] == "Key":
                store.delete(bucket, element.text or "")
        return _xml("<DeleteResult></DeleteResult>")
    raise RefusedError(501, "NotImplemented")


def _list(store: Store, bucket: str, words: dict[str, str]) -> Response:
    prefix, delimiter = words.get("prefix", ""), words.get("delimiter", "")
    after = words.get("continuation-token", words.get("start-after", ""))
    room = min(int(words.get("max-keys", "1000")), 1000)
    found: list[str] = []
    last, folder = after, ""
    truncated = False
    for key, size, etag, modified in store.keys(bucket, prefix, after):
        if folder and key.startswith(folder):
            last = key
            continue
        if len(found) == room:
            truncated = True
            break
        last = key
        head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
        if cut:
            folder = prefix + head + cut
            found.append(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>")
        else:
            moment = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(modified))
            found.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>{moment}</LastModified>"
                f"<ETag>{escape(etag)}</ETag><Size>{size}</Size></Contents>"
            )
    more = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if truncated else ""
    return _xml(
        f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(found)}</KeyCount>"
        f"<IsTruncated>{str(truncated).lower()}</IsTruncated>{more}{''.join(found)}</ListBucketResult>"
    )


async def _of_object(store: Store, request: Request, bucket: str, key: str) -> Response:
    words = request.query_params
    if "uploadId" in words or "uploads" in words:
        return await _of_upload(store, request, bucket, key)
    if request.method == "PUT":
        create = request.headers.get("if-none-match") == "*"
        written = await store.receive(request.stream())
        return Response(headers={"ETag": store.put(bucket, key, written, create=create)})
    if request.method == "DELETE":
        store.delete(bucket, key)
        return Response(status_code=204)
    found = store.find(bucket, key)
    if found is None:
        raise RefusedError(404, "NoSuchKey")
    size, etag, modified, blob = found
    if request.headers.get("if-match", etag) != etag:
        raise RefusedError(412, "PreconditionFailed")
    first, end, status = 0, size, 200
    headers = {"ETag": etag, "Last-Modified": formatdate(modified, usegmt=True), "Accept-Ranges": "bytes"}
    wanted = request.headers.get("range", "").removeprefix("bytes=")
    if wanted:
        begin, _, until = wanted.partition("-")
        first = int(begin) if begin else max(0, size - int(until))
        end = min(size, int(until) + 1) if begin and until else size
        if first >= size:
            raise RefusedError(416, "InvalidRange")
        status, headers["Content-Range"] = 206, f"bytes {first}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - first)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    # Opened here: replacing the object does not change what is read.
    file = (store.blobs / blob).open("rb")
    file.seek(first)

    async def chunks() -> AsyncIterator[bytes]:
        left = end - first
        with file:
            while left:
                chunk = await asyncio.to_thread(file.read, min(left, _CHUNK))
                left -= len(chunk)
                yield chunk

    return StreamingResponse(chunks(), status_code=status, headers=headers)


async def _of_upload(store: Store, request: Request, bucket: str, key: str) -> Response:
    words = request.query_params
    if "uploads" in words:
        upload = secrets.token_hex(16)
        store.table.execute("INSERT INTO uploads VALUES (?, ?, ?)", (upload, bucket, key))
        return _xml(
            f"<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{escape(key)}</Key>"
            f"<UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
        )
    upload = words["uploadId"]
    if not store.table.execute("SELECT 1 FROM uploads WHERE id = ?", (upload,)).fetchone():
        raise RefusedError(404, "NoSuchUpload")
    if request.method == "PUT":
        name, size, md5 = await store.receive(request.stream())
        row = (upload, int(words["partNumber"]), size, md5, name)
        store.table.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?)", row)
        return Response(headers={"ETag": f'"{md5}"'})
    query = "SELECT blob FROM parts WHERE upload = ? ORDER BY number"
    parts = [name for (name,) in store.table.execute(query, (upload,))]
    etag = ""
    if request.method == "POST":
        create = request.headers.get("if-none-match") == "*"

        async def together() -> AsyncIterator[bytes]:
            for part in parts:
                with (store.blobs / part).open("rb") as file:
                    while chunk := await asyncio.to_thread(file.read, _CHUNK):
                        yield chunk

        etag = store.put(bucket, key, await store.receive(together()), create=create)
    store.table.execute("DELETE FROM parts WHERE upload = ?", (upload,))
    store.table.execute("DELETE FROM uploads WHERE id = ?", (upload,))
    for part in parts:
        store.drop(part)
    if not etag:
        return Response(status_code=204)
    return _xml(
        f"<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{escape(key)}</Key>"
        f"<ETag>{escape(etag)}</ETag></CompleteMultipartUploadResult>"
    )


def _check_signature(request: Request) -> None:
    """Check AWS's signature (version 4), in the headers or in the URL."""
    words = dict(parse_qsl(request.scope["query_string"].decode(), keep_blank_values=True))
    header = request.headers.get("authorization", "")
    if header:
        given = dict(part.strip().split("=", 1) for part in header.partition(" ")[2].split(","))
        moment, payload = request.headers.get("x-amz-date", ""), request.headers.get("x-amz-content-sha256", "")
        signature = given.get("Signature", "")
    else:
        given = {name: words.get(f"X-Amz-{name}", "") for name in ("Credential", "SignedHeaders")}
        moment, payload = words.get("X-Amz-Date", ""), "UNSIGNED-PAYLOAD"
        signature = words.pop("X-Amz-Signature", "")
    access_key, _, scope = given.get("Credential", "").partition("/")
    day, region, *_ = *scope.split("/"), "", ""
    try:
        age = time.time() - time.mktime(time.strptime(moment, "%Y%m%dT%H%M%SZ")) + time.timezone
    except ValueError:
        raise RefusedError(403, "AccessDenied") from None
    if age > _SKEW_SECONDS or age < -_SKEW_SECONDS:
        raise RefusedError(403, "RequestTimeTooSkewed")
    names = given.get("SignedHeaders", "").split(";")
    canonical = "\n".join(
        [
            request.method,
            request.scope["raw_path"].decode().split("?")[0],
            "&".join(
                sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in words.items())
            ),
            *(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in names),
            "",
            ";".join(names),
            payload,
        ]
    )
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{_SECRET_KEY}".encode()
    for word in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    expected = hmac.digest(key, text.encode(), "sha256").hex()
    if access_key != _ACCESS_KEY or not hmac.compare_digest(expected, signature):
        raise RefusedError(403, "SignatureDoesNotMatch")


def _xml(text: str, status: int = 200) -> Response:
    return Response('<?xml version="1.0" encoding="UTF-8"?>' + text, status, media_type="application/xml")


async def _ready(_: Request) -> Response:
    return Response("ready")


def application(folder: Path) -> Starlette:
    """The server on this folder."""
    app = Starlette(
        routes=[
            Route("/-/ready", _ready),
            Route("/{path:path}", answer, methods=["GET", "HEAD", "PUT", "POST", "DELETE"]),
        ]
    )
    app.state.store = Store(folder)
    return app


if __name__ == "__main__":
    uvicorn.run(
        application(FOLDER),
        host=os.environ.get("S3_HOST", "0.0.0.0"),  # noqa: S104 - in a container
        port=int(os.environ.get("S3_PORT", "9000")),
        access_log=False,
        log_level="warning",
    )

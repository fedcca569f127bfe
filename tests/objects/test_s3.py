"""Guarantees of a bucket beyond the port: it survives faults, reports them clearly, and limits concurrent requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from runstream.errors import InternalError, NotExistError
from runstream.objects import BytesSource
from runstream.objects.port import CHUNK_BYTES
from runstream.objects.s3 import PART_BYTES, REQUESTS, Credentials, S3Objects, open_s3
from runstream.objects.s3_location import S3Location
from runstream.telemetry.logs import without_secrets
from tests.objects.backends import KEYS, open_at, s3_location
from tests.objects.faulty import Cut, Fault, Proxy, Refuse, Request, faulty
from tests.objects.reading import content, paths

LARGE = 2 * PART_BYTES + 1000


def times(count: int, fault: Fault, method: str = "") -> Callable[[Request], Awaitable[Fault]]:
    """This fault for the next requests of a method."""
    left = [fault] * count

    async def decide(request: Request) -> Fault:
        return left.pop() if left and request.method.startswith(method) else None

    return decide


async def through(proxy: Proxy, bucket: str) -> S3Objects:
    return await open_at(s3_location(proxy.url, bucket))


async def unfinished_uploads(url: str, bucket: str) -> int:
    async with httpx2.AsyncClient() as client:
        return (await client.get(f"{url}/{bucket}?uploads")).text.count("<Upload>")


class Endless:
    """Zeros, up to so many bytes; then it fails, or waits for ever."""

    def __init__(self, size: int, error: Exception | None) -> None:
        self.left = size
        self.error = error
        self.at_the_end = asyncio.Event()

    async def read(self, size: int) -> bytes:
        if self.left > 0:
            self.left -= size
            return bytes(size)
        self.at_the_end.set()
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()
        return b""


async def test_busy_answers_are_asked_for_again(s3_url: str, namespace: str) -> None:
    async with faulty(s3_url) as proxy:
        storage = await through(proxy, namespace)
        for method in ("PUT", "GET", "HEAD", "DELETE"):
            proxy.decide = times(2, Refuse(503, "SlowDown"), method)
            await storage.write("a", BytesSource(b"x"))
            assert await content(storage, "a") == b"x"
            assert (await storage.stat("a")).size == 1
            assert await paths(storage) == ["a"]
            await storage.delete("a")
        assert await paths(storage) == []


async def test_a_large_new_object_is_one_request_that_is_repeated_until_it_is_answered(
    s3_url: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.objects.s3.MAX_BODY_BYTES", PART_BYTES)
    file = tmp_path / "file"
    file.write_bytes(b"x" * LARGE)
    async with faulty(s3_url) as proxy:
        storage = await through(proxy, namespace)
        for fault in (Refuse(503, "SlowDown"), Refuse(409, "ConditionalRequestConflict")):
            proxy.decide = times(1, fault, "PUT")
            assert await storage.create(fault.code, file)
        proxy.decide = times(1, Cut(0), "PUT")
        assert not await storage.create("lost answer", file)
        assert await paths(storage) == ["ConditionalRequestConflict", "SlowDown", "lost answer"]
        assert (await storage.stat("lost answer")).size == LARGE
        proxy.decide = times(100, Refuse(403, "AccessDenied"), "PUT")
        with pytest.raises(InternalError) as raised:
            await storage.create("refused", file)
    assert raised.value.code == "objectsRefused"
    puts = [request for request in proxy.requests if request.method == "PUT" and "/some/where/" in request.target]
    assert [request.head.lower().count(b"if-none-match: *") for request in puts] == [1] * 7


async def test_an_answer_that_breaks_off_is_read_on(s3_url: str, namespace: str) -> None:
    body = bytes(range(256)) * 8192
    async with faulty(s3_url) as proxy:
        storage = await through(proxy, namespace)
        await storage.write("a", BytesSource(body))
        proxy.decide = times(3, Cut(3 * CHUNK_BYTES), "GET")
        assert await content(storage, "a") == body


async def test_what_was_replaced_meanwhile_is_an_error_and_never_a_mixture(s3_url: str, namespace: str) -> None:
    async with faulty(s3_url) as proxy:
        storage = await through(proxy, namespace)
        await storage.write_all({name: bytes(8 * CHUNK_BYTES) for name in ("replaced", "deleted")})
        for name, kind in (("replaced", InternalError), ("deleted", NotExistError)):
            async with await storage.read(name) as stored:
                assert await stored.read(0, 10) == bytes(10)
                await storage.delete(name)
                if name == "replaced":
                    await storage.write(name, BytesSource(b"x" * 8 * CHUNK_BYTES))
                with pytest.raises(kind, match=r"was replaced or deleted while it was read|does not exist"):
                    await stored.read(7 * CHUNK_BYTES, 10)


@pytest.mark.parametrize(
    ("fault", "code", "hint"),
    [
        (Refuse(403, "SignatureDoesNotMatch"), "objectsRefused", "RUNSTREAM_OBJECTS_SECRET_KEY"),
        (Refuse(403, "InvalidAccessKeyId"), "objectsRefused", "objects_access_key"),
        (Refuse(301, "PermanentRedirect"), "objectsElsewhere", "region=REGION"),
        (Refuse(400, "AuthorizationHeaderMalformed"), "objectsElsewhere", "region=REGION"),
        (Refuse(403, "RequestTimeTooSkewed"), "objectsClock", "NTP"),
        (Refuse(500, "InternalError"), "objectsFailed", "doctor"),
        (Refuse(404, "NoSuchBucket"), "objectsBucketMissing", "--objects-url"),
    ],
)
async def test_what_is_wrong_is_said_clearly(s3_url: str, namespace: str, fault: Refuse, code: str, hint: str) -> None:
    async with faulty(s3_url) as proxy:
        proxy.decide = times(100, fault, "GET")
        with pytest.raises(InternalError) as raised:
            await through(proxy, namespace)
    error = raised.value
    assert error.code == code
    assert hint in error.hint
    assert f"s3://{namespace}/some/where" in error.message
    assert fault.code in error.message
    assert KEYS.secret not in f"{error.message} {error.hint} {error.details} {error.__cause__} {KEYS!r}"


async def test_a_bucket_that_another_has(s3_url: str, namespace: str) -> None:
    async with faulty(s3_url) as proxy:
        proxy.decide = times(1, Refuse(409, "BucketAlreadyExists"), "PUT")
        with pytest.raises(InternalError, match="cannot have this bucket") as raised:
            await through(proxy, namespace)
    assert raised.value.code == "objectsBucketRefused"


async def test_an_endpoint_that_refuses_connections(namespace: str) -> None:
    with pytest.raises(InternalError, match="cannot be reached: Connection refused") as raised:
        await open_at(s3_location("http://127.0.0.1:1", namespace))
    assert raised.value.code == "objectsUnreachable"
    assert "\n" not in raised.value.message


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
async def test_a_missing_bucket_is_made_once_by_several(s3_url: str, namespace: str, region: str) -> None:
    location = replace(s3_location(s3_url, namespace), region=region)
    with pytest.raises(InternalError, match="has no such bucket"):
        await open_s3(location, KEYS, make=False)
    await asyncio.gather(*(open_at(location) for _ in range(3)))
    assert await paths(await open_s3(location, KEYS, make=False)) == []


async def test_a_bucket_that_went_away(s3_url: str, namespace: str) -> None:
    storage = await open_at(s3_location(s3_url, namespace))
    async with httpx2.AsyncClient() as client:
        await client.delete(f"{s3_url}/{namespace}")
    for ask in (storage.read("a"), storage.write("a", BytesSource(b"x")), paths(storage)):
        with pytest.raises(InternalError, match="has no such bucket"):
            await ask


async def test_places_in_one_bucket_do_not_see_each_other(s3_url: str, namespace: str) -> None:
    one, two = [await open_at(s3_location(s3_url, namespace, prefix)) for prefix in ("one", "one/two")]
    root = await open_at(s3_location(s3_url, namespace, ""))
    await one.write("a", BytesSource(b"1"))
    await two.write("a", BytesSource(b"2"))
    assert await paths(one) == ["a", "two/a"]
    assert await paths(two) == ["a"]
    assert await paths(root) == ["one/a", "one/two/a"]


async def test_not_more_requests_than_allowed_are_under_way(s3_url: str, namespace: str) -> None:
    go_on = asyncio.Event()
    async with faulty(s3_url) as proxy:
        storage = await through(proxy, namespace)
        await storage.write("a", BytesSource(b"x"))

        async def wait_for_all(_: Request) -> Fault:
            if proxy.under_way == REQUESTS:
                go_on.set()
            await go_on.wait()
            return None

        proxy.decide = wait_for_all
        await asyncio.gather(*(storage.stat("a") for _ in range(2 * REQUESTS)))
        assert proxy.most_under_way == REQUESTS


@pytest.mark.parametrize("size", [-1, LARGE, PART_BYTES])
async def test_a_large_object_is_sent_in_parts(s3_url: str, namespace: str, size: int) -> None:
    body = bytes(range(250)) * (LARGE // 250 + 2)
    taken = len(body) if size < 0 else size
    async with faulty(s3_url) as proxy:
        storage = await through(proxy, namespace)
        source = BytesSource(body)
        await storage.write("a", source, size=size)
        assert len(await source.read(len(body))) == len(body) - taken
        assert (await storage.stat("a")).size == taken
        assert await content(storage, "a") == body[:taken]
        assert max(len(request.body) for request in proxy.requests) <= PART_BYTES


async def test_an_upload_that_fails_leaves_no_parts(s3_url: str, namespace: str) -> None:
    storage = await open_at(s3_location(s3_url, namespace))
    await storage.write("a", BytesSource(b"before"))
    with pytest.raises(ConnectionError, match="gone"):
        await storage.write("a", Endless(LARGE, ConnectionError("gone")))
    assert await unfinished_uploads(s3_url, namespace) == 0
    assert await content(storage, "a") == b"before"


async def test_an_abandoned_upload_leaves_no_parts(s3_url: str, namespace: str) -> None:
    storage = await open_at(s3_location(s3_url, namespace))
    source = Endless(LARGE, None)
    writing = asyncio.create_task(storage.write("a", source))
    await source.at_the_end.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await unfinished_uploads(s3_url, namespace) == 0
    assert await paths(storage) == []


async def test_objects_are_copied_while_all_requests_are_wanted(s3_url: str, namespace: str) -> None:
    """Readers and writers of one storage, more of them than there may be requests, do not wait for each other."""
    storage = await open_at(s3_location(s3_url, namespace))
    await storage.write("from", BytesSource(bytes(2 * CHUNK_BYTES)))

    async def copy(index: int) -> None:
        async with await storage.read("from") as stored:

            class Copied:
                offset = 0

                async def read(self, size: int) -> bytes:
                    found = await stored.read(self.offset, size)
                    self.offset += len(found)
                    return found

            await storage.write(f"to/{index:02}", Copied())

    async with asyncio.TaskGroup() as group:
        for index in range(REQUESTS + 8):
            group.create_task(copy(index))
    assert len(await paths(storage, "to/")) == REQUESTS + 8


async def test_secret_keys_are_hidden_in_records(s3_url: str, namespace: str) -> None:
    await open_s3(s3_location(s3_url, namespace), Credentials("id", "very-secret-key"))
    assert "very-secret-key" not in without_secrets("made with very-secret-key")


async def test_a_list_can_be_left_early(s3_url: str, namespace: str) -> None:
    storage = await open_at(s3_location(s3_url, namespace))
    await storage.write_all({f"n/{index:04}": b"" for index in range(10)})

    async def first(found: AsyncIterator[object]) -> object:
        return await anext(found)

    for _ in range(2 * REQUESTS):
        await first(storage.list("n/"))
    assert isinstance(storage, S3Objects)


def test_a_location_shows_no_more_than_where_it_is() -> None:
    assert str(S3Location("bucket", "a/b/", endpoint="minio:9000")) == "s3://bucket/a/b at minio:9000"

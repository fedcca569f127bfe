"""The client's own promises: what it retries, how it reports failures, where a tail resumes."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import orjson
import pytest

from runstream.client import Client, ClientError, ConnectionFailedError

Answer = httpx2.Response | Exception
NOWHERE = "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"


class Script(httpx2.AsyncBaseTransport):
    """Answers requests as a test says, one after the other; the last answer stays."""

    def __init__(self, *answers: Answer | Callable[[httpx2.Request], Answer]) -> None:
        self.requests: list[httpx2.Request] = []
        self._answers = list(answers)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if not isinstance(answer, (httpx2.Response, Exception)):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstream.client.session._BACKOFF_SECONDS", 0)


def _client(script: Script) -> Client:
    return Client("http://ci.example.com/", token="secret", transport=script, wait_seconds=0)


def _json(value: object, status: int = 200, position: str = "") -> httpx2.Response:
    headers = {"Runstream-Position": position} if position else {}
    return httpx2.Response(status, content=orjson.dumps(value), headers=headers)


async def test_a_read_is_tried_again_when_the_connection_fails() -> None:
    script = Script(httpx2.ConnectError("no"), httpx2.ReadError("no"), _json({"executors": []}))
    async with _client(script) as client:
        assert await client.executors.list() == ()
    assert len(script.requests) == 3
    assert script.requests[0].headers["authorization"] == "token secret"


async def test_a_write_is_sent_once() -> None:
    script = Script(httpx2.ReadError("no"))
    async with _client(script) as client:
        with pytest.raises(ConnectionFailedError, match="broke off"):
            await client.runs.stop(NOWHERE)
    assert len(script.requests) == 1


def _away(dependency: str = "nats", retry_after: str = "0") -> httpx2.Response:
    body = [{"code": "c", "message": f"{dependency} is away", "hint": "h", "kind": "internal"}]
    body[0]["details"] = {"dependency": dependency}  # type: ignore[assignment]
    return httpx2.Response(503, content=orjson.dumps(body), headers={"Retry-After": retry_after})


async def test_a_waiting_service_is_polled_and_its_reason_is_shown() -> None:
    told: list[str] = []
    script = Script(_away("nats"), _away("postgres"), _json({"executors": []}))
    async with Client("http://x", transport=script, waiting=told.append) as client:
        assert await client.executors.list() == ()
    assert told == ["nats is away", "postgres is away"]


@pytest.mark.parametrize(("said", "least", "most"), [("7", 3.5, 7), ("Sun, 29 Nov 2026 06:00:00 GMT", 0, 0)])
async def test_a_service_that_says_when_is_asked_again_then(
    monkeypatch: pytest.MonkeyPatch, said: str, least: float, most: float
) -> None:
    pauses: list[float] = []

    async def passing(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("runstream.client.session.asyncio.sleep", passing)
    async with Client("http://x", transport=Script(_away("nats", said), _json({"executors": []}))) as client:
        await client.executors.list()
    assert [least <= pause <= most for pause in pauses] == [True]


async def test_a_write_without_a_key_is_not_sent_again_to_a_service_that_waits() -> None:
    script = Script(_away())
    async with Client("http://x", transport=script) as client:
        with pytest.raises(ClientError, match="nats is away"):
            await client.runs.stop(NOWHERE)
    assert len(script.requests) == 1


async def test_a_wait_for_a_service_ends_with_the_services_own_message() -> None:
    async with _client(Script(_away())) as client:
        with pytest.raises(ClientError, match="nats is away") as caught:
            await client.executors.list()
    assert caught.value.status == 503


async def test_maintenance_is_an_error_at_once() -> None:
    body = [{"code": "maintenance", "message": "m", "hint": "h", "kind": "internal", "details": {}}]
    script = Script(_json(body, 503))
    async with Client("http://x", transport=script) as client:
        with pytest.raises(ClientError):
            await client.executors.list()
    assert len(script.requests) == 1


async def test_a_refusal_is_not_tried_again() -> None:
    body = [{"code": "c", "message": "m", "hint": "h", "kind": "conflict", "details": {"a": 1}, "chain": ["x"]}]
    script = Script(_json(body, 409))
    async with _client(script) as client:
        with pytest.raises(ClientError) as caught:
            await client.executors.list()
    error = caught.value
    assert (str(error), error.code, error.hint, error.kind, error.status) == ("m", "c", "h", "conflict", 409)
    assert (error.details, error.chain) == ({"a": 1}, ("x",))
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (httpx2.ConnectError("x"), "serviceUnreachable", "cannot reach the service at http://ci.example.com"),
        (httpx2.ReadTimeout("x"), "connectionFailed", "did not answer in time"),
        (httpx2.RemoteProtocolError("x"), "connectionFailed", "broke off"),
        (httpx2.Response(502, content=b"<html>"), "unexpectedAnswer", "answered with status 502 and no reason"),
        (httpx2.Response(500, content=b"[]"), "unexpectedAnswer", "answered with status 500 and no reason"),
        (httpx2.Response(200, content=b"<html>"), "unexpectedAnswer", "cannot be understood"),
        (_json({"executors": [{"executor_id": 7}]}), "unexpectedAnswer", "executor_id"),
    ],
)
async def test_every_failure_is_one_sentence_with_a_hint(answer: Answer, code: str, says: str) -> None:
    async with _client(Script(answer)) as client:
        with pytest.raises(ClientError) as caught:
            await client.executors.list()
    assert caught.value.code == code
    assert says in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message


async def test_reads_ask_for_the_positions_of_all_that_was_written() -> None:
    done = [_json({"position": p}, position=p) for p in ("1/0/5", "1/2/9", "1/0/6")]
    script = Script(*done, _json({"executors": []}))
    async with _client(script) as client:
        for _ in range(3):
            await client.runs.cancel(NOWHERE)
        await client.executors.list()
    assert script.requests[-1].headers["runstream-position"] == "1/0/6,1/2/9"


def _event(place: str) -> bytes:
    data = orjson.dumps(
        {
            "position": "1/0/1",
            "aggregate": "run/r",
            "version": 1,
            "time": "2025-01-01T00:00:00Z",
            "actor": "a",
            "cause": "",
            "commit": "c",
            "events": [{"type": "RunStarted", "data": {}}],
        }
    )
    return b": comment\n\nid: %s\nevent: commit\ndata: %s\n\n" % (place.encode(), data)


async def test_a_tail_goes_on_where_it_was_left() -> None:
    ended = httpx2.Response(200, content=_event("1:1") + _event("1:2"))
    again = httpx2.Response(200, content=_event("1:3"))
    script = Script(ended, again, httpx2.ConnectError("no"))
    async with _client(script) as client:
        tail = client.events.tail("1:0")
        assert [(await anext(tail)).place for _ in range(3)] == ["1:1", "1:2", "1:3"]
        with pytest.raises(ConnectionFailedError, match="cannot reach"):
            await anext(tail)
    assert [request.url.params["from"] for request in script.requests] == ["1:0", "1:2", "1:3", "1:3"]


async def test_a_tail_without_a_place_goes_on_where_it_began() -> None:
    """Its connection is lost before there was any commit."""
    begun, again = (httpx2.Response(200, content=text) for text in (b": from 1:7\n\n", _event("1:8")))
    script = Script(begun, httpx2.ConnectError("no"), again)
    async with _client(script) as client:
        tail = client.events.tail()
        assert (await anext(tail)).place == "1:8"
        await tail.aclose()
    assert [request.url.params.get("from") for request in script.requests] == [None, "1:7", "1:7"]


async def test_an_answer_may_have_more_than_is_known() -> None:
    executor = {
        "executor_id": "e",
        "state": "lost",
        "archs": [],
        "labels": {},
        "allow_privileged_containers": False,
        "allow_host": True,
        "allow_pod": False,
        "active_tasks_limit": 0,
        "active_tasks": 0,
        "version": "9",
        "new": 1,
    }
    async with _client(Script(_json({"executors": [executor], "more": 2}))) as client:
        assert [one.executor_id for one in await client.executors.list()] == ["e"]

"""One shape for every error, the right status, the chain only for those who may see it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import AsyncIterator

import httpx2
import pytest

from runstream.errors import InternalError
from tests.gateway.world import TOKEN, World, run_body
from tests.log.memory import MemoryLog


class BrokenLog(MemoryLog):
    """A log whose server is gone."""

    async def append(self, commit: object) -> object:  # type: ignore[override]
        try:
            raise ConnectionRefusedError("connect call failed")
        except OSError as error:
            raise InternalError(
                "the log cannot be reached", code="logUnreachable", hint="is NATS running? try again"
            ) from error


class Records:
    """A logger that keeps what is written at level error."""

    def __init__(self) -> None:
        self.errors: list[dict[str, object]] = []

    def error(self, _sentence: str, **fields: object) -> None:
        self.errors.append(fields)

    warning = error

    def info(self, _sentence: str, **fields: object) -> None:
        raise AssertionError(fields)


@pytest.mark.parametrize("header", ["", "token wrong", "token", f"token {TOKEN}x", "token é"])
async def test_without_the_token_nothing_is_answered(header: str) -> None:
    world = World.make()
    async with world.http() as http:
        headers = {b"Authorization": header.encode()} if header else {}
        http.headers.pop("Authorization")
        answer = await http.get("/runs", headers=headers)
    (error,) = answer.json()
    assert (answer.status_code, error["kind"]) == (401, "unauthorized")
    assert error["hint"]


@pytest.mark.parametrize("scheme", ["token", "TOKEN", "Bearer", "bearer"])
async def test_a_token_has_either_scheme_in_any_case(scheme: str) -> None:
    world = World.make()
    async with world.http(Authorization=f"{scheme} {TOKEN}") as http:
        assert (await http.get("/runs")).status_code == 200


async def test_version_health_and_description_need_no_token() -> None:
    world = World.make()
    async with world.http() as http:
        http.headers.pop("Authorization")
        assert (await http.get("/version")).json()["partitions"] == 4
        assert (await http.get("/openapi.json")).status_code == 200
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await http.get(f"http://gateway{path}")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "routeDoesNotExist"),
        ("GET", "/runs/", 404, "routeDoesNotExist"),
        ("DELETE", "/runs", 405, "methodNotAllowed"),
        ("GET", "/runs/abc", 400, "invalidId"),
        ("GET", "/runs/0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11", 404, "runDoesNotExist"),
        ("GET", "/runs?limit=0", 400, "invalidParameter"),
        ("GET", "/runs?limit=many", 400, "invalidParameter"),
        ("GET", "/runs?phase=flying", 400, "invalidParameter"),
        ("GET", "/runs?start=-1", 400, "invalidParameter"),
        ("GET", "/runs/group/%2Fproject%2Fweb/x", 400, "invalidRunNumber"),
        ("GET", "/runs/group/%2Fproject%2Fweb/1", 404, "runDoesNotExist"),
        ("GET", "/runs/0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11?at_least=7", 400, "invalidPosition"),
        ("GET", "/events?from=yesterday", 400, "invalidPosition"),
        ("GET", "/events?from=1:0,0", 400, "invalidPosition"),
        ("GET", "/events?from=2:0,0,0,0", 400, "invalidPosition"),
        ("GET", "/events?from=1:9,0,0,0", 400, "invalidPosition"),
        ("GET", "/events?run=0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11", 404, "runDoesNotExist"),
        ("GET", "/runs/events?afterSequence=x", 400, "invalidPosition"),
        ("GET", "/logs", 400, "invalidRunTaskStepNumber"),
        ("GET", "/logs?runid=x&taskid=y&setup", 400, "invalidId"),
        ("DELETE", "/executors/a.b", 400, "invalidName"),
        ("DELETE", "/executors/e1", 404, "executorDoesNotExist"),
        ("DELETE", "/executor/e1", 404, "executorDoesNotExist"),
    ],
)
async def test_what_is_refused_says_why(method: str, path: str, status: int, code: str) -> None:
    world = World.make()
    async with world.http() as http:
        answer = await http.request(method, path)
    (error,) = answer.json()
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["message"]
    assert set(error) == {"code", "details", "message", "hint", "kind"}


async def test_malformed_json_is_refused_with_its_place() -> None:
    world = World.make()
    async with world.http() as http:
        answer = await http.post("/runs", content=b'{\n  "name": nope\n}')
    (error,) = answer.json()
    assert (answer.status_code, error["code"], error["details"]["line"]) == (400, "malformedBody", 2)
    assert "line 2, column" in error["message"]


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large_is_413(declared: bool) -> None:
    world = World.make(max_body_bytes=2000)
    async with world.served() as url, httpx2.AsyncClient(headers={"Authorization": f"token {TOKEN}"}) as http:

        async def parts() -> AsyncIterator[bytes]:
            for _ in range(30):
                yield b" " * 100

        content = b" " * 3000 if declared else parts()
        answer = await http.post(f"{url}/api/v1alpha/runs", content=content)
    (error,) = answer.json()
    assert (answer.status_code, error["code"], error["details"]["limit"]) == (413, "bodyTooLarge", 2000)


async def test_a_dependency_that_is_away_is_503_and_one_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = Records()
    monkeypatch.setattr("runstream.gateway.middleware.log", records)
    world = World.make(log=BrokenLog())
    async with world.http() as http:
        answer = await http.post("/runs", json=run_body())
    (error,) = answer.json()
    assert (answer.status_code, error["message"], error["kind"]) == (503, "the log cannot be reached", "internal")
    assert (answer.headers["retry-after"], error["details"]["dependency"]) == ("2", "nats")
    assert (error["code"], error["hint"]) == ("logUnreachable", "is NATS running? try again")
    assert "Traceback" not in answer.text
    assert "chain" not in error
    (record,) = records.errors
    assert (record["action"], record["status"]) == ("request_failed", 503)
    assert isinstance(record["exc_info"], InternalError)


async def test_the_chain_needs_a_token() -> None:
    world = World.make(log=BrokenLog())
    async with world.http(**{"Runstream-Detailed-Errors": "1"}) as http:
        (error,) = (await http.post("/runs", json=run_body())).json()
        (refusal,) = (await http.get("/runs", headers={"Authorization": "token wrong"})).json()
    assert [line.split(" ")[0] for line in error["chain"]] == ["(InternalError)", "(ConnectionRefusedError)"]
    assert "test_errors.py:" in error["chain"][0]
    assert "chain" not in refusal


async def test_an_error_that_is_not_ours_is_an_internal_one() -> None:
    world = World.make()

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    world.reads.runs = broken  # type: ignore[assignment,method-assign]
    async with world.http() as http:
        answer = await http.get("/runs")
    (error,) = answer.json()
    assert (answer.status_code, error["code"]) == (500, "internal")
    assert error["message"] == "the gateway failed: ZeroDivisionError: division by zero"


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_gateway_out_of_open_files_says_so_and_when_to_try_again(wrapped: bool) -> None:
    world = World.make()
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/data/objects/log")

    async def broken(*_: object, **__: object) -> None:
        if wrapped:
            raise InternalError("the object cannot be read", code="objectNotReadable") from error
        raise error

    world.reads.runs = broken  # type: ignore[assignment,method-assign]
    async with world.http() as http:
        answer = await http.get("/runs")
    (entry,) = answer.json()
    assert (answer.status_code, entry["code"], answer.headers["retry-after"]) == (503, "tooManyOpenFiles", "2")
    assert re.fullmatch(r"gateway: too many open files \(limit \d+; raise LimitNOFILE\)", entry["message"])


async def test_the_description_is_complete() -> None:
    world = World.make()
    async with world.http() as http:
        document = (await http.get("/openapi.json")).json()
    text = str(document)
    schemas = document["components"]["schemas"]
    for reference in {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in schemas
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), f"{method} {path}"
            assert method not in ("post", "put") or "requestBody" in operation, f"{method} {path}"
            assert {"400", "500", "503"} <= operation["responses"].keys() or path in ("/healthz", "/readyz"), path


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("/runs?at=1:1,0", "GET /api/v1alpha/runs has no query parameter 'at'", "known: group, phase"),
        ("/runs?groups=/project/web", "GET /api/v1alpha/runs has no query parameter 'groups'", "did you mean 'group'?"),
        (
            "/runs?grop=x&foo&foo=1",
            "GET /api/v1alpha/runs has no query parameters 'grop', 'foo'",
            "did you mean 'group'?",
        ),
        ("/executors?x=", "GET /api/v1alpha/executors has no query parameter 'x'", "known: at_least"),
        ("/version?x=1", "GET /api/v1alpha/version has no query parameter 'x'", "it takes no query parameters"),
    ],
)
async def test_an_unknown_query_parameter_is_refused_by_name(path: str, message: str, hint: str) -> None:
    async with World.make().http() as http:
        answer = await http.get(path)
        (error,) = answer.json()
    assert (answer.status_code, error["code"], error["message"]) == (400, "unknownParameter", message)
    assert hint in error["hint"]


async def test_query_parameters_of_every_kind_of_route_are_known() -> None:
    async with World.make().http() as http:
        for path in ("/runs?at_least=&limit=3&group=%2Fproject&asc", "/events?from=nowhere&run="):
            assert "unknownParameter" not in (await http.get(path)).text
        assert (await http.post("/runs?dry_run=1", json=run_body())).json()[0]["code"] == "unknownParameter"

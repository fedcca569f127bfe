"""Each text that the client puts into a path stays one segment of it, whatever its user calls something."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from types import MethodType
from typing import Any, get_type_hints

import httpx2
import pytest

from runstream.client import Client, ClientError

MARK = "marked"
UNNAMEABLE = ("", ".", "..")
WITH_A_BODY_ALONE = frozenset({"Runs.create_from_config"})


class Recorder(httpx2.AsyncBaseTransport):
    """Answers each request with a 404, and keeps the paths as they are sent."""

    def __init__(self) -> None:
        self.paths: list[bytes] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.paths.append(request.url.raw_path.partition(b"?")[0])
        return httpx2.Response(404, content=b"[]")


def _operations(client: Client) -> Iterator[MethodType]:
    for name, found in inspect.getmembers(type(client), lambda one: isinstance(one, property)):
        if found is not None and name != "url":
            part = getattr(client, name)
            methods = (method for _, method in inspect.getmembers(part, inspect.ismethod) if method.__name__[0] != "_")
            yield from (method for method in methods if method.__qualname__ not in WITH_A_BODY_ALONE)


def _texts(operation: MethodType) -> list[str]:
    """Return the parameters that are one text."""
    hints = get_type_hints(operation)
    return [name for name in inspect.signature(operation).parameters if hints[name] is str]


def _arguments(operation: MethodType, texts: dict[str, str]) -> dict[str, Any]:
    """Return arguments for all that have no default: these texts, and something that goes into a body elsewhere."""
    hints = get_type_hints(operation)
    given: dict[str, Any] = {}
    for name, parameter in inspect.signature(operation).parameters.items():
        if name in texts:
            given[name] = texts[name]
        elif parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            given[name] = _something(hints[name])
    return given


def _something(hint: object) -> object:
    if hint in (int, int | None):
        return 1
    if "AsyncIterator" in str(hint):
        return _no_chunks()
    return (lambda _: {}) if "Callable" in str(hint) else {}


async def _no_chunks() -> AsyncIterator[bytes]:
    chunks: tuple[bytes, ...] = ()
    for chunk in chunks:
        yield chunk


async def _call(operation: MethodType, texts: dict[str, str]) -> ClientError | None:
    try:
        result = operation(**_arguments(operation, texts))
        if inspect.isawaitable(result):
            await result
        elif isinstance(result, AsyncIterator):
            async for _ in result:
                pass
    except ClientError as error:
        return error
    return None


@pytest.mark.parametrize("text", UNNAMEABLE)
async def test_a_text_that_would_change_the_path_is_refused_before_anything_is_sent(text: str) -> None:
    recorder, checked = Recorder(), list[str]()
    async with Client("http://ci.example.com/", transport=recorder, wait_seconds=0) as client:
        for operation in _operations(client):
            names = _texts(operation)
            for name in names:
                given = dict.fromkeys(names, "other") | {name: MARK}
                recorder.paths.clear()
                await _call(operation, given)
                if not any(MARK.encode() in path for path in recorder.paths):
                    continue  # it is in the query or in the body
                if not text and inspect.signature(operation).parameters[name].default == "":
                    continue  # empty means that the path has no such segment
                recorder.paths.clear()
                error = await _call(operation, given | {name: text})
                where = f"{operation.__qualname__}({name}={text!r})"
                assert error is not None, where
                assert error.code == "invalidName", where
                assert recorder.paths == [], where
                checked.append(where)
    assert len(checked) > 60, checked

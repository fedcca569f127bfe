"""Which errors of NATS mean that it is away (wait, 503 by name), that it is full, or that the request is at fault."""

from __future__ import annotations

import inspect
from types import ModuleType, SimpleNamespace
from typing import Any

import nats.errors
import nats.js.errors
import orjson
import pytest

from runstream.errors import DEPENDENCY_OF_CODE
from runstream.gateway.errors import public_error, status_of
from runstream.jetstream.api import ApiError, StoreFullError, UnavailableError, is_away, publish
from runstream.service.waiting import dependency_of

AWAY = {
    "Error",
    "TimeoutError",
    "NoRespondersError",
    "StaleConnectionError",
    "OutboundBufferLimitError",
    "UnexpectedEOF",
    "FlushTimeoutError",
    "ConnectionClosedError",
    "SlowConsumerError",
    "NoServersError",
    "DrainTimeoutError",
    "ConnectionDrainingError",
    "ConnectionReconnectingError",
    "ProtocolError",
}
AT_FAULT = {
    "BadHeaderError",
    "BadSubjectError",
    "BadSubscriptionError",
    "BadTimeoutError",
    "InvalidCallbackTypeError",
    "JsonParseError",
    "MaxPayloadError",
    "MsgAlreadyAckdError",
    "NotJSMessageError",
    # a setting
    "AuthorizationError",
    "InvalidUserCredentialsError",
    "SecureConnFailedError",
    "SecureConnRequiredError",
    "SecureConnWantedError",
    "ServerNotInPoolError",
}
JETSTREAM_AWAY = {"NoStreamResponseError", "TooManyStalledMsgsError", "FetchTimeoutError"}
"""The other errors of the library's JetStream client answer a request; see the codes below for those with a code."""
CODES_AWAY = {
    10004: "incomplete results",
    10005: "no suitable peers for placement",
    10007: "JetStream cluster not assigned to this server",
    10008: "JetStream system temporarily unavailable",
    10009: "JetStream cluster can not handle request",
    10041: "raft: not leader",
    10076: "JetStream not enabled",
    10118: "stream is offline",
    10119: "consumer is offline",
    10124: "stream move already in progress",
    10158: "duplicate message id is in process",
    10163: "expected last sequence per subject temporarily unavailable",
    10167: "too many requests",
    10194: "stream is offline: unsupported",
    10195: "consumer is offline: unsupported",
    10202: "cluster member change is in progress",
    10210: "atomic publish too many inflight",
    10211: "batch publish too many inflight",
    10226: "stream reconfiguration already in progress",
}
CODES_FULL = {
    10002: "resource limits exceeded for account",
    10023: "insufficient resources",
    10028: "insufficient memory resources available",
    10047: "insufficient storage resources available",
    10077: "no space left on device",
}


def made(kind: type[BaseException]) -> BaseException:
    """An error of a class; the constructors differ."""
    error = kind.__new__(kind, "why")
    vars(error).update(key="a header", reason="why", subject="a.b", sid=1, sub=None, _msg="")
    return error


def errors_of(module: ModuleType) -> dict[str, type[BaseException]]:
    own = inspect.getmembers(module, lambda one: inspect.isclass(one) and issubclass(one, nats.errors.Error))
    return {name: one for name, one in own if one.__module__ == module.__name__}


def client(answer: dict[str, Any] | BaseException) -> Any:
    async def ask(*_: object, **__: object) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return SimpleNamespace(data=orjson.dumps(answer))

    return SimpleNamespace(is_connected=True, request=ask)


async def failure(answer: dict[str, Any] | BaseException) -> Exception:
    with pytest.raises((UnavailableError, ApiError)) as caught:
        await publish(client(answer), "a.b", b"", {})
    return caught.value


def is_waited_for(error: Exception) -> bool:
    """Whether the API answers 503 by the name of NATS, and a process waits; both or neither."""
    public = public_error(error)
    waits = dependency_of(error) == "nats"
    assert (status_of(public), DEPENDENCY_OF_CODE.get(public.code)) == ((503, "nats") if waits else (500, None))
    return waits


async def test_each_error_of_the_client_library_is_a_dependency_that_is_away_or_a_fault() -> None:
    known = errors_of(nats.errors)
    assert known.keys() == AWAY | AT_FAULT
    for name, kind in known.items():
        error = made(kind)
        assert isinstance(error, Exception)
        assert (name, is_waited_for(error)) == (name, name in AWAY)
        assert (name, type(await failure(error))) == (name, UnavailableError if name in AWAY else ApiError)
        assert is_waited_for(await failure(error)) is (name in AWAY)


async def test_an_answer_of_jetstream_is_no_dependency_that_is_away() -> None:
    for name, kind in errors_of(nats.js.errors).items():
        if not issubclass(kind, nats.js.errors.APIError):
            assert (name, is_away(made(kind))) == (name, name in JETSTREAM_AWAY)
    answered = nats.js.errors.APIError(code=404, err_code=10059)
    assert not is_waited_for(answered)
    assert all(is_waited_for(nats.js.errors.APIError(code=code, err_code=10008)) for code in (500, 503))


async def test_each_error_code_of_the_server_is_away_full_or_refused() -> None:
    found: dict[type[Exception], set[int]] = {UnavailableError: set(), StoreFullError: set(), ApiError: set()}
    for number in range(10000, 10300):
        why = CODES_AWAY.get(number) or CODES_FULL.get(number) or "refused"
        error = await failure({"error": {"code": 500, "err_code": number, "description": why}})
        found[type(error)].add(number)
        assert is_waited_for(error) is not isinstance(error, ApiError)
        assert why in str(error)
    assert (found[UnavailableError], found[StoreFullError]) == (set(CODES_AWAY), set(CODES_FULL))

"""Postgres errors as errors of ours (one sentence, a code, a way out), and the retry of contended transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import asyncpg
from sqlalchemy.exc import DBAPIError, InterfaceError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from runstream.backoff import Backoff, retry
from runstream.errors import BadRequestError, InternalError, RunstreamError

RETRYABLE = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: the whole transaction may be retried."""

POSTGRES_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)
"""The errors of Postgres, its client library and SQLAlchemy."""

_DISCONNECTED = ("08", "57P")
_SAME_AGAIN = ("21", "22", "23", "44", "54")
"""Bad cardinality, data, constraints, and limits such as the size of a row in an index: what the values themselves
cause. All other classes are of the server or the schema (connections, serialization, memory, disk, shutdown)."""
_TIMED_OUT = frozenset({"57014", "25P04", "55P03"})


UNSTORABLE = "a value cannot be stored"
"""Beginning of the message of an UnstorableError."""


class UnstorableError(BadRequestError):
    """Values that Postgres never stores: a NUL in a text, a number out of range, too long for an index."""


def sqlstate(error: BaseException) -> str:
    """Return Postgres's five-character code of an error; empty for other errors."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return str(getattr(error.orig, "sqlstate", None) or "")
    return str(getattr(error, "sqlstate", None) or "")


def connect_failure(error: BaseException, url: str) -> InternalError:
    """Return why a connection failed: the server, the database or the credentials."""
    place = place_of(url)
    match sqlstate(error):
        case "28P01" | "28000":
            return InternalError(
                f"Postgres at {place} refused the credentials: {error}",
                code="databaseCredentialsRefused",
                hint="check user and password in the database URL, and pg_hba.conf of the server",
            )
        case "3D000":
            return InternalError(
                f"Postgres at {place} has no such database: {error}",
                code="databaseMissing",
                hint="create it (CREATE DATABASE …), or name another one in the database URL",
            )
        case "53300":
            return InternalError(
                f"Postgres at {place} has no connection left: {error}",
                code="databaseFull",
                hint="raise max_connections, or start fewer processes",
            )
        case "57P03":
            return InternalError(
                f"Postgres at {place} is not ready: {error}",
                code="databaseStarting",
                hint="it is starting or stopping; try again in a moment",
            )
    return InternalError(
        f"Postgres at {place} cannot be reached: {str(error) or type(error).__name__}",
        code="databaseUnreachable",
        hint="check that the server runs and that the database URL names its host and port",
    )


def failure(error: BaseException) -> RunstreamError | None:
    """Translate an error of Postgres, asyncpg or SQLAlchemy; None for any other error."""
    if isinstance(error, RunstreamError):
        return None
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    state = sqlstate(error)
    if isinstance(error, TimeoutError | PoolTimeoutError) or state in _TIMED_OUT:
        return InternalError(
            "the database did not answer in time",
            code="databaseTimeout",
            hint="it is overloaded or waits for a lock; try again, and see pg_stat_activity",
        )
    if _lost_connection(error, original, state):
        return InternalError(
            f"the connection to the database was lost: {original}",
            code="databaseDisconnected",
            hint="the server was stopped or restarted; try again in a moment",
        )
    if state in ("42P01", "3F000", "42703"):
        return InternalError(
            f"the database lacks the expected tables: {original}",
            code="databaseNotMigrated",
            hint="start `runstream serve` of this version once on this database: it makes the tables",
        )
    if state.startswith(_SAME_AGAIN) or isinstance(original, asyncpg.DataError):
        return UnstorableError(f"{UNSTORABLE}: {original}", code="unstorable")
    if state:
        return InternalError(f"the database refused a statement: {original}", code="databaseRefused")
    return None


def _lost_connection(error: BaseException, original: BaseException, state: str) -> bool:
    if state.startswith(_DISCONNECTED):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    closed = (OSError, InterfaceError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)
    return isinstance(error, closed) or isinstance(original, closed)


def place_of(url: str) -> str:
    """Return host, port and database of a URL, without its password."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2] or 'the local socket'}{parts.path}"


T = TypeVar("T")

BACKOFF = Backoff(0.02, 1.0, attempts=6, jitter=True)


class ContendedError(InternalError):
    """A serialization failure or a deadlock between concurrent transactions."""

    def __init__(self) -> None:
        super().__init__(
            "concurrent transactions kept each other from finishing", code="databaseContended", hint="try again"
        )


async def retried(attempt: Callable[[], Awaitable[T]]) -> T:
    """Return the result of `attempt`; retry it after contention, with `BACKOFF`."""
    return await retry(attempt, ContendedError, BACKOFF)


@asynccontextmanager
async def bounded(deadline: float) -> AsyncIterator[None]:
    """Stop at the deadline (on the event loop's clock), and translate errors of Postgres."""
    bound = asyncio.timeout_at(deadline)
    try:
        async with bound:
            yield
    except POSTGRES_ERRORS as error:
        if sqlstate(error) in RETRYABLE:
            raise ContendedError from error
        raise failure(error) or error from error
    except TimeoutError as error:
        if bound.expired():
            raise failure(error) or error from error
        raise

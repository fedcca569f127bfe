"""A gateway in this process, over a log in memory, and reads that fold that log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast

import httpx2
from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from runstream.api import Cache, CacheList, FlakyList
from runstream.client import Client
from runstream.commits import Head, Position
from runstream.database.run_lists import RunPage, RunQuery
from runstream.database.runs import ExecutorRecord, ReadRun
from runstream.errors import BadRequestError, NotExistError
from runstream.evaluation.program import LIMITS, EvaluationLimits
from runstream.evaluation.reader import ConfigReader
from runstream.events.event import DomainEvent
from runstream.gateway.app import api_routers, gateway_app
from runstream.gateway.context import GatewayContext
from runstream.gateway.middleware import MaintenanceGate
from runstream.gateway.runs.actions import Actions
from runstream.gateway.runs.create import RunCreation
from runstream.gateway.runs.restart import Restarts
from runstream.gateway.runs.why import Explainer
from runstream.jetstream.messaging import NoAnswer
from runstream.log_lines import LinePage, line_count, line_page
from runstream.log_search import SearchPage, search_page
from runstream.log_times import TimedBytes, offset_since
from runstream.projections.as_of import RunsAsOf
from runstream.sealing import Keyring
from runstream.settings import Settings
from runstream.steplogs.reader import tail_begin
from runstream.subjects import Address, StepLogKey
from runstream.telemetry import setup_logging
from runstream.telemetry.http_server import HttpServer
from runstream.telemetry.process import Telemetry
from tests.gateway.folding import FoldedLog
from tests.log.memory import MemoryLog

TOKEN = "correct-horse"
KEYRING = Keyring.of([bytes(32)])
BEGUN = datetime(2025, 3, 1, 12, tzinfo=UTC)


def task(name: str = "build", **changes: Any) -> dict[str, Any]:
    """A task of a request, with one step."""
    return {"name": name, "runtime": {"type": "host"}, "steps": [{"type": "run", "command": "true"}], **changes}


def run_body(**changes: Any) -> dict[str, Any]:
    """A body of POST /runs."""
    return {
        "name": "main",
        "group": "/project/web/branch/main",
        "run_config_tasks": {"t1": task()},
        **changes,
    }


@dataclass
class FoldedReads:
    """Reads of what the log says; nothing is waited for."""

    log: MemoryLog
    asked: list[Sequence[Position]] = field(default_factory=list)
    queries: list[RunQuery] = field(default_factory=list)
    counted: list[bool] = field(default_factory=list)
    page: RunPage = field(default_factory=RunPage)
    executor_records: tuple[ExecutorRecord, ...] = ()

    async def run(self, run_id: str, at_least: Sequence[Position]) -> ReadRun:
        self.asked.append(at_least)
        return await FoldedLog(self.log).run(run_id, at_least)

    async def run_by_counter(self, group: str, counter: int, at_least: Sequence[Position]) -> ReadRun:
        raise NotExistError(f"run {group} #{counter} doesn't exist", code="runDoesNotExist")

    async def runs(
        self, query: RunQuery, at_least: Sequence[Position], *, counts: bool = False, tasks: bool = False
    ) -> RunPage:
        self.queries.append(query)
        self.counted.append(counts)
        return self.page

    async def flaky(self, groups: Sequence[str], at_least: Sequence[Position]) -> FlakyList:
        return FlakyList((), 0, more=False)

    async def executors(self, at_least: Sequence[Position]) -> tuple[ExecutorRecord, ...]:
        return self.executor_records


@dataclass
class FakeCaches:
    """Caches that a test writes."""

    found: list[Cache] = field(default_factory=list)

    async def page(self, group: str, prefix: str, limit: int, cursor: str) -> CacheList:
        found = [one for one in self.found if group in ("", one.group) and one.key.startswith(prefix)]
        return CacheList(tuple(found[:limit]), "next" if len(found) > limit else "")

    async def delete(self, group: str, key: str) -> None:
        left = [one for one in self.found if (one.group, one.key) != (group, key)]
        if left == self.found:
            raise NotExistError("there is no such cache", code="cacheDoesNotExist")
        self.found = left


@dataclass
class FakeStepLogs:
    """Logs that a test writes."""

    opened: list[tuple[StepLogKey, bool]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    error: Exception | None = None
    breaks: Exception | None = None
    """Raised behind the chunks."""
    more: asyncio.Event | None = None
    """Before the chunks come, this is waited for."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    has_times: bool = True
    deleted: list[StepLogKey] = field(default_factory=list)
    stored: bool = False
    """True if the log has ended and is an object."""

    async def open(self, key: StepLogKey, *, follow: bool, offset: int = 0) -> AsyncIterator[bytes]:
        self.opened.append((key, follow))
        if self.error is not None:
            raise self.error
        return self._read(offset)

    async def open_timed(self, key: StepLogKey, *, follow: bool, offset: int = 0) -> AsyncIterator[TimedBytes]:
        """The same, each byte at the second that is its offset, if there are times."""
        chunks = await self.open(key, follow=follow, offset=offset)
        return self._timed(chunks, offset)

    async def _timed(self, chunks: AsyncIterator[bytes], offset: int) -> AsyncIterator[TimedBytes]:
        async for chunk in chunks:
            times = [(at, at * 1000) for at in range(offset, offset + len(chunk))]
            yield TimedBytes(offset, chunk, times if self.has_times else ())
            offset += len(chunk)

    async def lines(self, key: StepLogKey, first: int, count: int) -> LinePage:
        if first < 0:
            first = max(await line_count(await self.open_timed(key, follow=False)) + first, 0)
        return await line_page(await self.open_timed(key, follow=False), 0, first, count)

    async def search(self, key: StepLogKey, first: int, count: int, query: Any) -> SearchPage:
        return await search_page(await self.open_timed(key, follow=False), 0, first, count, query)

    async def since(self, key: StepLogKey, time: int) -> int:
        return await offset_since(await self.open_timed(key, follow=False), time)

    async def stored_size(self, key: StepLogKey) -> int | None:
        return len(b"".join(self.chunks)) if self.stored else None

    async def delete(self, key: StepLogKey) -> None:
        if not self.stored:
            raise BadRequestError("the log is not stored yet", code="logNotStored")
        self.deleted.append(key)

    async def tail(self, key: StepLogKey, lines: int) -> int:
        text = b"".join(self.chunks)
        return tail_begin(text, lines) or 0

    async def _read(self, offset: int) -> AsyncIterator[bytes]:
        try:
            if self.more is not None:
                await self.more.wait()
            for chunk in self.chunks:
                if more := chunk[offset:]:
                    yield more
                offset = max(offset - len(chunk), 0)
            if self.breaks is not None:
                raise self.breaks
        finally:
            self.closed.set()


@dataclass
class FakeShared:
    """What runs refer to."""

    referred: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)
    """Run, logs, archives."""

    async def refer(self, run_id: str, *, logs: Sequence[str], archives: Sequence[str]) -> None:
        self.referred.append((run_id, tuple(logs), tuple(archives)))

    async def forget(self, run_id: str, *, logs: Sequence[str], archives: Sequence[str]) -> None:
        self.referred.remove((run_id, tuple(logs), tuple(archives)))


@dataclass
class FakeAsking:
    """Answers as a test says."""

    answer: bytes | NoAnswer = NoAnswer.NO_RESPONDERS
    asked: list[tuple[str, bytes]] = field(default_factory=list)

    async def ask(self, subject: str, question: bytes, seconds: float) -> bytes | NoAnswer:
        self.asked.append((subject, question))
        return self.answer


_CONTEXT: ContextVar[GatewayContext] = ContextVar("the context of the gateway that is asked")


class _ContextOfRequest:
    """The context of the gateway that is asked."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_CONTEXT.get(), name)


@cache
def _routers() -> list[APIRouter]:
    """The routes for all gateways of a process: most of the time of a short test would be FastAPI's to analyse them."""
    return api_routers(cast("GatewayContext", _ContextOfRequest()))


@dataclass
class World:
    """A gateway and what it works with."""

    log: MemoryLog
    reads: FoldedReads
    step_logs: FakeStepLogs
    caches: FakeCaches
    shared: FakeShared
    asking: FakeAsking
    context: GatewayContext
    telemetry: Telemetry

    @classmethod
    def make(
        cls,
        *,
        max_body_bytes: int = 1 << 20,
        log: MemoryLog | None = None,
        keyring: Keyring = KEYRING,
        limits: EvaluationLimits = LIMITS,
    ) -> World:
        settings = Settings(data_dir=Path("/nonexistent"), token=TOKEN, max_body_bytes=max_body_bytes)
        setup_logging("error")
        log = log or MemoryLog()
        asking = FakeAsking()
        reads, step_logs, shared, clock = FoldedReads(log), FakeStepLogs(), FakeShared(), Clock()
        caches = FakeCaches()
        configs = ConfigReader(limits)
        context = GatewayContext(
            settings=settings,
            log=log,
            reads=reads,
            past=RunsAsOf(log),
            step_logs=step_logs,
            caches=caches,
            creation=RunCreation(log, clock.now, shared, keyring),
            actions=Actions(log, clock.now),
            explainer=Explainer(log, asking),
            restarts=Restarts(log, reads, configs),
            configs=configs,
            keyring=keyring,
            stopping=asyncio.Event(),
        )
        return cls(log, reads, step_logs, caches, shared, asking, context, Telemetry("test", CollectorRegistry(), []))

    @cached_property
    def app(self) -> Any:
        return self.app_behind(None)

    def app_behind(self, gate: MaintenanceGate | None) -> Any:
        app = gateway_app(self.context, self.telemetry, {}, _routers(), gate)

        async def asked(scope: Scope, receive: Receive, send: Send) -> None:
            _CONTEXT.set(self.context)
            await app(scope, receive, send)

        return asked

    def http(self, **headers: str) -> httpx2.AsyncClient:
        """A client of HTTP with a valid token."""
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.app),
            base_url="http://gateway/api/v1alpha",
            headers={"Authorization": f"token {TOKEN}", **headers},
        )

    def client(self) -> Client:
        """The public client."""
        return Client("http://gateway", token=TOKEN, transport=httpx2.ASGITransport(app=self.app))

    @asynccontextmanager
    async def served(self, gate: MaintenanceGate | None = None) -> AsyncIterator[str]:
        """The gateway on a real socket; gives its URL."""
        server = HttpServer(self.app_behind(gate))
        server.stopping = self.context.stopping
        await server.start()
        try:
            yield server.url
        finally:
            await server.stop()

    async def append(self, address: Address, *events: DomainEvent) -> Position:
        """Append as another component would."""
        history = await self.log.history(address)
        head = Head(len(history), history[-1].position.sequence if history else 0)
        return await self.log.append(head.next_commit(address, events, time=BEGUN, actor="scheduler"))


class Clock:
    """A clock that goes on by a second each time it is asked."""

    def __init__(self) -> None:
        self._now = BEGUN

    def now(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now

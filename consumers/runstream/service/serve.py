"""One process of Runstream from start to end.

    hold the data directory > telemetry > embedded servers > migrations > platform > components > wait > all back
                                                                  ^                                 |
                                                                  +------ NATS or Postgres is away -+

Whatever is started is stopped, in the opposite order, also when a later part fails to start or a stop is requested
before all have started. The first component that ends by itself ends the process. A process whose NATS or Postgres is
away waits for it, not ready, and then continues.

The first SIGTERM, SIGINT or SIGHUP requests a stop, which has `STOP_SECONDS` in all; a second signal forces it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import structlog

from runstream.errors import BadRequestError, InternalError, RunstreamError, outermost
from runstream.lifecycle import Component, wait_for_first
from runstream.open_files import raise_open_files
from runstream.sealing import Keyring
from runstream.service.data_dir import DataDir
from runstream.service.edge import sentence
from runstream.service.platform import Platform, open_platform
from runstream.service.servers import Servers, embedded_servers, keep_room, require_port
from runstream.service.waiting import Waiting
from runstream.service.wiring import Parts, build
from runstream.settings import Settings
from runstream.telemetry.health import Check, check_all
from runstream.telemetry.http_server import HttpServer
from runstream.telemetry.logs import hide_password_of
from runstream.telemetry.process import Telemetry, setup_telemetry

log = structlog.get_logger()
STOP_SECONDS = 9.5
"""Bound of a stop, in seconds, from the first signal to the end of the last server."""
SERVERS_SECONDS = 2.0
"""Seconds of a stop that are reserved for telemetry and the servers."""
START_SECONDS = 60.0
_FORCED_COMPONENT_SECONDS = 0.2
_NEED_DATABASE = frozenset({"gateway", "scheduler", "datamanager", "configstore"})
_TELEMETRY_SECONDS = 1.0
_FORCED_SERVER_SECONDS = 0.5
Ready = Callable[[Settings, Parts, str], None]
"""Called when all components serve, with the complete settings."""


class StopRequest:
    """The request to stop this process, and its urgency."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()
        self._asked_at: float | None = None
        self.serving = False
        """True once the process has started; then it handles the request itself."""

    def stopped_by_itself(self) -> None:
        """Reset the time of a stop that no signal requested: the process continues."""
        self.serving = False
        if not self.asked.is_set():
            self._asked_at = None

    def remaining(self, least: float) -> float:
        """Return the seconds left for stopping, at least `least`. The time starts with the signal or the first call."""
        if self._asked_at is None:
            self._asked_at = asyncio.get_running_loop().time()
        return max(least, self._asked_at + STOP_SECONDS - asyncio.get_running_loop().time())

    def on_signal(self, number: signal.Signals) -> None:
        """Handle a signal."""
        if self.asked.is_set():
            log.warning("stopping at once", action="stop_forced", signal=number.name)
            self.insisted.set()
            return
        log.info("stopping; a second signal stops at once", action="stop_asked", signal=number.name)
        self._asked_at = asyncio.get_running_loop().time()
        self.asked.set()

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Handle the signals of this process while the block lasts; main thread only."""
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup means: go on without the terminal
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self.on_signal, number)
        try:
            yield self
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def running(
    components: Sequence[Component], request: StopRequest, checks: Mapping[str, Check] = MappingProxyType({})
) -> AsyncIterator[None]:
    """Start the components in order; stop them in the opposite order when the block ends.

    `checks` name the missing dependencies when a component does not start in time.
    """
    started: list[Component] = []
    try:
        for component in components:
            started.append(component)
            await _start(component, checks)
        yield
    finally:
        await _stop_all(started, request)


@contextlib.asynccontextmanager
async def taking_over(
    waiting: Waiting, others: Sequence[Component], web: HttpServer, request: StopRequest, checks: Mapping[str, Check]
) -> AsyncIterator[None]:
    """Run the components; the HTTP server takes the socket of the wait over once the others have started.

    A dependency that is lost again before that leaves the wait as it was: requests get 503, never a refused connection.
    """
    async with running(others, request, checks):
        await waiting.end(web)
        async with running([web], request, checks):
            yield


async def first_end(components: Sequence[Component]) -> InternalError:
    """Wait until a component ends by itself; return the error that says which and why."""
    waiting = {asyncio.create_task(component.wait()): component for component in components}
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    task = next(iter(done))
    return _ended(waiting[task], task.exception() if not task.cancelled() else None)


def _ended(component: Component, cause: BaseException | None) -> InternalError:
    known = outermost(cause) if cause is not None else None
    why = f": {sentence(cause)}" if cause is not None else ""
    error = InternalError(
        f"the {component.name} has ended{why}",
        code="componentEnded",
        details={"component": component.name},
        hint=(known.hint if known is not None else "") or "see its last log records; then start it again",
    )
    error.__cause__ = cause
    return error


async def _start(component: Component, checks: Mapping[str, Check]) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            await component.start()
    except TimeoutError as error:
        found = await check_all(checks)
        failing = {name: why for name, why in found.items() if why != "ok"}
        raise InternalError(
            f"the {component.name} has not started within {START_SECONDS:.0f} seconds",
            code="componentNotStarted",
            details={"failing": failing},
            hint="see its log records for what it waits for",
        ) from error
    except RunstreamError:
        raise
    except Exception as error:
        raise InternalError(
            f"the {component.name} has not started: {sentence(error)}",
            code="componentNotStarted",
            hint="--detailed-errors shows where",
        ) from error
    log.info(f"{component.name} started", action="component_started", component=component.name)


async def _stop_all(started: Sequence[Component], request: StopRequest) -> None:
    stopping = asyncio.create_task(_stop_in_order(started, request))
    insisted = asyncio.create_task(request.insisted.wait())
    await asyncio.wait({stopping, insisted}, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        for component in started:
            component.stop_seconds = _FORCED_COMPONENT_SECONDS
        await asyncio.gather(*(component.stop() for component in started))
    insisted.cancel()
    await stopping


async def _stop_in_order(started: Sequence[Component], request: StopRequest) -> None:
    for component in reversed(started):
        component.stop_seconds = min(component.stop_seconds, request.remaining(SERVERS_SECONDS) - SERVERS_SECONDS)
        await component.stop()
        log.info(f"{component.name} stopped", action="component_stopped", component=component.name)


async def serve(settings: Settings, data_dir: DataDir, ready: Ready) -> None:
    """Run the components of the settings in a held data directory until a signal stops them.

    Raise BadRequestError or ConflictError for settings that cannot work here, InternalError when a component or an
    embedded server ends by itself, or a server cannot be reached.
    """
    _check_servers(settings)
    if settings.secrets_key_file is not None and {"gateway", "executor"} & set(settings.components):
        Keyring.read(settings.secrets_key_file)  # a bad file is named before anything is waited for
    raise_open_files()
    require_port(settings.host, settings.port if "gateway" in settings.components else settings.metrics_port)
    with StopRequest().listening() as request:
        settings = replace(settings, token=settings.token or data_dir.token())
        async with _telemetry(settings) as telemetry:
            process = _Process(settings, data_dir, telemetry, request, ready)
            running = asyncio.create_task(process.run())
            asked = asyncio.create_task(request.asked.wait())
            await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            if not request.serving:
                running.cancel()
            with contextlib.suppress(asyncio.CancelledError):  # a stop before everything had started
                await running


def needs_database(settings: Settings) -> bool:
    """Return whether a component of this process uses Postgres; an executor does not."""
    return not _NEED_DATABASE.isdisjoint(settings.components)


@dataclass(frozen=True, slots=True)
class _Process:
    settings: Settings
    data_dir: DataDir
    telemetry: Telemetry
    request: StopRequest
    ready: Ready
    announced: list[str] = field(default_factory=list)
    """The announced URL: announced once, also when the process waits and continues."""

    async def run(self) -> None:
        database = needs_database(self.settings)
        embedded = embedded_servers(self.settings, database=database, stop_seconds=self._stop_seconds)
        async with embedded as (servers, settings):
            hide_password_of(settings.nats_url)
            hide_password_of(settings.database_url)
            async with Waiting(settings, self.telemetry, self.data_dir.remembered_port()) as waiting:
                while not self.request.asked.is_set():
                    try:
                        await self._serve(settings, servers, waiting)
                        break
                    except Exception as error:  # noqa: BLE001 - raised again where waiting does not help
                        self.request.stopped_by_itself()
                        await waiting.until_next_attempt(error)

    async def _serve(self, settings: Settings, servers: Servers, waiting: Waiting) -> None:
        """Start all components and serve until the end. Raise what prevents it."""
        database = needs_database(self.settings)
        if database:  # a process with executors only does not import the database's modules
            from runstream.database.migrating import migrate
            from runstream.importing.epochs import remove_killed
            from runstream.maintenance.request import SERVICES

            await migrate(settings.database_url, settings.database_schema)
        folder = None if servers.nats is None else servers.nats.folder
        async with open_platform(settings, self.telemetry, database=database, nats_folder=folder) as platform:
            if database:
                for service in SERVICES:
                    await remove_killed(platform.service_place(service))
            parts = await build(platform, self.data_dir)
            self.data_dir.keep()
            async with taking_over(waiting, parts.components[:-1], parts.web, self.request, platform.checks()):
                with self._announced(parts):
                    if not self.announced:
                        self.announced.append(parts.web.url)
                        self.ready(settings, parts, await _admin_login_link(parts))
                    await self._until_the_end(parts, servers, platform)

    def _stop_seconds(self) -> float:
        """Return the bound of the servers' stop: the time left, or very little after a second signal."""
        return _FORCED_SERVER_SECONDS if self.request.insisted.is_set() else self.request.remaining(SERVERS_SECONDS)

    @contextlib.contextmanager
    def _announced(self, parts: Parts) -> Iterator[None]:
        if not parts.gateway:
            yield
            return
        self.data_dir.remember_port(parts.web.port)
        with self.data_dir.announced(parts.web.url, self.settings.token):
            yield

    async def _until_the_end(self, parts: Parts, servers: Servers, platform: Platform) -> None:
        """Wait for a request to stop. Raise the error of a component or server that ends by itself."""
        self.request.serving = True
        ends = (first_end(parts.components), servers.first_death(), _no_restart(servers, platform))
        end = await wait_for_first(self.request.asked.wait(), *ends)
        if isinstance(end, InternalError) and not self.request.asked.is_set():
            raise end


async def _admin_login_link(parts: Parts) -> str:
    """Return a link to print on a terminal, which no log keeps; empty elsewhere, and where it cannot be made now."""
    if parts.admin_login_link is None or not sys.stdout.isatty():
        return ""
    try:
        return await parts.admin_login_link()
    except RunstreamError as error:  # `runstream user login-link` makes one later
        log.info(f"no login link: {error.message}", action="no_login_link", code=error.code)
        return ""


async def _no_restart(servers: Servers, platform: Platform) -> InternalError:
    """Restart the embedded NATS when its store needs it; return the error of a restart that fails."""
    if servers.nats is not None:
        try:
            await keep_room(servers.nats, platform.nats)
        except InternalError as error:
            return error
    ended: asyncio.Future[InternalError] = asyncio.get_running_loop().create_future()
    return await ended


@contextlib.asynccontextmanager
async def _telemetry(settings: Settings) -> AsyncIterator[Telemetry]:
    telemetry = setup_telemetry(settings, "+".join(settings.components))
    try:
        yield telemetry
    finally:
        await telemetry.shutdown(_TELEMETRY_SECONDS)


def _check_servers(settings: Settings) -> None:
    """Raise BadRequestError for part of a service without URLs: other processes cannot reach embedded servers."""
    alone = {"gateway", "scheduler"} <= set(settings.components)
    missing = [
        option
        for option, url, needed in (
            ("--nats-url", settings.nats_url, True),
            ("--database-url", settings.database_url, needs_database(settings)),
        )
        if needed and not url
    ]
    if missing and not alone:
        raise BadRequestError(
            f"a process with only {', '.join(settings.components)} is part of a larger service and needs "
            f"{' and '.join(missing)}",
            code="missingServerURL",
            details={"missing": missing},
            hint="give the URLs of the servers that the other processes use, or leave --components out",
        )

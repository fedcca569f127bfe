"""The connection to a container engine: calls whose errors are sentences, and a watch on whether it is there.

The watch holds the engine's stream of events open, and asks for the version when the stream ends or is quiet for long.
An engine that does not answer is away: all calls to it fail at once, the running ones too, because a hung engine ends
no connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from aiodocker import Docker, DockerError

from runstream.backoff import Backoff
from runstream.executor.drivers.containers import EngineRefusedError, EngineUnreachableError

CALL_SECONDS = 60.0
"""Maximum duration of a call that does not stream, in seconds."""
ANSWER_SECONDS = 10.0
"""Time in which the engine is to tell its version, in seconds; else it is away."""
QUIET_SECONDS = 10.0
"""Time without an event after which the engine is asked whether it still answers, in seconds."""
_BACKOFF = Backoff(0.1, 2.0)
_UNREACHABLE = 900
"""The status that the client library gives to a connection that could not be made."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armv7l": "arm"}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """An event of a container of this executor."""

    action: str
    """`die`, `oom`."""
    container: str
    attributes: dict[str, str]
    """The container's labels, and `exitCode`."""


class Engine:
    """A container engine. `url` is `unix:///PATH` or `tcp://HOST:PORT`; `tls` is a folder with ca.pem, cert.pem and
    key.pem, or None for a connection without TLS."""

    def __init__(self, url: str, tls: Path | None) -> None:
        self.version = ""
        """Such as `docker 28.2.2`; empty before it was reached."""
        self.away = "not reached yet"
        """Why it cannot be used now; empty if it can."""
        self.arch = ""
        """Its architecture, as images name it."""
        self.cpu = 0
        """Thousandths of a processor of its machine."""
        self.memory = 0
        """Bytes of memory of its machine."""
        self._url = url
        self._tls = tls
        self._client: Docker | None = None
        self._calls: set[asyncio.Timeout] = set()
        """The running calls that end when the engine goes away."""
        self._first = asyncio.Event()
        """Set once it was tried for the first time."""

    @property
    def with_tls(self) -> bool:
        """Whether its connections are encrypted."""
        return self._tls is not None

    @contextlib.asynccontextmanager
    async def asked(self, seconds: float | None = CALL_SECONDS) -> AsyncIterator[Docker]:
        """Yield the client for calls that take at most `seconds`; None for no limit.

        Raises EngineUnreachableError, at once when the engine is away or goes away meanwhile, and EngineRefusedError
        with what the engine said.
        """
        if self.away:
            raise EngineUnreachableError(self.away)
        try:
            async with asyncio.timeout(None) as call:
                self._calls.add(call)
                try:
                    async with self.tried(seconds) as docker:
                        yield docker
                finally:
                    self._calls.discard(call)
        except TimeoutError as error:
            raise EngineUnreachableError(self.away or "it went away for a moment") from error

    @contextlib.asynccontextmanager
    async def tried(self, seconds: float | None = CALL_SECONDS) -> AsyncIterator[Docker]:
        """Yield the client as `asked` does, also for calls to an engine that is away."""
        try:
            async with asyncio.timeout(seconds):
                yield self._docker()
        except DockerError as error:
            if error.status == _UNREACHABLE:
                raise EngineUnreachableError(_reason(error)) from error
            raise EngineRefusedError(error.status, str(error.message)) from error
        except TimeoutError as error:
            raise EngineUnreachableError(f"it did not answer within {seconds:.0f} seconds") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnreachableError(_reason(error)) from error

    async def reached(self) -> None:
        """Wait until the engine was tried for the first time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._first.wait()

    async def watch(
        self,
        label: str,
        back: Callable[[], Awaitable[None]],
        changed: Callable[[], None],
        heard: Callable[[EngineEvent], None],
    ) -> None:
        """Keep `version` and `away` right until cancelled.

        `back` runs each time that the engine has come back, `changed` when one of the two fields has changed, and
        `heard` for each event of a container with this label.
        """
        delays = _BACKOFF.delays()
        while True:
            try:
                await self._ask_version()
                async with self._events(label) as events:
                    await back()
                    self._set_away("", changed)
                    delays = _BACKOFF.delays()
                    await self._listen(events, heard)  # until the stream ends: then the version is asked for again
            except EngineUnreachableError as error:
                self._set_away(error.reason, changed)
            except EngineRefusedError as error:
                self._set_away(str(error), changed)
            await asyncio.sleep(next(delays))

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _docker(self) -> Docker:
        if self._client is None:
            context = None
            url = self._url
            if self._tls is not None:
                context = _with_certificates(self._tls)
                url = f"https://{url.partition('://')[2]}"
            self._client = Docker(url=url, ssl_context=context)
        return self._client

    async def _ask_version(self) -> None:
        async with self.tried(ANSWER_SECONDS) as docker:
            told, machine = await docker.version(), await docker.system.info()
        name = str((told.get("Platform") or {}).get("Name") or "")
        components = {str(each.get("Name", "")) for each in told.get("Components") or ()}
        kind = "podman" if any("Podman" in each for each in (name, *components)) else "docker"
        self.version = f"{kind} {told.get('Version', '')}".strip()
        arch = str(told.get("Arch", ""))
        self.arch = _ARCHITECTURES.get(arch, arch)
        self.cpu, self.memory = 1000 * int(machine.get("NCPU") or 0), int(machine.get("MemTotal") or 0)

    @contextlib.asynccontextmanager
    async def _events(self, label: str) -> AsyncIterator[asyncio.Queue[dict[str, Any] | None]]:
        """Yield the events of containers with this label; None ends them."""
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        filters = {"type": ["container"], "event": ["die", "oom"], "label": [label]}

        async def read() -> None:
            try:
                async with self.tried(None) as docker:
                    subscriber = docker.events.subscribe(create_task=False)  # type: ignore[no-untyped-call]
                    running = asyncio.ensure_future(docker.events.run(filters=json.dumps(filters)))
                    try:
                        while (event := await subscriber.get()) is not None:
                            queue.put_nowait(event)
                    finally:
                        running.cancel()
                        await asyncio.wait({running})
                    if not running.cancelled() and (error := running.exception()) is not None:
                        raise error
            except (EngineUnreachableError, EngineRefusedError) as error:
                log.debug(f"no more events of the engine: {error}", action="engine_events_ended")
            finally:
                queue.put_nowait(None)

        reading = asyncio.create_task(read())
        try:
            yield queue
        finally:
            reading.cancel()
            await asyncio.wait({reading})

    async def _listen(self, events: asyncio.Queue[dict[str, Any] | None], heard: Callable[[EngineEvent], None]) -> None:
        while True:
            try:
                async with asyncio.timeout(QUIET_SECONDS):
                    event = await events.get()
            except TimeoutError:
                await self._ask_version()
                continue
            if event is None:
                return
            actor = event.get("Actor") or {}
            heard(
                EngineEvent(str(event.get("Action", "")), str(actor.get("ID", "")), dict(actor.get("Attributes") or {}))
            )

    def _set_away(self, reason: str, changed: Callable[[], None]) -> None:
        known, self.away = self.away, reason
        first = not self._first.is_set()
        self._first.set()
        if reason:
            self._end_calls()
        if bool(known) != bool(reason) or first:
            if reason:
                log.warning(f"the container engine is unreachable: {reason}", action="engine_away", engine=self._url)
            else:
                log.info(f"the container engine is there: {self.version}", action="engine_there", engine=self._url)
            changed()

    def _end_calls(self) -> None:
        for call in self._calls:
            if not call.expired():
                call.reschedule(0)


def _with_certificates(folder: Path) -> ssl.SSLContext:
    """Return a context with the certificates of this folder. Raises EngineUnreachableError that names a bad file."""
    authority, certificate, key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
    file = authority
    try:
        context = ssl.create_default_context(cafile=str(authority))
        file = certificate if key.exists() else key
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise EngineUnreachableError(f"{file}: {error.strerror or error} (executor.engine_tls_dir)") from error
    return context


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error.__context__ or error
    text = str(cause.strerror) if isinstance(cause, OSError) and cause.strerror else str(error)
    return text or type(error).__name__

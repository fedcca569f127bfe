"""The connection to a Kubernetes API server: calls whose errors are sentences, and commands in containers.

A call that the server could not answer is repeated for a while by `patiently`: a cluster's pods survive a restart of
its API server, so that fails no task. Every call that is repeated is safe to repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import httpx2
import msgspec
import structlog
from httpx2.websockets import HTTPXWSException, WebSocketUpgradeError
from lightkube import ApiError, AsyncClient, ConfigError, KubeConfig, SingleConfig
from lightkube.config import client_adapter
from lightkube.config.models import User

from runstream.backoff import Backoff, retry
from runstream.errors import InternalError
from runstream.executor.drivers.container_files import ContainerCommand, Sink, read_fed
from runstream.executor.drivers.containers import EngineRefusedError, EngineUnreachableError
from runstream.executor.drivers.kubernetes.channels import (
    CLOSES_INPUT,
    ERROR,
    INPUT_BYTES,
    PROTOCOLS,
    STDERR,
    STDOUT,
    Result,
    end_of_input,
    input_message,
    result_of,
    size_message,
)
from runstream.executor.spawner.agent import COLUMNS, ROWS

CALL_SECONDS = 10.0
"""Maximum duration of a call that does not stream, in seconds."""
PATIENCE_SECONDS = 60.0
"""Time for which a call is repeated while the API server is away, in seconds."""
_BACKOFF = Backoff(0.1, 2.0, jitter=True)
_MESSAGE_BYTES = 1 << 20
_TAIL_LINES = 10
_OVERLOADED = 429
_SERVER_ERROR = 500
NOT_FOUND, CONFLICT, GONE, FORBIDDEN = 404, 409, 410, 403

log = structlog.get_logger()
T = TypeVar("T")


class ConnectionLostError(InternalError):
    """The connection to a running command was lost, so its result is unknown."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the connection to the container was lost: {reason}", code="containerLost")


class Cluster:
    """An API server, found as kubectl finds it: the pod's own service account, KUBECONFIG, or ~/.kube/config.

    `namespace` is where pods are made; empty for the configuration's.
    """

    def __init__(self, namespace: str) -> None:
        self._wanted = namespace
        self._client: AsyncClient | None = None
        self._streams: httpx2.AsyncClient | None = None

    @property
    def namespace(self) -> str:
        """Where pods are made; known after the first call."""
        return str(self._client.namespace) if self._client is not None else self._wanted

    @contextlib.asynccontextmanager
    async def asked(self, seconds: float | None = CALL_SECONDS) -> AsyncIterator[AsyncClient]:
        """Yield the client for calls that take at most `seconds`; None for no limit.

        Raises EngineUnreachableError, and EngineRefusedError with what the server said.
        """
        try:
            async with asyncio.timeout(seconds):
                yield await self._connected()
        except ApiError as error:
            code = error.status.code or 0
            reason = str(error.status.message or error.status.reason or f"status {code}")
            if code >= _SERVER_ERROR or code == _OVERLOADED:
                raise EngineUnreachableError(reason) from error
            raise EngineRefusedError(code, reason) from error
        except TimeoutError as error:
            raise EngineUnreachableError(f"it did not answer within {seconds:.0f} seconds") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, ConfigError, msgspec.MsgspecError, OSError, ValueError) as error:
            raise EngineUnreachableError(_reason(error)) from error

    async def patiently(self, call: Callable[[AsyncClient], Awaitable[T]]) -> T:
        """Return the result of a call that is safe to repeat, repeated while the server is away."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS

        async def once() -> T:
            async with self.asked() as client:
                return await call(client)

        def note(error: EngineUnreachableError, delay: float) -> None:
            if loop.time() + delay > deadline:
                raise error

        return await retry(once, EngineUnreachableError, _BACKOFF, note)

    async def tail(self, pod: str, container: str) -> str:
        """Return the last lines that a container wrote; empty if the cluster does not tell them."""
        with contextlib.suppress(EngineRefusedError):
            async with self.asked() as client:
                lines = [line async for line in client.log(pod, container=container, tail_lines=_TAIL_LINES)]
            return "".join(lines).strip()
        return ""

    async def version(self) -> str:
        """Return the version of the API server, such as `1.37.0`."""
        async with self.asked():
            if self._streams is None:
                return ""
            answer = await self._streams.get("version")
            answer.raise_for_status()
            return str(answer.json().get("gitVersion", "")).removeprefix("v")

    async def run(self, pod: str, container: str, command: ContainerCommand, text: bytes = b"") -> Result:
        """Run a command in a container and return its result; its environment is not used.

        `text` is written to its input, which stays open; the command's `source` up to its end, which is the input's.
        Raises ConnectionLostError, EngineRefusedError, and EngineUnreachableError if the command was not started.
        """
        await self._connected_or_raise()
        client = self._streams
        if client is None:
            raise InternalError("the connection to the cluster is closed", code="engineUnreachable")
        given = bool(text) or command.source is not None
        parameters: list[tuple[str, Any]] = [
            ("container", container),
            *(("command", word) for word in command.arguments),
            ("stdin", str(given).lower()),
            ("stdout", "true"),
            ("stderr", str(not command.tty).lower()),
            ("tty", str(command.tty).lower()),
        ]
        place = f"api/v1/namespaces/{self.namespace}/pods/{pod}/exec"
        started = False
        try:
            query = httpx2.QueryParams(parameters)
            async with client.websocket(
                place,
                subprotocols=PROTOCOLS,
                params=query,
                max_message_size_bytes=_MESSAGE_BYTES,
            ) as session:
                started = True
                if command.tty:
                    await session.send_bytes(size_message(ROWS, COLUMNS))
                if command.source is not None and session.subprotocol != CLOSES_INPUT:
                    raise InternalError(
                        "the API server cannot end the input of a command",
                        code="clusterTooOld",
                        hint="steps with workspaces and caches need Kubernetes 1.30 or later",
                    )
                reading = _read(session, command.output, command.errors or command.output)
                return await read_fed(reading, _write(session, text, command.source))
        except (HTTPXWSException, httpx2.HTTPError, OSError, BaseExceptionGroup) as raised:
            error = _only(raised)
            if isinstance(error, WebSocketUpgradeError):
                status = error.response.status_code
                if status >= _SERVER_ERROR or status == _OVERLOADED:
                    raise EngineUnreachableError(f"it answered with status {status}") from error
                raise EngineRefusedError(status, f"no command can run in pod {pod} (status {status})") from error
            if not isinstance(error, HTTPXWSException | httpx2.HTTPError | OSError):
                raise error from None
            if not started:
                raise EngineUnreachableError(_reason(error)) from error
            raise ConnectionLostError(_reason(error)) from error

    async def close(self) -> None:
        """Close all connections."""
        client, self._client = self._client, None
        streams, self._streams = self._streams, None
        if client is not None:
            await client.aclose()
        if streams is not None:
            await streams.aclose()

    async def _connected(self) -> AsyncClient:
        if self._client is None:
            config = await asyncio.to_thread(_configuration)
            user = config.user or User()
            verify = await asyncio.to_thread(client_adapter.verify_cluster, config.cluster, user, config.abs_file)
            self._streams = httpx2.AsyncClient(
                base_url=config.cluster.server,
                verify=verify,
                auth=client_adapter.user_auth(user),
                timeout=httpx2.Timeout(CALL_SECONDS),
                limits=httpx2.Limits(max_connections=None),  # each running command holds one
            )
            self._client = AsyncClient(config, namespace=self._wanted or None, timeout=httpx2.Timeout(CALL_SECONDS))
        return self._client

    async def _connected_or_raise(self) -> None:
        async with self.asked():
            pass


def _configuration() -> SingleConfig:
    config: SingleConfig | None = KubeConfig.from_env().get()
    if config is None:
        raise ConfigError("the configuration has no current context")
    return config


async def _read(session: Any, output: Sink, errors: Sink) -> Result:
    while True:
        message = await session.receive_bytes()
        channel, data = message[0] if message else -1, message[1:]
        if channel == ERROR:
            return result_of(data)
        sink = output if channel == STDOUT else errors
        if channel in (STDOUT, STDERR) and data and (room := sink(data)) is not None:
            await room


async def _write(session: Any, text: bytes, source: AsyncIterator[bytes] | None) -> None:
    for at in range(0, len(text), INPUT_BYTES):
        await session.send_bytes(input_message(text[at : at + INPUT_BYTES]))
    if source is not None:
        async for chunk in source:
            for at in range(0, len(chunk), INPUT_BYTES):
                await session.send_bytes(input_message(chunk[at : at + INPUT_BYTES]))
        await session.send_bytes(end_of_input())


def _only(error: BaseException) -> BaseException:
    """Return the first error of a group, which the websocket's background tasks make."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _reason(error: BaseException) -> str:
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return str(found.strerror)
        found = found.__cause__ or found.__context__
    return str(error) or type(error).__name__

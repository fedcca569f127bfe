"""The live side of a step's log: what has been written is published soon, and never holds up the step.

A log is also written to a local file and becomes an object when it has ended, so the live one may lose bytes:
when NATS does not take them, or the stream is full. Every message says at which offset its bytes begin, and the
last one how many there are in all; a reader that misses some waits for the object.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, StorageType, StreamConfig
from nats.js.errors import APIError

from runstream.errors import Kind, RemoteError
from runstream.steplogs.subjects import OFFSET_HEADER, TOTAL_HEADER, stream_of, subject_of, task_subjects

FLUSH_SECONDS = 0.1
"""How long bytes are gathered before they are published. What has become an object by then is not published at all."""
_AWAY_SECONDS = 0.25
MESSAGE_BYTES = 64 << 10
PENDING_BYTES = 1 << 20
"""How much of one log waits for NATS; more is left out of the live log."""
STREAM_BYTES = 128 << 20
STREAM_AGE_SECONDS = 24 * 3600.0

log = structlog.get_logger()


class LiveLog:
    """One log while its step runs."""

    def __init__(self, owner: LiveLogs, executor_task: str, subject: str) -> None:
        self._owner = owner
        self.executor_task = executor_task
        self.subject = subject
        self.offset = 0
        """Where the pending bytes begin."""
        self.pending = bytearray()
        self.ended = False

    def write(self, chunk: bytes) -> None:
        """More bytes; returns at once."""
        self.pending += chunk
        left_out = len(self.pending) - PENDING_BYTES
        if left_out > 0:
            del self.pending[:left_out]
            self.offset += left_out
        self._owner.touch(self)

    def end(self) -> None:
        """The log is complete; a second end does nothing."""
        if not self.ended:
            self.ended = True
            self._owner.touch(self)

    def take(self) -> tuple[bytes, dict[str, str]] | None:
        """The next message; None when there is nothing to say."""
        chunk = bytes(self.pending[:MESSAGE_BYTES])
        headers = {OFFSET_HEADER: str(self.offset)}
        del self.pending[: len(chunk)]
        self.offset += len(chunk)
        if self.ended and not self.pending:
            headers[TOTAL_HEADER] = str(self.offset)
        return (chunk, headers) if chunk or TOTAL_HEADER in headers else None


class LiveLogs:
    """Publishes the live logs of one process."""

    def __init__(self, nats: Nats, namespace: str) -> None:
        self._nats = nats
        self._namespace = namespace
        self._stream = stream_of(namespace)
        self._dirty: dict[LiveLog, None] = {}
        self._published: set[str] = set()
        """The executor tasks of which something was published."""
        self._wake = asyncio.Event()
        self._stream_missing = False
        self._inbox = nats.new_inbox()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make the stream and begin to publish. Raises RemoteError when NATS refuses."""
        try:
            await self._make_stream()
            self._answers = await self._nats.subscribe(self._inbox, cb=self._answered)
        except (NatsError, OSError) as error:
            raise RemoteError(
                f"the stream of live logs {self._stream} cannot be made: {error}",
                remote_kind=Kind.INTERNAL,
                code="natsUnreachable",
                hint="does NATS run with JetStream? `runstream doctor` checks it",
            ) from error
        self._task = asyncio.create_task(self._publish_for_ever(), name="live logs")

    async def stop(self) -> None:
        """Publish what is pending, bounded, and end."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        self._task = None
        with contextlib.suppress(TimeoutError, NatsError, OSError):  # live logs may lose bytes
            async with asyncio.timeout(1):
                await self._publish_dirty()
                await self._answers.unsubscribe()

    def log(self, executor_task: str, step: int | None) -> LiveLog:
        """A new log; step None is the setup step's."""
        return LiveLog(self, executor_task, subject_of(self._namespace, executor_task, step))

    def touch(self, live: LiveLog) -> None:
        """This log has something to publish."""
        self._dirty[live] = None
        self._wake.set()

    async def forget(self, executor_task: str) -> None:
        """All logs of the task are objects: its messages need no memory any more, and what waits is not published."""
        for live in [live for live in self._dirty if live.executor_task == executor_task]:
            del self._dirty[live]
        if executor_task not in self._published:
            return
        self._published.discard(executor_task)
        try:
            await self._nats.jetstream().purge_stream(
                self._stream, subject=task_subjects(self._namespace, executor_task)
            )
        except (NatsError, OSError, TimeoutError) as error:
            # The stream's limits will do it later.
            log.debug("a live log was not removed", action="live_log_not_removed", task=executor_task, error=str(error))

    async def _publish_for_ever(self) -> None:
        connections = self._nats.stats["reconnects"]
        while True:
            await self._wake.wait()
            await asyncio.sleep(FLUSH_SECONDS)
            if not self._nats.is_connected:
                # What waits is bounded here; in the connection's own buffer it would be in the way of others.
                await asyncio.sleep(_AWAY_SECONDS)
                continue
            self._wake.clear()
            try:
                if self._stream_missing or connections != self._nats.stats["reconnects"]:
                    connections = self._nats.stats["reconnects"]
                    await self._make_stream()  # one in memory went with a server that was restarted
                    self._stream_missing = False
                await self._publish_dirty()
            except (NatsError, OSError, TimeoutError) as error:
                log.warning("live logs cannot be published", action="live_logs_not_published", error=str(error))

    async def _publish_dirty(self) -> None:
        for live in list(self._dirty):
            if live not in self._dirty:  # forgotten meanwhile
                continue
            del self._dirty[live]
            self._published.add(live.executor_task)
            while (message := live.take()) is not None:
                chunk, headers = message
                last = TOTAL_HEADER in headers
                await self._nats.publish(live.subject, chunk, reply=self._inbox if last else "", headers=headers)
                if last:
                    break

    async def _answered(self, message: Msg) -> None:
        """NATS answers the last message of each log: nobody there means that the memory stream went with a restart."""
        if message.headers is not None and message.headers.get("Status") == "503":
            self._stream_missing = True

    async def _make_stream(self) -> None:
        config = StreamConfig(
            name=self._stream,
            subjects=[f"{self._namespace}.logs.*.*"],
            storage=StorageType.MEMORY,
            discard=DiscardPolicy.OLD,
            max_bytes=STREAM_BYTES,
            max_age=STREAM_AGE_SECONDS,
            num_replicas=1,
            allow_direct=True,
        )
        stream = self._nats.jetstream()
        try:
            await stream.add_stream(config)
        except APIError as error:
            if error.err_code != 10058:  # in use with another configuration: an earlier version's
                raise
            await stream.update_stream(config)

"""The live side of a step's log: what has been written is published soon, and never holds up the step.

A log is also written to a local file and becomes an object when it has ended, so the live one may lose bytes:
when NATS does not take them, or the stream is full. Every message says at which offset its bytes begin, and the
last one how many there are in all; a reader that misses some waits for the object.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson
import structlog
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, StorageType, StreamConfig
from nats.js.errors import APIError

from runstream.errors import Kind, RemoteError

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


OFFSET_HEADER = "Offset"
"""Where in the log the message's bytes begin."""
TOTAL_HEADER = "Total"
"""Only in the last message of a log: how many bytes the log has."""


def stream_of(namespace: str) -> str:
    """The name of the stream of live logs."""
    return f"{namespace}_LOGS"


def task_subjects(namespace: str, executor_task: str) -> str:
    """The filter for all logs of an executor task."""
    return f"{namespace}.logs.{executor_task}.*"


def subject_of(namespace: str, executor_task: str, step: int | None) -> str:
    """The subject of one log; step None is the setup step's."""
    return f"{namespace}.logs.{executor_task}.{'setup' if step is None else step}"


_BATCH = 256
_BATCH_BYTES = 4 << 20
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Piece:
    """One message of a live log."""

    sequence: int
    """In the stream; 0 when it was heard as it was published."""
    offset: int
    data: bytes
    total: int | None
    """The length of the log, when it has ended."""

    def after(self, have: int) -> bytes | None:
        """What it adds to a reader who has that many bytes; None when bytes in between are missing."""
        return self.data[have - self.offset :] if self.offset <= have else None


def piece_of(message: Msg) -> Piece | None:
    """The piece that a message is; None for a message that is not of a live log."""
    headers = message.headers or {}
    offset, total = headers.get(OFFSET_HEADER, ""), headers.get(TOTAL_HEADER)
    if not offset.isdigit() or not (total is None or total.isdigit()):
        return None
    sequence = int(headers.get("Nats-Sequence", "0"))
    return Piece(sequence, int(offset), message.data, None if total is None else int(total))


async def stored_pieces(nats: Nats, stream: str, subject: str, after: int) -> AsyncIterator[Piece]:
    """The stored messages of a log behind a sequence, in order. Raises RemoteError when NATS does not answer."""
    while True:
        batch = await _batch(nats, stream, subject, after + 1)
        for piece in batch:
            after = piece.sequence
            yield piece
        if not batch:
            return


async def _batch(nats: Nats, stream: str, subject: str, sequence: int) -> list[Piece]:
    request = {"seq": sequence, "next_by_subj": subject, "batch": _BATCH, "max_bytes": _BATCH_BYTES}
    answers: asyncio.Queue[Msg] = asyncio.Queue()  # bounded by the batch

    async def answered(message: Msg) -> None:
        answers.put_nowait(message)

    pieces: list[Piece] = []
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            inbox = nats.new_inbox()
            subscription = await nats.subscribe(inbox, cb=answered)
            try:
                await nats.publish(f"$JS.API.DIRECT.GET.{stream}", orjson.dumps(request), reply=inbox)
                while True:
                    message = await answers.get()
                    status = (message.headers or {}).get("Status")
                    if status is not None:
                        if status == "503":  # the stream went with a restart of NATS: nothing is stored
                            return []
                        return pieces
                    piece = piece_of(message)
                    if piece is not None:
                        pieces.append(piece)
            finally:
                await subscription.unsubscribe()
    except (NatsError, OSError, TimeoutError) as error:
        raise unreachable() from error


def unreachable() -> RemoteError:
    """The error for a live log that cannot be read; to be raised from its cause."""
    return RemoteError(
        "the live log cannot be read: NATS does not answer",
        remote_kind=Kind.INTERNAL,
        code="natsUnreachable",
        hint="does NATS run? `runstream doctor` checks it",
    )

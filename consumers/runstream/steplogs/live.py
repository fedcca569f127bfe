"""The live log of a step: published over NATS while the step runs, without ever blocking the step.

All live logs of a deployment are in one memory stream, with a subject for each step. A log is also written to a local
file, which becomes an object when the step has ended. So the live log may lose bytes: when NATS is away, or the stream
is full. Each message has the offset of its bytes, and the last one the length of the log; a reader that misses bytes
waits for the object.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise

import orjson
import structlog
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from runstream.errors import Kind, RemoteError
from runstream.jetstream.api import STREAM_DIFFERS, ApiError, UnavailableError, request
from runstream.lifecycle import keep_running
from runstream.log_times import MAX_TIME, TimedBytes

OFFSET_HEADER = "Offset"
"""Header with the offset of a message's bytes in the log."""
TOTAL_HEADER = "Total"
"""Header of a log's last message with the length of the log in bytes."""
TIMES_HEADER = "Times"
"""Header with the times of a message's bytes: `OFFSET:TIME` (milliseconds since 1970), separated by commas."""
_TIMES = re.compile(r"[0-9]{1,19}:[0-9]{1,15}(,[0-9]{1,19}:[0-9]{1,15})*")

FLUSH_SECONDS = 0.1
"""Time over which bytes are gathered. A log that becomes an object within it is never published."""
NEXT_FLUSH_SECONDS = 0.04
"""The same for a task that has published something: its followers are waiting."""
_RECONNECT_SECONDS = 0.25
MESSAGE_BYTES = 64 << 10
PENDING_BYTES = 1 << 20
"""Bytes of one log that may wait for NATS; the oldest beyond that are dropped from the live log."""
PENDING_TIMES = 512
"""Times of one log that may wait for NATS; bytes beyond that get the last one."""
STREAM_BYTES = 128 << 20
STREAM_AGE_SECONDS = 24 * 3600.0

_BATCH = 256
_BATCH_BYTES = 4 << 20
_ANSWER_SECONDS = 5.0

log = structlog.get_logger()


class LiveLog:
    """The live log of a running step."""

    def __init__(self, owner: LiveLogs, executor_task: str, subject: str) -> None:
        self._owner = owner
        self.executor_task = executor_task
        self.subject = subject
        self.offset = 0
        """Offset of the pending bytes."""
        self.pending = bytearray()
        self._times: deque[tuple[int, int]] = deque()
        """Offsets with the time from there on; the first one also of bytes that were taken already."""
        self.ended = False

    def write(self, chunk: bytes, time: int | None = None) -> None:
        """Append bytes that were written at this time (milliseconds since 1970), without waiting."""
        changed = time is not None and (not self._times or self._times[-1][1] != time)
        if time is not None and changed and len(self._times) < PENDING_TIMES:
            self._times.append((self.offset + len(self.pending), time))
        self.pending += chunk
        excess = len(self.pending) - PENDING_BYTES
        if excess > 0:
            del self.pending[:excess]
            self.offset += excess
        self._owner.touch(self)

    def end(self) -> None:
        """Mark the log as complete; a second call does nothing."""
        if not self.ended:
            self.ended = True
            self._owner.touch(self)

    def take(self) -> tuple[bytes, dict[str, str]] | None:
        """Return the next message and its headers; None if there is none."""
        chunk = bytes(self.pending[:MESSAGE_BYTES])
        headers = {OFFSET_HEADER: str(self.offset)}
        if chunk and (times := self._take_times(self.offset + len(chunk))):
            headers[TIMES_HEADER] = ",".join(f"{offset}:{time}" for offset, time in times)
        del self.pending[: len(chunk)]
        self.offset += len(chunk)
        if self.ended and not self.pending:
            headers[TOTAL_HEADER] = str(self.offset)
        return (chunk, headers) if chunk or TOTAL_HEADER in headers else None

    def _take_times(self, end: int) -> list[tuple[int, int]]:
        """Return the times of the bytes from `offset` to `end`."""
        while len(self._times) > 1 and self._times[1][0] <= self.offset:
            self._times.popleft()
        times: list[tuple[int, int]] = []
        while self._times and self._times[0][0] < end:
            times.append(self._times.popleft())
        if times:
            self._times.appendleft(times[-1])  # the next bytes may have the same
        return times


class LiveLogs:
    """The publisher of one process's live logs."""

    def __init__(self, nats: Nats, namespace: str) -> None:
        self._nats = nats
        self._namespace = namespace
        self._stream = stream_of(namespace)
        self._dirty: dict[LiveLog, None] = {}
        self._published: set[str] = set()
        """Executor tasks with published messages."""
        self._wake = asyncio.Event()
        self._stream_missing = False
        self._inbox = nats.new_inbox()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to publish; while NATS is away, the stream is created later. Raises ApiError when NATS refuses it."""
        self._acknowledgements = await self._nats.subscribe(self._inbox, cb=self._acknowledged)
        try:
            await self._make_stream()
        except UnavailableError as error:
            log.warning("live logs cannot be published yet", action="live_logs_wait", error=error.message)
            self._stream_missing = True
        self._task = asyncio.create_task(keep_running("live logs", self._publish_forever), name="live logs")

    async def stop(self) -> None:
        """Publish the pending bytes, for at most a second, and stop."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        self._task = None
        with contextlib.suppress(TimeoutError, NatsError, OSError):  # live logs may lose bytes
            async with asyncio.timeout(1):
                await self._publish_dirty()
                await self._acknowledgements.unsubscribe()

    def log(self, executor_task: str, step: int | None) -> LiveLog:
        """Return a new live log; step None is the setup step."""
        return LiveLog(self, executor_task, subject_of(self._namespace, executor_task, step))

    def touch(self, live: LiveLog) -> None:
        """Note that this log has a message to publish."""
        self._dirty[live] = None
        self._wake.set()

    async def forget(self, executor_task: str) -> None:
        """Drop the messages of a task whose logs are all objects, published and pending."""
        for live in [live for live in self._dirty if live.executor_task == executor_task]:
            del self._dirty[live]
        if executor_task not in self._published:
            return
        self._published.discard(executor_task)
        try:
            subjects = f"{self._namespace}.logs.{executor_task}.*"
            await self._nats.jetstream().purge_stream(self._stream, subject=subjects)
        except (NatsError, OSError, TimeoutError) as error:
            # The stream's limits drop them later.
            log.debug("cannot remove a live log", action="live_log_not_removed", task=executor_task, error=str(error))

    async def _publish_forever(self) -> None:
        connections = self._nats.stats["reconnects"]
        while True:
            await self._wake.wait()
            followed = any(live.executor_task in self._published for live in self._dirty)
            await asyncio.sleep(NEXT_FLUSH_SECONDS if followed else FLUSH_SECONDS)
            if not self._nats.is_connected:
                # Pending bytes are bounded here; in the connection's buffer they would delay other publishers.
                await asyncio.sleep(_RECONNECT_SECONDS)
                continue
            self._wake.clear()
            try:
                if self._stream_missing or connections != self._nats.stats["reconnects"]:
                    self._stream_missing = True  # a restarted server has lost its memory streams
                    connections = self._nats.stats["reconnects"]
                    await self._make_stream()
                    self._stream_missing = False
                await self._publish_dirty()
            except (NatsError, OSError, UnavailableError, ApiError) as error:
                log.warning("live logs cannot be published", action="live_logs_not_published", error=str(error))
                self._wake.set()
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def _publish_dirty(self) -> None:
        for live in list(self._dirty):
            if live not in self._dirty:  # forgotten while others were published
                continue
            del self._dirty[live]
            self._published.add(live.executor_task)
            while (message := live.take()) is not None:
                chunk, headers = message
                last = TOTAL_HEADER in headers
                await self._nats.publish(live.subject, chunk, reply=self._inbox if last else "", headers=headers)
                if last:
                    break

    async def _acknowledged(self, message: Msg) -> None:
        """Handle the answer to a log's last message: no responders means that a restart lost the memory stream."""
        if message.headers is not None and message.headers.get("Status") == "503":
            self._stream_missing = True

    async def _make_stream(self) -> None:
        config = {
            "name": self._stream,
            "subjects": [f"{self._namespace}.logs.*.*"],
            "storage": "memory",
            "discard": "old",
            "max_bytes": STREAM_BYTES,
            "max_age": int(STREAM_AGE_SECONDS * 1e9),
            "num_replicas": 1,
            "allow_direct": True,
        }
        try:
            await request(self._nats, f"STREAM.CREATE.{self._stream}", config)
        except ApiError as error:
            if error.number != STREAM_DIFFERS:  # it has the configuration of an earlier version
                raise
            await request(self._nats, f"STREAM.UPDATE.{self._stream}", config)


@dataclass(frozen=True, slots=True)
class Piece:
    """One message of a live log."""

    sequence: int
    """Sequence in the stream; 0 for a message received when it was published."""
    offset: int
    data: bytes
    total: int | None
    """Length of the log, in its last message."""
    times: tuple[tuple[int, int], ...] = ()
    """Times of the bytes (see `TimedBytes`)."""

    def after(self, have: int) -> TimedBytes | None:
        """Return the bytes from offset `have` on; None if bytes before the piece are missing."""
        return TimedBytes(self.offset, self.data, self.times).after(have) if self.offset <= have else None


def piece_of(message: Msg) -> Piece | None:
    """Parse a message; return None for one that is not of a live log."""
    headers = message.headers or {}
    offset, total = headers.get(OFFSET_HEADER, ""), headers.get(TOTAL_HEADER)
    if not offset.isdigit() or not (total is None or total.isdigit()):
        return None
    sequence = int(headers.get("Nats-Sequence", "0"))
    times = _times_of(headers.get(TIMES_HEADER, ""))
    return Piece(sequence, int(offset), message.data, None if total is None else int(total), times)


def _times_of(header: str) -> tuple[tuple[int, int], ...]:
    """Parse the times of a message; none for a text that is not of this form."""
    if not _TIMES.fullmatch(header):
        return ()
    found = [(int(offset), int(time)) for offset, _, time in (one.partition(":") for one in header.split(","))]
    ascending = all(before[0] < after[0] for before, after in pairwise(found))
    return tuple(found) if ascending and all(time < MAX_TIME for _, time in found) else ()


async def stored_pieces(nats: Nats, stream: str, subject: str, after: int) -> AsyncIterator[Piece]:
    """Yield the stored messages of a log after a sequence, in order. Raises RemoteError when NATS does not answer.

    By direct gets: there is no consumer to create and clean up.
    """
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
                        if status == "503":  # a restart of NATS lost the stream
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
    """Return the error for a live log that cannot be read, to raise from its cause."""
    return RemoteError(
        "cannot read the live log: NATS does not answer",
        remote_kind=Kind.INTERNAL,
        code="natsUnreachable",
        hint="does NATS run? `runstream doctor` checks it",
    )


def stream_of(namespace: str) -> str:
    """Return the name of the stream of live logs."""
    return f"{namespace}_LOGS"


def subject_of(namespace: str, executor_task: str, step: int | None) -> str:
    """Return the subject of a log; step None is the setup step, and -N service N of the pod."""
    name = "setup" if step is None else f"service{-step}" if step < 0 else str(step)
    return f"{namespace}.logs.{executor_task}.{name}"

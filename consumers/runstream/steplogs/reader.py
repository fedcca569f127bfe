"""Reads the log of a step, whether it is live, an object, or becomes one while it is read.

Each byte comes exactly once: the reader keeps one offset, and continues from it in the live messages and in the object.
Where the live log lacks bytes, the reader waits for the object.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import structlog
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from runstream.counting import counted
from runstream.errors import BadRequestError, ConflictError, NotExistError, RemoteError
from runstream.lifecycle import wait_for_event
from runstream.log.port import Log
from runstream.log_lines import LinePage, line_count, line_page
from runstream.log_search import SearchPage, search_page
from runstream.log_times import TimedBytes, offset_since
from runstream.objects import ObjectReader, ObjectStorage, paths
from runstream.objects.port import CHUNK_BYTES, chunks
from runstream.steplogs.live import Piece, piece_of, stored_pieces, stream_of, subject_of, unreachable
from runstream.steplogs.log_index import MAX_INDEX_BYTES, LogIndex, decode
from runstream.steplogs.log_state import CUT_OFF, LogState, load, watch
from runstream.subjects import StepLogKey

MAX_TAIL_BYTES = 1 << 20
"""Length of a tail in bytes: a tail of longer lines begins inside a line."""
_RECEIVED_BYTES = 1 << 20
"""Bytes of received messages that a slow reader keeps; it reads the rest from the stream."""

_CONNECT_ATTEMPTS = 60
_CONNECT_SECONDS = 0.5
"""Attempts of a follower to reach a NATS that is away, and the pause between them."""
_CHECK_SECONDS = 1.0
"""Interval at which a follower without messages checks for a new connection."""


log = structlog.get_logger()


class StepLogReader:
    """The reader of step logs."""

    def __init__(self, nats: Nats, namespace: str, log: Log, objects: ObjectStorage) -> None:
        self._nats = nats
        self._namespace = namespace
        self._log = log
        self._objects = objects

    async def open(self, key: StepLogKey, *, follow: bool, offset: int = 0) -> AsyncIterator[bytes]:
        """Yield the bytes of a log from an offset on, each once; none if the log is shorter.

        With `follow`, wait for the log to begin, and end when it does; otherwise, end with its current last byte.
        Raises NotExistError (code logDoesNotExist) for a log that does not exist, before the first byte; RemoteError
        or InternalError when storage or NATS cannot be reached.
        """
        return _data(await self._open(key, follow=follow, offset=offset, times=False))

    async def open_timed(self, key: StepLogKey, *, follow: bool, offset: int = 0) -> AsyncIterator[TimedBytes]:
        """Yield the same bytes with their times. Raises as `open` does."""
        return await self._open(key, follow=follow, offset=offset, times=True)

    async def _open(
        self, key: StepLogKey, *, follow: bool, offset: int, times: bool
    ) -> AsyncGenerator[TimedBytes, None]:
        stored = await self._stored(key)
        if stored is None:
            state, after = await load(self._log, key)
            if not state.over:
                return (
                    self._follow(state, after, offset, times=times) if follow else await self._snapshot(state, offset)
                )
            stored = await self._stored(key)  # the step may have ended since the first look
            if stored is None:
                return await self._cut_off(state, offset)
        return self._object(key, stored, offset, times=times)

    async def tail(self, key: StepLogKey, lines: int) -> int:
        """Return the offset of the last lines that are written now. Raises as `open` does."""
        stored = await self._stored(key)
        if stored is not None:
            async with stored:
                return await stored_tail(stored, lines)
        end, text = 0, b""
        async for piece in self._live(key):
            text = text if piece.offset == end else b""  # bytes are missing: the tail begins after them
            end = piece.offset + len(piece.data)
            text = (text + piece.data)[-MAX_TAIL_BYTES:]
        begin = tail_begin(text, lines)
        return end - len(text) + (begin or 0)

    async def lines(self, key: StepLogKey, first: int, count: int) -> LinePage:
        """Return `count` lines of the log as it is now from a number on; a negative one counts from the end.

        Raises as `open` does.
        """
        stored = await self._stored(key)
        if stored is None:
            if first < 0:
                parts = await self._open(key, follow=False, offset=0, times=False)
                async with contextlib.aclosing(parts):
                    first = max(await line_count(parts) + first, 0)
            parts = await self._open(key, follow=False, offset=0, times=True)
            async with contextlib.aclosing(parts):
                return await line_page(parts, 0, first, count)
        async with stored:
            index = await self.index(key, stored.size)
            if first < 0:
                first = max(await _line_count(stored, index) + first, 0)
            number, offset = (0, 0) if index is None else index.near(first)
            return await line_page(_parts(stored, offset, index), number, first, count)

    async def search(self, key: StepLogKey, first: int, count: int, query: Any) -> SearchPage:
        """Return up to `count` lines of the log as it is now that match, from a number on. Raises as `open` does."""
        stored = await self._stored(key)
        if stored is None:
            parts = await self._open(key, follow=False, offset=0, times=True)
            async with contextlib.aclosing(parts):
                return await search_page(parts, 0, first, count, query)
        async with stored:
            index = await self.index(key, stored.size)
            number, offset = (0, 0) if index is None else index.near(first)
            return await search_page(_parts(stored, offset, index), number, first, count, query)

    async def since(self, key: StepLogKey, time: int) -> int:
        """Return the offset of the first line that was written at a time, in milliseconds since 1970, or later.

        Lines of unknown times are earlier; 0 if there is no log yet. Raises as `open` does for other reasons.
        """
        stored = await self._stored(key)
        if stored is None:
            with contextlib.suppress(NotExistError):  # a follower waits for it
                parts = await self._open(key, follow=False, offset=0, times=True)
                async with contextlib.aclosing(parts):
                    return await offset_since(parts, time)
            return 0
        async with stored:
            index = await self.index(key, stored.size)
            begin = None if index is None else index.since(time)
            # One byte earlier says whether the first one begins a line.
            return stored.size if begin is None else await offset_since(_parts(stored, max(begin - 1, 0), index), time)

    async def stored_size(self, key: StepLogKey) -> int | None:
        """Return the size of a stored log, which does not change; None while it is live, or if it is missing."""
        stored = await self._stored(key)
        if stored is None:
            return None
        async with stored:
            return stored.size

    async def delete(self, key: StepLogKey) -> None:
        """Delete a stored log and its index. Raises NotExistError for a missing one, BadRequestError for a live one."""
        stored = await self._stored(key)
        if stored is None:
            state, _ = await load(self._log, key)
            if state.over:
                raise NotExistError("log doesn't exist", code="logDoesNotExist")
            raise BadRequestError(
                "the log is not stored yet", code="logNotStored", hint="delete it when its step has ended"
            )
        async with stored:
            await self._objects.delete(paths.step_log(key.stored_id, key.step))
            with contextlib.suppress(NotExistError):  # there may be none
                await self._objects.delete(paths.log_index(key.stored_id, key.step))

    async def _stored(self, key: StepLogKey) -> ObjectReader | None:
        """Open the log as an object; return None while it is live."""
        try:
            return await self._objects.read(paths.step_log(key.stored_id, key.step))
        except NotExistError:
            return None

    async def _object(
        self, key: StepLogKey, stored: ObjectReader, offset: int, *, times: bool
    ) -> AsyncGenerator[TimedBytes, None]:
        async with stored:
            if offset >= stored.size:
                return
            index = await self.index(key, stored.size) if times else None
            async for part in _parts(stored, offset, index):
                yield part

    async def index(self, key: StepLogKey, size: int) -> LogIndex | None:
        """Return the index of a stored log of this size; None if it has none, or one of another log."""
        path = paths.log_index(key.stored_id, key.step)
        try:
            async with await self._objects.read(path) as stored:
                if stored.size > MAX_INDEX_BYTES:
                    raise ValueError(f"it has {counted(stored.size, 'byte')}")
                index = decode(await stored.read(0, stored.size))
        except NotExistError:
            return None
        except ValueError as error:
            log.warning(f"{path} cannot be read: {error}", action="log_index_not_read", path=path)
            return None
        return index if index.size == size else None

    async def _snapshot(self, state: LogState, offset: int) -> AsyncGenerator[TimedBytes, None]:
        """Yield the bytes written so far, from an offset on."""
        pieces: list[TimedBytes] = []
        have, written = offset, False
        async for piece in self._live(state.key):
            written = True
            more = piece.after(have)
            if more is None:
                raise ConflictError(
                    "the beginning of the log cannot be read while its step runs",
                    code="logNotComplete",
                    hint="follow the log, or read it when the step has ended",
                )
            pieces.append(more)
            have += len(more.data)
        if not written and (state.step is None or state.step.start_time is None):
            raise _no_log()
        return _listed(pieces)

    async def _cut_off(self, state: LogState, offset: int) -> AsyncGenerator[TimedBytes, None]:
        """Yield what the live log has of a step whose executor is lost, and that it is cut off there."""
        if not state.lost:
            raise _no_log()
        pieces: list[TimedBytes] = []
        have = 0
        async for piece in self._live(state.key):
            more = piece.after(have)
            if more is None:
                break
            pieces.append(more)
            have += len(more.data)
        if not have:
            raise _no_log("its executor is lost: the log is stored when that executor starts again")
        last = next(piece.data for piece in reversed(pieces) if piece.data)
        mark = f"{CUT_OFF}\n".encode()
        pieces.append(TimedBytes(have, mark if last.endswith(b"\n") else b"\n" + mark))
        return _listed([piece.after(offset) for piece in pieces])

    async def _follow(
        self, state: LogState, after: int, offset: int, *, times: bool
    ) -> AsyncGenerator[TimedBytes, None]:
        follower = _Follower(self._nats, stream_of(self._namespace), self._live_subject(state.key), offset)
        await follower.subscribe()
        watcher = asyncio.create_task(watch(self._log, state, after, follower.wake.set))
        watcher.add_done_callback(lambda _: follower.wake.set())
        try:
            away = 0
            while True:
                follower.wake.clear()
                try:
                    async for chunk in follower.next_pieces():
                        if chunk.data:
                            yield chunk
                except RemoteError:
                    away += 1
                    if away == _CONNECT_ATTEMPTS:
                        raise
                    await asyncio.sleep(_CONNECT_SECONDS)
                    continue
                away = 0
                if follower.complete:
                    return
                if state.over:
                    stored = await self._stored(state.key)
                    if stored is not None:
                        async for chunk in self._object(state.key, stored, follower.have, times=times):
                            yield chunk
                    else:
                        with contextlib.suppress(NotExistError):  # the step never began, or its live log is gone
                            async for chunk in await self._cut_off(state, follower.have):
                                yield chunk
                    return
                if watcher.done():
                    watcher.result()
                await follower.changed()
        finally:
            watcher.cancel()
            await follower.close()

    def _live_subject(self, key: StepLogKey) -> str:
        return subject_of(self._namespace, key.executor_task_id, key.step)

    def _live(self, key: StepLogKey) -> AsyncIterator[Piece]:
        """Yield the stored messages of a live log."""
        return stored_pieces(self._nats, stream_of(self._namespace), self._live_subject(key), 0)


class _Follower:
    """The position of a reader in a live log."""

    def __init__(self, nats: Nats, stream: str, subject: str, have: int) -> None:
        self._nats = nats
        self._stream = stream
        self._subject = subject
        self.have = have
        """Offset of the next byte."""
        self._reconnects = nats.stats["reconnects"]
        self._subscription: Subscription | None = None
        self._received: deque[Piece] = deque()
        self._received_bytes = 0
        self._sequence = 0
        self._missed = True
        """True if the stream may have messages that were not received."""
        self._gap = False
        """True if the stream has lost bytes, so that only the object has them."""
        self._total: int | None = None
        self.wake = asyncio.Event()

    @property
    def complete(self) -> bool:
        """True once the log has ended and every byte is read."""
        return self._total is not None and self.have >= self._total

    async def subscribe(self) -> None:
        """Subscribe to new messages. Raises RemoteError."""
        try:
            self._subscription = await self._nats.subscribe(self._subject, cb=self._receive)
        except (NatsError, OSError) as error:
            raise unreachable() from error

    async def changed(self) -> None:
        """Wait for a message, or for a reconnect that may have missed one. Raises RemoteError when NATS stays away."""
        away = 0.0
        while not await wait_for_event(self.wake, _CHECK_SECONDS):
            away = 0.0 if self._nats.is_connected else away + _CHECK_SECONDS
            if away >= _CONNECT_ATTEMPTS * _CONNECT_SECONDS:
                raise unreachable()
            if self._reconnects != self._nats.stats["reconnects"]:
                self._reconnects = self._nats.stats["reconnects"]
                self._missed = True
                return

    async def close(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            with contextlib.suppress(Exception):  # a closed connection has no subscriptions
                await self._subscription.unsubscribe()

    async def _receive(self, message: Msg) -> None:
        piece = piece_of(message)
        if piece is None or self._gap:
            return
        if self._received_bytes + len(piece.data) > _RECEIVED_BYTES:
            self._missed = True
        else:
            self._received.append(piece)
            self._received_bytes += len(piece.data)
        self.wake.set()

    async def next_pieces(self) -> AsyncIterator[TimedBytes]:
        """Yield the next bytes that are available now."""
        for _ in range(2):
            if self._missed and not self._gap:
                async for chunk in self._stored():
                    yield chunk
            while self._received and not self._gap:
                piece = self._received.popleft()
                self._received_bytes -= len(piece.data)
                if piece.after(self.have) is None:
                    # A message before it was not received: the stream has it, now or with the next message.
                    self._missed = True
                    break
                yield self._take(piece)
            if not self._missed or self._gap:
                return

    async def _stored(self) -> AsyncIterator[TimedBytes]:
        """Yield the unread bytes of the stream. Raises RemoteError, after which it can be repeated."""
        self._missed = False
        try:
            async for piece in stored_pieces(self._nats, self._stream, self._subject, self._sequence):
                if piece.after(self.have) is None:
                    self._gap = True
                    return
                self._sequence = piece.sequence
                yield self._take(piece)
        except RemoteError:
            self._missed = True
            raise

    def _take(self, piece: Piece) -> TimedBytes:
        more = piece.after(self.have) or TimedBytes(self.have, b"")
        self.have += len(more.data)
        if piece.total is not None:
            self._total = piece.total
        return more


async def _parts(stored: ObjectReader, offset: int, index: LogIndex | None) -> AsyncGenerator[TimedBytes, None]:
    async for chunk in chunks(stored, offset):
        end = offset + len(chunk)
        yield TimedBytes(offset, chunk, () if index is None else index.times_of(offset, end))
        offset = end


async def _line_count(stored: ObjectReader, index: LogIndex | None) -> int:
    if index is None:
        return await line_count(_parts(stored, 0, None))
    last = await stored.read(stored.size - 1, 1) if stored.size else b"\n"
    return index.lines + (last != b"\n")


async def _data(parts: AsyncGenerator[TimedBytes, None]) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(parts):
        async for part in parts:
            yield part.data


async def _listed(pieces: list[TimedBytes]) -> AsyncGenerator[TimedBytes, None]:
    for piece in pieces:
        if piece.data:
            yield piece


def _no_log(hint: str = "has the step begun? --follow waits for a step that will run") -> NotExistError:
    return NotExistError("log doesn't exist", code="logDoesNotExist", hint=hint)


def tail_begin(text: bytes, lines: int) -> int | None:
    """Return the offset of a text's last lines; None if it has fewer."""
    end = len(text) - text.endswith(b"\n")
    for _ in range(lines):
        end = text.rfind(b"\n", 0, end)
        if end < 0:
            return None
    return end + 1


async def stored_tail(stored: ObjectReader, lines: int) -> int:
    """Return the offset of the last lines of a stored log, reading backwards from its end."""
    text, begin = b"", stored.size
    limit = max(stored.size - MAX_TAIL_BYTES, 0)
    while begin > limit:
        before = max(begin - CHUNK_BYTES, limit)
        text = await stored.read(before, begin - before) + text
        begin = before
        if (found := tail_begin(text, lines)) is not None:
            return begin + found
    return limit

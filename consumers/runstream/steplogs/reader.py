"""Reading the log of a step, from its first byte, whether it is live, an object, or becomes one meanwhile.

Every byte comes exactly once: what has been read is an offset, and both the live messages and the object are
read on from it. Where the live log misses bytes, the reader waits for the object.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from runstream.bounded import heard
from runstream.errors import ConflictError, NotExistError, RemoteError
from runstream.log.port import Log
from runstream.objects import ObjectReader, ObjectStorage, paths
from runstream.objects.port import CHUNK_BYTES, chunks
from runstream.steplogs.live import Piece, piece_of, stored_pieces, stream_of, subject_of, unreachable
from runstream.steplogs.log_state import Fate, load, watch
from runstream.subjects import StepLogKey

_HEARD_BYTES = 1 << 20
"""How much is kept of what is heard while the reader does not keep up; the rest is read from the stream."""

_AWAY_ATTEMPTS = 60
_AWAY_SECONDS = 0.5
"""How often, and after what pause, a follower asks a NATS that is away."""
_LOOK_SECONDS = 1.0
"""How often a follower that hears nothing looks whether the connection was made anew."""


class StepLogs:
    """Where the logs of steps are read."""

    def __init__(self, nats: Nats, namespace: str, log: Log, objects: ObjectStorage) -> None:
        self._nats = nats
        self._namespace = namespace
        self._log = log
        self._objects = objects

    async def open(self, key: StepLogKey, *, follow: bool, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes of a log from an offset on, each once; none where the log ends before it.

        With `follow` it may have nothing yet, and ends when the log does. Without, it ends with what there is
        now. Raises NotExistError (code logDoesNotExist), before anything is read, when there is no such log,
        and RemoteError or InternalError when storage or NATS cannot be reached.
        """
        stored = await self._stored(key)
        if stored is None:
            fate, after = await load(self._log, key)
            if not fate.over:
                return self._follow(fate, after, offset) if follow else await self._snapshot(fate, offset)
            stored = await self._stored(key)  # it may have become one in between
            if stored is None:
                raise _no_log()
        return _object(stored, offset)

    async def tail(self, key: StepLogKey, lines: int) -> int:
        """Return the offset at which the last lines of what is written now begin. Raises as `open` does."""
        stored = await self._stored(key)
        if stored is not None:
            async with stored:
                return await stored_tail(stored, lines)
        stream, subject = self._live_names(key)
        end, text = 0, b""
        async for piece in stored_pieces(self._nats, stream, subject, 0):
            text = text if piece.offset == end else b""  # bytes are missing: the tail cannot reach before them
            end = piece.offset + len(piece.data)
            text = (text + piece.data)[-MAX_TAIL_BYTES:]
        begin = tail_begin(text, lines)
        return end - len(text) + (begin or 0)

    async def _stored(self, key: StepLogKey) -> ObjectReader | None:
        """The object that the log has become; None as long as it is none."""
        try:
            return await self._objects.read(paths.step_log(key.stored_id, key.step))
        except NotExistError:
            return None

    async def _snapshot(self, fate: Fate, offset: int) -> AsyncIterator[bytes]:
        """What has been written until now, from an offset on."""
        stream, subject = self._live_names(fate.key)
        pieces: list[bytes] = []
        have, written = offset, False
        async for piece in stored_pieces(self._nats, stream, subject, 0):
            written = True
            more = piece.after(have)
            if more is None:
                raise ConflictError(
                    "the beginning of the log cannot be read while its step runs",
                    code="logNotComplete",
                    hint="follow the log, or read it when the step has ended",
                )
            pieces.append(more)
            have += len(more)
        if not written and (fate.step is None or fate.step.start_time is None):
            raise _no_log()
        return _listed(pieces)

    async def _follow(self, fate: Fate, after: int, offset: int) -> AsyncIterator[bytes]:
        stream, subject = self._live_names(fate.key)
        follower = _Follower(self._nats, stream, subject, offset)
        await follower.listen()
        watcher = asyncio.create_task(watch(self._log, fate, after, follower.wake.set))
        watcher.add_done_callback(lambda _: follower.wake.set())
        try:
            away = 0
            while True:
                follower.wake.clear()
                try:
                    async for chunk in follower.next_pieces():
                        if chunk:
                            yield chunk
                except RemoteError:
                    away += 1
                    if away == _AWAY_ATTEMPTS:
                        raise
                    await asyncio.sleep(_AWAY_SECONDS)
                    continue
                away = 0
                if follower.complete:
                    return
                if fate.over:
                    stored = await self._stored(fate.key)
                    if stored is not None:
                        async for chunk in _object(stored, follower.have):
                            yield chunk
                    return
                if watcher.done():
                    watcher.result()
                await follower.something()
        finally:
            watcher.cancel()
            await follower.close()

    def _live_names(self, key: StepLogKey) -> tuple[str, str]:
        return stream_of(self._namespace), subject_of(self._namespace, key.executor_task_id, key.step)


class _Follower:
    """How far a reader of a live log has come."""

    def __init__(self, nats: Nats, stream: str, subject: str, have: int) -> None:
        self._nats = nats
        self._stream = stream
        self._subject = subject
        self.have = have
        """The offset of the next byte."""
        self._reconnects = nats.stats["reconnects"]
        self._subscription: Subscription | None = None
        self._heard: deque[Piece] = deque()
        self._heard_bytes = 0
        self._sequence = 0
        self._behind = True
        """Whether there may be messages in the stream that were not heard."""
        self._lacking = False
        """Whether bytes are gone from the stream, so that only the object has them."""
        self._total: int | None = None
        self.wake = asyncio.Event()

    @property
    def complete(self) -> bool:
        """Whether the log has ended and every byte was read."""
        return self._total is not None and self.have >= self._total

    async def listen(self) -> None:
        """Hear what is published from now on. Raises RemoteError."""
        try:
            self._subscription = await self._nats.subscribe(self._subject, cb=self._hear)
        except (NatsError, OSError) as error:
            raise unreachable() from error

    async def something(self) -> None:
        """Wait until something was heard, or may have been missed. Raises RemoteError when NATS stays away."""
        away = 0.0
        while not await heard(self.wake, _LOOK_SECONDS):
            away = 0.0 if self._nats.is_connected else away + _LOOK_SECONDS
            if away >= _AWAY_ATTEMPTS * _AWAY_SECONDS:
                raise unreachable()
            if self._reconnects != self._nats.stats["reconnects"]:
                self._reconnects = self._nats.stats["reconnects"]
                self._behind = True
                return

    async def close(self) -> None:
        """Hear no more."""
        if self._subscription is not None:
            with contextlib.suppress(Exception):  # the connection went before us: nothing is heard either
                await self._subscription.unsubscribe()

    async def _hear(self, message: Msg) -> None:
        piece = piece_of(message)
        if piece is None or self._lacking:
            return
        if self._heard_bytes + len(piece.data) > _HEARD_BYTES:
            self._behind = True
        else:
            self._heard.append(piece)
            self._heard_bytes += len(piece.data)
        self.wake.set()

    async def next_pieces(self) -> AsyncIterator[bytes]:
        """What follows and is there now."""
        for _ in range(2):
            if self._behind and not self._lacking:
                async for chunk in self._stored():
                    yield chunk
            while self._heard and not self._lacking:
                piece = self._heard.popleft()
                self._heard_bytes -= len(piece.data)
                if piece.after(self.have) is None:
                    # Something before it was not heard: the stream has it, now or when the next one is heard.
                    self._behind = True
                    break
                yield self._take(piece)
            if not self._behind or self._lacking:
                return

    async def _stored(self) -> AsyncIterator[bytes]:
        """What the stream has that was not read. Raises RemoteError; then it is to be tried again."""
        self._behind = False
        try:
            async for piece in stored_pieces(self._nats, self._stream, self._subject, self._sequence):
                if piece.after(self.have) is None:
                    self._lacking = True
                    return
                self._sequence = piece.sequence
                yield self._take(piece)
        except RemoteError:
            self._behind = True
            raise

    def _take(self, piece: Piece) -> bytes:
        more = piece.after(self.have) or b""
        self.have += len(more)
        if piece.total is not None:
            self._total = piece.total
        return more


async def _object(stored: ObjectReader, offset: int) -> AsyncIterator[bytes]:
    async with stored:
        if offset < stored.size:
            async for chunk in chunks(stored, offset):
                yield chunk


async def _listed(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        if piece:
            yield piece


def _no_log() -> NotExistError:
    return NotExistError(
        "log doesn't exist", code="logDoesNotExist", hint="has the step begun? --follow waits for a step that will run"
    )


MAX_TAIL_BYTES = 1 << 20
"""The most that a tail has, in bytes: where its lines are longer, it begins inside of one."""


def tail_begin(text: bytes, lines: int) -> int | None:
    """Return where in the text its last lines begin; None where it has fewer."""
    end = len(text) - text.endswith(b"\n")
    for _ in range(lines):
        end = text.rfind(b"\n", 0, end)
        if end < 0:
            return None
    return end + 1


async def stored_tail(stored: ObjectReader, lines: int) -> int:
    """Return the offset in a stored log at which its last lines begin."""
    text, begin = b"", stored.size
    limit = max(stored.size - MAX_TAIL_BYTES, 0)
    while begin > limit:
        before = max(begin - CHUNK_BYTES, limit)
        text = await stored.read(before, begin - before) + text
        begin = before
        if (found := tail_begin(text, lines)) is not None:
            return begin + found
    return limit

"""Read one partition in order and without a gap, across lost consumers, lost connections and restarted servers.

The server that answers may no longer lead the stream. A leader that is cut off from its peers answers until it notices,
which takes up to an election timeout, and lacks what the next leader has acknowledged. So a reader asks again, for that
long, when a stream ends before a position that it has read already. A stream without replicas has one leader, whose
first answer is right.

A stream can lack messages that it has counted: a server whose disk is full may store the number of a message, but not
the message. In the place of each one before another message, a reader returns a message without content, on a subject
of its own (`Subjects.lost`). No decoder can read it, so it is parked, exported, archived and skipped like any
unreadable commit. Filtered readers do not see it, because its subject is lost as well. At the end of a stream the
server may use the number again after a restart, so a stream ends with its last message (`end_of`), and readers wait
there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import structlog
from nats.aio.client import Client

from runstream.backoff import Backoff, retry
from runstream.commits import Position
from runstream.counting import counted
from runstream.errors import InternalError
from runstream.jetstream.api import REQUEST_SECONDS, StreamMessage, UnavailableError, request
from runstream.jetstream.pull import ConsumerLostError, Delivery, PullConsumer
from runstream.log.port import RawMessage
from runstream.subjects import Subjects

ELECTION_SECONDS = 15.0
"""Maximum time in which nats-server notices that it no longer leads (10 s) and elects another leader."""
PAUSE_SECONDS = 0.5
"""Pause before a server is asked again that may be behind the leader, in seconds."""
MAX_LOST = 1000
"""Maximum number of adjacent lost messages that a reader passes. A full disk loses at most the group that was being
written; more means that acknowledged commits were removed, which is an error."""
log = structlog.get_logger()


async def stream_info(
    nc: Client, stream: str, at_least: int = 0, *, seconds: float = REQUEST_SECONDS
) -> dict[str, Any]:
    """Return the answer of STREAM.INFO once the stream ends at `at_least`, or it is certain that it does not.

    Raises UnavailableError, ApiError.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + ELECTION_SECONDS
    while True:
        try:
            info = await request(nc, f"STREAM.INFO.{stream}", seconds=seconds)
        except UnavailableError:  # perhaps an election, whose end this loop waits for
            if not at_least or not nc.is_connected or loop.time() >= give_up:
                raise
        else:
            end = info["state"]["last_seq"]
            if end >= at_least or info["config"]["num_replicas"] == 1 or loop.time() >= give_up:
                return info
            log.info(
                f"stream {stream} ends before position {at_least}: asking again, its leader may be an old one",
                action="stream_asked_again",
                stream=stream,
                end=end,
            )
        await asyncio.sleep(PAUSE_SECONDS)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def of_delivery(delivery: Delivery, epoch: int, partition: int) -> RawMessage:
    """Convert a message that a consumer delivered."""
    message = delivery.message
    return RawMessage(
        message.subject,
        Position(epoch, partition, delivery.sequence),
        message.data,
        message.headers or {},
        _EPOCH + timedelta(microseconds=delivery.nanoseconds // 1000),
    )


def of_stream(message: StreamMessage, epoch: int, partition: int) -> RawMessage:
    """Convert a message that was read by its subject."""
    position = Position(epoch, partition, message.sequence)
    return RawMessage(message.subject, position, message.data, message.headers, message.time)


_BACKOFF = Backoff(0.05, 0.5)


def end_of(state: Mapping[str, Any]) -> int:
    """Return the sequence of a stream's last message from its state, which lists deleted ones; 0 without a message."""
    deleted = frozenset(state.get("deleted") or ())
    end: int = state["last_seq"] if state["messages"] else 0
    while end > 0 and end in deleted:
        end -= 1
    return end


async def stream_state(nc: Client, stream: str) -> tuple[str, Mapping[str, Any]]:
    """Return the creation time of a stream, and its state with details of deleted messages.

    Raises UnavailableError, ApiError.
    """
    info = await request(nc, f"STREAM.INFO.{stream}", {"deleted_details": True})
    return info["created"], info["state"]


History: TypeAlias = Callable[[int, Sequence[str]], Awaitable[list[RawMessage]]]
"""Returns all messages of a partition on some subjects, in order."""


def _few_aggregates(filters: Sequence[str]) -> bool:
    """Return whether there are several filters, each of one aggregate: its id is the last token of the subject."""
    return len(filters) > 1 and not any(subject.endswith(("*", ">")) for subject in filters)


class JetStreamReader:
    """A reader of one stream; `open` it before use, `close` it after."""

    def __init__(
        self,
        nc: Client,
        subjects: Subjects,
        partition: int,
        after: int,
        filters: tuple[str, ...],
        history: History | None = None,
    ) -> None:
        """`history` reads the messages on some subjects by the server's index; without it a consumer reads all."""
        self._nc = nc
        self._history = history if _few_aggregates(filters) else None
        self._stream = subjects.stream(partition)
        self._subjects = subjects
        self._partition = partition
        self._after = after
        """The last sequence that was received or found lost."""
        self._filters = filters
        self._origin = ""
        """Creation time of the stream that is read."""
        self._consumer: PullConsumer | None = None
        self._pending = 0
        self._replicated = False
        self._received: deque[RawMessage] = deque()
        """Messages that `next_batch` has not returned yet."""

    async def open(self) -> None:
        """Start to read. Raises InternalError when the stream ends before the position, or was created again."""
        info = await stream_info(self._nc, self._stream, self._after)
        if self._origin not in ("", info["created"]):
            raise InternalError(
                f"partition {self._partition} of the log was restored while it was read, and may lack what was read",
                code="logRestored",
                details={"partition": self._partition, "position": self._after},
                hint="start the process again: it reads the restored log",
            )
        end, self._origin = info["state"]["last_seq"], info["created"]
        self._replicated = info["config"]["num_replicas"] > 1
        if self._after > end:
            raise InternalError(
                f"position {self._after} is ahead of partition {self._partition}, which ends at {end}",
                code="positionAheadOfLog",
                details={"partition": self._partition, "position": self._after, "end": end},
                hint="was NATS restored from an older backup? Restore both to one moment, or rebuild the projection",
            )
        config: dict[str, object] = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._after + 1}
        if self._history is not None:
            # With several filters, a consumer that begins earlier counts its messages by reading the whole stream.
            config = {"deliver_policy": "new"}
        if self._filters:
            config["filter_subjects"] = list(self._filters)
        consumer = PullConsumer(self._nc, self._stream, config)
        try:
            made = await consumer.open()
            self._pending = made["num_pending"]
            if self._history is not None:
                await self._take_history(self._history, made["delivered"]["stream_seq"])
        except BaseException:
            await consumer.close()
            raise
        self._consumer = consumer

    async def _take_history(self, history: History, last: int) -> None:
        """Add the messages up to the sequence behind which the consumer begins."""
        for message in await history(self._partition, self._filters):
            if self._after < message.position.sequence <= last:
                self._received.append(message)
        self._after = max(self._after, last)

    async def close(self) -> None:
        """Stop reading."""
        if self._consumer is not None:
            await self._consumer.close()
            self._consumer = None

    async def next_batch(self, limit: int = 500, *, wait: bool = True) -> list[RawMessage]:
        """Wait for the next messages, at least one, through outages of the server. Raises InternalError.

        Without `wait`, return none when the stream has none. Messages that were pending can be lost before they are
        delivered: then the server reports that it is idle, and another consumer counts what is left.
        """
        while not self._received:
            if self._consumer is None:
                await self.open_when_there()
                continue
            if not wait and not self._pending and not self._consumer.buffered:
                return []
            try:
                for delivery in await self._consumer.deliveries(limit, pending=not wait):
                    await self._take(delivery)
            except ConsumerLostError as error:
                log.debug("making a new consumer", action="reader_lost", stream=self._stream, why=error.message)
                await self.close()
        return [self._received.popleft() for _ in range(min(limit, len(self._received)))]

    def pending(self) -> int:
        """Return the number of remaining messages, as of the last one read."""
        return self._pending + len(self._received)

    async def open_when_there(self) -> None:
        """Start to read once a server answers. Raises as `open` does for other failures."""
        await retry(self.open, UnavailableError, _BACKOFF, self._note_away)

    def _note_away(self, error: UnavailableError, _: float) -> None:
        if self._nc.is_closed:
            raise error
        log.warning("the log is away; trying again", action="log_away", stream=self._stream, why=error.message)

    async def _take(self, delivery: Delivery) -> None:
        """Add a delivery, behind what was lost before it. Raises ConsumerLostError, InternalError."""
        if not self._filters:
            if delivery.sequence <= self._after:
                return  # it was removed while it was on its way, and is counted as lost
            if delivery.sequence > self._after + 1:
                await self._fill_gap(delivery)
        elif delivery.sequence <= self._after:
            return  # the history has it
        self._after, self._pending = delivery.sequence, delivery.pending
        self._received.append(of_delivery(delivery, self._subjects.epoch, self._partition))

    async def _fill_gap(self, delivery: Delivery) -> None:
        """Add what was lost before a delivery. Raises ConsumerLostError if only the consumer's server lacks it."""
        try:
            following = await self._following(delivery.sequence)
        except UnavailableError as error:
            raise ConsumerLostError(self._stream, error.message) from error
        self._note_lost(following, of_delivery(delivery, self._subjects.epoch, self._partition).stored_at)
        if following < delivery.sequence:
            await asyncio.sleep(PAUSE_SECONDS)  # the next consumer may be on the same server
            raise ConsumerLostError(self._stream, f"its server lacks message {following}, which the leader has")

    async def _following(self, delivered: int) -> int:
        """Return the first sequence behind this reader that has a message, up to the delivered one.

        One answer says all of it, since two could come from different leaders. With replicas, a message counts as lost
        once an old leader would have noticed that it is none.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + (ELECTION_SECONDS if self._replicated else 0.0)
        while True:
            created, state = await stream_state(self._nc, self._stream)
            if created != self._origin:
                raise ConsumerLostError(self._stream, "the stream was made anew")
            deleted = frozenset(state.get("deleted") or ())
            following: int = max(self._after + 1, min(state["first_seq"], delivered))
            while following < delivered and following in deleted:
                following += 1
            if following == self._after + 1 or loop.time() >= give_up:
                return following
            await asyncio.sleep(PAUSE_SECONDS)

    def _note_lost(self, following: int, stored_at: datetime) -> None:
        """Add a message without content for each sequence up to the following message."""
        first, count, partition = self._after + 1, following - self._after - 1, self._partition
        if count > MAX_LOST:
            raise InternalError(
                f"partition {partition} lacks {counted(count, 'message')} from {first} on",
                code="gapInLog",
                details={"partition": partition, "missing": first, "next": following},
                hint="something has removed messages from the log; restore it from its data status or a backup",
            )
        for sequence in range(first, following):
            log.error(
                f"position {sequence} of partition {partition} is no longer in the log",
                action="commit_lost",
                stream=self._stream,
                sequence=sequence,
            )
            position = Position(self._subjects.epoch, partition, sequence)
            subject = self._subjects.lost(partition, sequence)
            self._received.append(RawMessage(subject, position, b"", {}, stored_at))
            self._after = sequence

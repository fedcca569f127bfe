"""What the stream of live logs still has of one log, read by direct gets: no consumer, nothing to clean up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from runstream.errors import Kind, RemoteError
from runstream.steplogs.subjects import OFFSET_HEADER, TOTAL_HEADER

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

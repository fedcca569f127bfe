"""Append to a log whose every decision looks at everything: each append names the last sequence of the whole stream.

The commits of one decision are one atomic batch, which is in the log as a whole or not at all. An answer other than an
acknowledgement is not conclusive: the first message behind the expected end says whether the batch was appended, or
another writer was first.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence

import nats.errors
from nats.aio.client import Client

from runstream.backoff import Backoff
from runstream.codec import ID_HEADER
from runstream.errors import InternalError, RunstreamError
from runstream.jetstream.api import StreamMessage, UnavailableError, next_message
from runstream.jetstream.publisher import Ack, Publisher, PublishOutcome, Refused, Unanswered
from runstream.log.group_commit import ANSWER_SECONDS, PendingCommit
from runstream.log.port import LogMovedError
from runstream.log.reader import stream_info

_BACKOFF = Backoff(0.01, 0.5, jitter=True)


Failure = Callable[[str, bool], InternalError]
"""Returns the error for a batch that the log did not take in time: why, and whether it was sent."""


async def append_serial(
    nc: Client,
    publisher: Publisher,
    stream: str,
    batch: Sequence[PendingCommit],
    *,
    after: int,
    deadline: float,
    refused: Callable[[Refused], RunstreamError | None],
    failed: Failure,
) -> list[int]:
    """Append a batch behind the sequence `after`, and return the sequences of its commits.

    `refused` returns the error for a refusal that another attempt does not change. Raises LogMovedError when another
    writer was first.
    """
    loop = asyncio.get_running_loop()
    delays, sent = _BACKOFF.delays(), False
    while True:
        outcome = await _send(nc, publisher, batch, after)
        match outcome:
            case Ack(sequence, count) if count == len(batch):
                return list(range(sequence - count + 1, sequence + 1))
            case Refused() if (error := refused(outcome)) is not None:
                raise error
            case Unanswered(why, sent=False):
                pass
            case Ack(_, count):
                why, sent = f"the batch of {len(batch)} was acknowledged as {count}", True
            case Refused(why=why) | Unanswered(why):
                sent = True
        try:
            found = await _following(nc, stream, after)
        except UnavailableError as error:
            why = error.message
        else:
            if isinstance(found, StreamMessage):
                if found.headers.get(ID_HEADER) != batch[0].headers[ID_HEADER]:
                    raise LogMovedError(after, found.sequence)
                return list(range(found.sequence, found.sequence + len(batch)))
            after = found
        delay = next(delays)
        if loop.time() + delay > deadline:
            raise failed(why, sent)
        await asyncio.sleep(delay)


async def _following(nc: Client, stream: str, after: int) -> StreamMessage | int:
    """Return the first message behind a sequence; without one, the sequence at which the stream ends.

    That can be a later one: a server with a full disk counts messages that it does not have. Raises UnavailableError.
    """
    found = await next_message(nc, stream, ">", after)
    if found is not None:
        return found
    end: int = (await stream_info(nc, stream, after))["state"]["last_seq"]
    return max(end, after)


async def _send(nc: Client, publisher: Publisher, batch: Sequence[PendingCommit], after: int) -> PublishOutcome:
    if not nc.is_connected:
        return Unanswered("not connected to NATS", sent=False)
    try:
        future = await _publish(publisher, batch, {"Nats-Expected-Last-Sequence": str(after)})
        (outcome,) = await publisher.outcomes([future], ANSWER_SECONDS)
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is None or task.cancelling():
            raise
        # The client library cancels waiters when it reconnects.
        return Unanswered("the connection to NATS was lost")
    except (nats.errors.Error, OSError) as error:
        return Unanswered(str(error) or type(error).__name__)
    return outcome


async def _publish(
    publisher: Publisher, batch: Sequence[PendingCommit], expected: dict[str, str]
) -> asyncio.Future[PublishOutcome]:
    """Send a batch; only its first message names what it expects."""
    first, last = batch[0], batch[-1]
    if len(batch) == 1:
        return await publisher.publish(first.subject, first.body, first.headers | expected)
    mark = {"Nats-Batch-Id": secrets.token_hex(8)}
    for number, pending in enumerate(batch[:-1], 1):
        headers = pending.headers | mark | {"Nats-Batch-Sequence": str(number)}
        await publisher.send(pending.subject, pending.body, headers | (expected if number == 1 else {}))
    ending = {"Nats-Batch-Sequence": str(len(batch)), "Nats-Batch-Commit": "1"}
    return await publisher.publish(last.subject, last.body, last.headers | mark | ending)

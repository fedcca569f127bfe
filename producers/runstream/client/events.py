"""The log of the service, followed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime

import httpx2
import msgspec

from runstream.client.errors import ClientError, ConnectionFailedError
from runstream.client.streams import Stream
from runstream.client.types import Commit, Event
from runstream.client.wire import SILENCE_SECONDS, Wire, lines_of

_BEGINS = ": from "


class _Said(msgspec.Struct):
    """What one server-sent event carries."""

    position: str
    aggregate: str
    version: int
    time: datetime
    actor: str
    cause: str
    commit: str
    events: list[Event]


class Events:
    """Everything that happens, commit by commit."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def tail(self, position: str = "", *, run: str = "") -> Stream[Commit]:
        """Every commit behind a place, for ever: `start`, `end`, or a commit's `place`.

        Without a place: from the end; of one run from its beginning. A connection that is lost is made again where
        it was left, for a bounded time. A loop that is left closes it. Raises ClientError.
        """
        return self._wire.streams.stream(self._tail(position, run))

    async def _tail(self, position: str, run: str) -> AsyncGenerator[Commit, None]:
        retries, begun = self._wire.retries(), False
        while True:
            try:
                async with aclosing(self._stream(position, run)) as commits:
                    async for place, commit in commits:
                        position, begun = place, True
                        retries.progressed()
                        if commit is not None:
                            yield commit
                raise ConnectionFailedError("the event stream ended", hint="was the service stopped? try again")
            except ClientError as error:
                if isinstance(error, ConnectionFailedError) and not position:
                    raise
                await retries.wait(error, begun=begun)

    async def _stream(self, position: str, run: str) -> AsyncGenerator[tuple[str, Commit | None], None]:
        """Each commit with the place behind it; at first the place where the stream begins."""
        params = {"from": position, "run": run}
        params = {name: value for name, value in params.items() if value}
        async with (
            self._wire.stream("/events", params, {}, silence=SILENCE_SECONDS) as answer,
            aclosing(_server_sent(answer)) as sent,
        ):
            async for name, place, data in sent:
                if name == "commit":
                    yield place, _commit(place, data)
                elif name == "from":
                    yield place, None
                elif name == "error":
                    raise _told(data)


async def _server_sent(answer: httpx2.Response) -> AsyncGenerator[tuple[str, str, str], None]:
    """Name, id and data of each event; of the comments only the first, which says where the stream begins (`from`)."""
    fields: dict[str, str] = {}
    async with aclosing(lines_of(answer)) as lines:
        async for line in lines:
            if line.startswith(_BEGINS):
                yield "from", line.removeprefix(_BEGINS), ""
            elif line:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
            else:
                if "data" in fields:
                    yield fields.get("event", "message"), fields.get("id", ""), fields["data"]
                fields = {}


def _commit(place: str, data: str) -> Commit:
    try:
        said = msgspec.json.decode(data, type=_Said)
    except (ValueError, RecursionError) as error:
        raise ClientError(
            f"an event cannot be understood: {error}",
            kind="remote",
            code="unexpectedAnswer",
            hint="is the service of a version that fits this client?",
        ) from error
    return Commit(
        id=said.commit,
        aggregate=said.aggregate,
        version=said.version,
        time=said.time,
        actor=said.actor,
        cause=said.cause,
        events=tuple(said.events),
        position=said.position,
        place=place,
    )


def _told(data: str) -> ClientError:
    entry = msgspec.json.decode(data, type=list[dict[str, object]])[0]
    details = entry.get("details")
    known = details if isinstance(details, dict) else {}
    return ClientError(
        str(entry.get("message", "the event stream failed")),
        kind=str(entry.get("kind", "internal")),
        code=str(entry.get("code", "")),
        hint=str(entry.get("hint", "")),
        details=known,
        status=503 if "dependency" in known else 0,
    )

"""Step logs and the event log: read, or followed while they are written, also across lost connections."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Unpack

import httpx2
import msgspec

from runstream.api import LogLine, LogLines
from runstream.client.errors import ClientError, ConnectionFailedError
from runstream.client.session import SILENCE_SECONDS, Session, Stream, lines_of, stream_error
from runstream.client.types import Commit, LogOptions

_OFFSET_HEADER = "Runstream-Log-Offset"
_START_COMMENT = ": from "


class Logs:
    """The logs of steps."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, run_id: str, task_id: str, step: int | None, **options: Unpack[LogOptions]) -> bytes:
        """Return the log of a step (None: of the setup, -N: of service N) as it is now.

        The log is that of an `attempt` of the task (default: the last one). With `tail`, only the last lines (1 to
        10,000), at most 1 MiB. With `since`, only lines written at that time or later; it needs a time zone. With
        `timestamps`, each line begins with the time at which it was written and a space: RFC 3339 in UTC with
        milliseconds, or `-` if it is unknown.

        Raises ClientError (not-exist: "log doesn't exist").
        """
        chunks = self.read(run_id, task_id, step, **options)
        return b"".join([chunk async for chunk in chunks])

    def read(self, run_id: str, task_id: str, step: int | None, **options: Unpack[LogOptions]) -> Stream[bytes]:
        """Read the same log as `get`, chunk by chunk."""
        return self._stream(_log_params(run_id, task_id, step, options.get("attempt")), options)

    def follow(self, run_id: str, task_id: str, step: int | None, **options: Unpack[LogOptions]) -> Stream[bytes]:
        """Follow the log of a step (None: of the setup, -N: of service N) until it ends.

        It begins at its first line, at the last `tail` lines, or at the first line since a time. A response that breaks
        off is resumed at the next byte. Options as in `get`. Raises ClientError.
        """
        params = _log_params(run_id, task_id, step, options.get("attempt")) | {"follow": "1"}
        return self._stream(params, options)

    async def lines(
        self,
        run_id: str,
        task_id: str,
        step: int | None,
        first: int = 0,
        count: int = 1000,
        *,
        attempt: int | None = None,
    ) -> LogLines:
        """Return up to `count` lines (1 to 10,000) of the log as it is now, with their numbers and times.

        `first` is the number of the first one, from 0, or negative to count from the end. Raises ClientError.
        """
        params = _log_params(run_id, task_id, step, attempt)
        return await self._session.read("/logs/lines", LogLines, params | {"from": str(first), "count": str(count)})

    def search(
        self,
        run_id: str,
        task_id: str,
        step: int | None,
        query: str,
        *,
        regex: bool = False,
        ignore_case: bool = False,
        attempt: int | None = None,
    ) -> Stream[LogLine]:
        """Read the lines of the log, as it is now, that contain a text, or match an RE2 expression with `regex`.

        The service searches; of lines longer than 64 KiB, the beginning. Raises ClientError.
        """
        params = _log_params(run_id, task_id, step, attempt) | {"q": query, "count": "1000"}
        flags = {"regex": regex, "ignore_case": ignore_case}
        params |= {name: "1" for name, given in flags.items() if given}
        return self._session.streams.stream(self._matches(params))

    def _stream(self, params: dict[str, str], options: LogOptions) -> Stream[bytes]:
        tail, since = options.get("tail"), options.get("since")
        begin = {} if tail is None else {"tail": str(tail)}
        if since is not None:
            begin["since"] = since.isoformat()
        if options.get("timestamps"):
            params["timestamps"] = "1"
        return self._session.streams.stream(self._chunks(params, begin))

    async def _matches(self, params: Mapping[str, str]) -> AsyncGenerator[LogLine, None]:
        number: int | None = 0
        while number is not None:
            page = await self._session.read("/logs/search", LogLines, {**params, "from": str(number)})
            for line in page.lines:
                yield line
            number = page.next

    async def _chunks(self, params: Mapping[str, str], at: dict[str, str]) -> AsyncGenerator[bytes, None]:
        retries, offset, begun = self._session.retries(), 0, False
        stamped = _StampedLines() if "timestamps" in params else None
        while True:
            try:
                async with (
                    self._session.stream("/logs", {**params, **at}, self._session.own_writes(), silence=None) as answer,
                    aclosing(answer.aiter_bytes()) as chunks,
                ):
                    if not begun:
                        offset = int(answer.headers.get(_OFFSET_HEADER, "0"))
                    begun = True
                    async for chunk in chunks:
                        retries.progressed()
                        if stamped is None:
                            offset += len(chunk)
                            yield chunk
                        else:
                            lines, read = stamped.feed(chunk)
                            offset += read
                            yield lines
                return
            except ClientError as error:
                await retries.wait(error, begun=begun)
            if begun:
                at = {"offset": str(offset)}
            if stamped is not None:
                stamped.resume()


class _StampedLines:
    """Lines with timestamps, across responses that break off anywhere."""

    def __init__(self) -> None:
        self._held = b""
        """The beginning of a timestamp."""
        self._stamp_next = True
        self._within = False
        """True if the next timestamp stands inside a line, at the beginning of a resumed response."""

    def feed(self, chunk: bytes) -> tuple[bytes, int]:
        """Return what to pass on, and the number of bytes in it that are of the log."""
        text, parts, read, at = self._held + chunk, [], 0, 0
        while at < len(text):
            end = text.find(b" " if self._stamp_next else b"\n", at) + 1
            if self._stamp_next:
                if not end:
                    break
                if not self._within:
                    parts.append(text[at:end])
                self._stamp_next = self._within = False
            else:
                self._stamp_next = end > 0
                end = end or len(text)
                parts.append(text[at:end])
                read += end - at
            at = end
        self._held = text[at:]
        return b"".join(parts), read

    def resume(self) -> None:
        """Expect a new response, which begins with a timestamp."""
        self._within = self._within or not self._stamp_next
        self._held, self._stamp_next = b"", True


def _log_params(run_id: str, task_id: str, step: int | None, attempt: int | None) -> dict[str, str]:
    params = {"runid": run_id, "taskid": task_id} | ({} if attempt is None else {"attempt": str(attempt)})
    if step is not None and step < 0:
        return params | {"service": str(-step)}
    return params | ({"setup": "1"} if step is None else {"step": str(step)})


class Events:
    """The event log, commit by commit."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def tail(self, position: str = "", *, run: str = "") -> Stream[Commit]:
        """Follow the log without end from a position: `start`, `end`, or a commit's `place`.

        Default: from the end; with `run`, from the run's beginning. A lost connection is resumed where it broke off,
        for a bounded time. Leaving the loop closes the stream. Raises ClientError.
        """
        return self._session.streams.stream(self._tail(position, run))

    async def _tail(self, position: str, run: str) -> AsyncGenerator[Commit, None]:
        retries, begun = self._session.retries(), False
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
        """Yield first the position where the stream begins, then each commit with the position behind it."""
        params = {"from": position, "run": run}
        params = {name: value for name, value in params.items() if value}
        async with (
            self._session.stream("/events", params, {}, silence=SILENCE_SECONDS) as answer,
            aclosing(server_sent_events(answer)) as sent,
        ):
            async for name, place, data in sent:
                if name == "commit":
                    yield place, _decoded_commit(place, data)
                elif name == "from":
                    yield place, None
                elif name == "error":
                    raise stream_error(data)


async def server_sent_events(answer: httpx2.Response) -> AsyncGenerator[tuple[str, str, str], None]:
    """Yield name, id and data of each event; of the comments only the first, with the stream's begin (`from`)."""
    fields: dict[str, str] = {}
    async with aclosing(lines_of(answer)) as lines:
        async for line in lines:
            if line.startswith(_START_COMMENT):
                yield "from", line.removeprefix(_START_COMMENT), ""
            elif line:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
            else:
                if "data" in fields:
                    yield fields.get("event", "message"), fields.get("id", ""), fields["data"]
                fields = {}


def _decoded_commit(place: str, data: str) -> Commit:
    try:
        found = msgspec.json.decode(data, type=dict[str, object])
        return msgspec.convert({**found, "id": found.get("commit"), "place": place}, Commit)
    except (ValueError, RecursionError) as error:
        raise ClientError(
            f"an event cannot be understood: {error}",
            kind="remote",
            code="unexpectedAnswer",
            hint="is the service of a version that fits this client?",
        ) from error

"""Snapshots: the whole log as one file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

import httpx2
import msgspec

from runstream.client.errors import ConnectionFailedError
from runstream.client.streams import Stream
from runstream.client.wire import Wire, decoded, lines_of, refusal

_SILENCE_SECONDS = 60.0
_LINES = {"Accept": "application/x-ndjson"}
_GOES_ON = "it goes on at the service: follow it again, or see `runstream epochs list`"


class ImportReport(msgspec.Struct, frozen=True):
    """What an import has done, or would do; the first fields are of the snapshot."""

    dry: bool
    namespace: str
    epoch: int
    position: str
    created: str
    signer: str
    commits: int
    events: int
    runs: int
    partitions: int
    here_epoch: int
    """The epoch that is served after it; of a dry run the one that is served now."""
    here_partitions: int
    replaced_commits: int
    objects: int
    objects_added: int
    parked: int
    """Commits that could not be applied."""
    parked_in_source: int = 0
    """Commits that could not be applied where the snapshot was exported."""
    older: str = ""
    """Which later snapshot of the same log was imported or exported there; empty when there was none."""


class ImportProgress(msgspec.Struct, frozen=True):
    """How far an import is."""

    step: str
    """What it does: verifying, loading, making indexes, storing objects, switching."""
    done: int
    total: int
    """Commits or objects; 0 when nobody knows."""


Tell = Callable[[ImportProgress], None]


class Snapshots:
    """What can be exported and imported."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def export(self, *, until: str = "", include: str = "") -> Stream[bytes]:
        """The log as a snapshot file, piece by piece: up to a position or a time (with zone), or to where it is now.

        `include` may name `logs` and `archives`, separated by a comma. What ends without the file's `END` was cut off:
        `runstream snapshot verify` tells. Raises ClientError.
        """
        params = {name: value for name, value in (("until", until), ("with", include)) if value}
        return self._wire.streams.stream(self._export(params))

    async def _export(self, params: dict[str, str]) -> AsyncGenerator[bytes, None]:
        async with (
            self._wire.stream("/export", params, {}, silence=_SILENCE_SECONDS) as answer,
            aclosing(answer.aiter_bytes()) as chunks,
        ):
            async for chunk in chunks:
                yield chunk

    async def load(
        self, content: AsyncIterator[bytes], *, name: str = "", dry_run: bool = False, tell: Tell | None = None
    ) -> ImportReport:
        """Put a snapshot in the place of the log: all of it or nothing. The service has to be in maintenance.

        With `dry_run` nothing is changed. Returns when it is done, which may take minutes; `tell` is told how far it
        is, once all is sent. It goes on when the connection breaks: `follow` asks for it again. Raises ClientError.
        """
        params = {key: value for key, value in (("name", name), ("dry_run", "1" if dry_run else "")) if value}
        if tell is None:
            return await self._wire.upload("/import", content, params, ImportReport)
        # Nothing is answered while it is sent, however long that takes; afterwards something every few seconds.
        async with self._wire.stream("/import", params, _LINES, silence=None, content=content) as answer:
            return await _followed(answer, tell)

    async def follow(self, tell: Tell) -> ImportReport:
        """Wait for the end of the import that goes on at the service, or the report of its last one.

        Raises ClientError: with code `noImport` when there was none, and what the import was refused or failed with.
        """
        async with self._wire.stream("/import", {}, _LINES, silence=_SILENCE_SECONDS) as answer:
            return await _followed(answer, tell)


class _Line(msgspec.Struct):
    progress: ImportProgress | None = None
    result: ImportReport | None = None
    error: msgspec.Raw = msgspec.Raw()


async def _followed(answer: httpx2.Response, tell: Tell) -> ImportReport:
    if not answer.headers.get("Content-Type", "").startswith(_LINES["Accept"]):  # it is of an older service
        return decoded(await answer.aread(), answer, ImportReport)
    try:
        async with aclosing(lines_of(answer)) as lines:
            while True:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    line = decoded((await anext(lines)).encode(), answer, _Line)
                if line.progress is not None:
                    tell(line.progress)
                elif line.result is not None:
                    return line.result
                elif line.error:
                    raise refusal(bytes(line.error), answer)
    except (StopAsyncIteration, TimeoutError, httpx2.TransportError) as error:
        raise ConnectionFailedError("the service says no more of the import", hint=_GOES_ON) from error

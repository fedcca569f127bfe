"""Snapshots: the whole log as one file."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from runstream.client.wire import Wire

_SILENCE_SECONDS = 60.0


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


class Snapshots:
    """What can be exported and imported."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def export(self, *, until: str = "", include: str = "") -> AsyncGenerator[bytes, None]:
        """The log as a snapshot file, piece by piece: up to a position or a time (with zone), or to where it is now.

        `include` may name `logs` and `archives`, separated by a comma. What ends without the file's `END` was cut off:
        `runstream snapshot verify` tells. Raises ClientError.
        """
        params = {name: value for name, value in (("until", until), ("with", include)) if value}
        async with self._wire.stream("/export", params, {}, silence=_SILENCE_SECONDS) as answer:
            async for chunk in answer.aiter_bytes():
                yield chunk

    async def load(self, content: AsyncIterator[bytes], *, name: str = "", dry_run: bool = False) -> ImportReport:
        """Put a snapshot in the place of the log: all of it or nothing. The service has to be in maintenance.

        With `dry_run` nothing is changed. Answers when it is done, which may take minutes. Raises ClientError.
        """
        params = {key: value for key, value in (("name", name), ("dry_run", "1" if dry_run else "")) if value}
        return await self._wire.upload("/import", content, params, ImportReport)

"""Snapshots: the whole log as one file."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from runstream.client.wire import Wire

_SILENCE_SECONDS = 60.0


class Snapshots:
    """What can be exported."""

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

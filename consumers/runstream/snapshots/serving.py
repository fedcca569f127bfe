"""Exports as the gateway serves them: a few at once, for they take much of a processor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from runstream.errors import ConflictError
from runstream.gateway.routes.exports import Export
from runstream.objects import ObjectStorage
from runstream.snapshots.asking import parse_kinds, parse_until
from runstream.snapshots.manifest import SnapshotHeader
from runstream.snapshots.object_files import object_writer
from runstream.snapshots.writing import ParkedAt, ReadableLog, Send, export, plan

AT_ONCE = 2


@dataclass(slots=True)
class LogExports:
    """Exports of one log, unsigned (see `runstream.gateway.routes.exports.Exports`)."""

    served: Callable[[], Awaitable[ReadableLog]]
    """Gives the log in the epoch of now."""
    objects: ObjectStorage
    now: Callable[[], datetime]
    """The time in UTC."""
    parked: ParkedAt | None = None
    _running: int = field(default=0, init=False)

    async def open(self, until: str, include: str) -> Export:
        """An export that can begin. Raises BadRequestError, and ConflictError when two are under way."""
        asked = parse_until(until, local=False), parse_kinds(include)
        self._require_room()
        log = await self.served()
        planned = await plan(log, self.now(), *asked)

        async def write(send: Send) -> None:
            self._require_room()
            self._running += 1
            try:
                await self._export(log, planned, send)
            finally:
                self._running -= 1

        return Export(f"{planned.namespace}-{planned.created:%Y%m%dT%H%M%SZ}.snapshot.tar", write)

    async def _export(self, log: ReadableLog, planned: SnapshotHeader, send: Send) -> None:
        writer = object_writer(self.objects, planned.objects) if planned.objects else None
        await export(log, send, planned, objects=writer, parked=self.parked)

    def _require_room(self) -> None:
        if self._running >= AT_ONCE:
            raise ConflictError(
                f"{AT_ONCE} exports are under way already",
                code="exportsBusy",
                hint="try again when one of them has ended, or export with `runstream export` beside the service",
            )

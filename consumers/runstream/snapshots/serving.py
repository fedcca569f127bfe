"""Exports as the gateway serves them: a few at once, for they take much of a processor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from runstream.errors import ConflictError
from runstream.log.port import ReadableLog
from runstream.objects import ObjectStorage
from runstream.snapshots.asking import parse_kinds, parse_until
from runstream.snapshots.manifest import SnapshotHeader
from runstream.snapshots.object_files import object_writer
from runstream.snapshots.writing import ParkedAt, Remember, Send, export, plan

AT_ONCE = 2


class _Slot:
    """Room for one export, taken when it is asked for: a third one is refused before its answer begins.

    One that is never written, since its client has left, gives its room back when it is forgotten.
    """

    def __init__(self, exports: LogExports) -> None:
        self._exports: LogExports | None = exports
        exports.running += 1

    def free(self) -> None:
        """Give the room back, once."""
        if self._exports is not None:
            self._exports.running -= 1
            self._exports = None

    def __del__(self) -> None:
        self.free()


@dataclass(frozen=True, slots=True)
class ServedExport:
    """An export that can begin."""

    name: str
    """A name for its file."""
    write: Callable[[Send], Awaitable[None]]
    """Sends the whole file; raises when the log fails on the way."""


@dataclass(slots=True)
class LogExports:
    """Exports of one log, unsigned (the gateway's `Exports`)."""

    served: Callable[[], Awaitable[ReadableLog]]
    """Gives the log in the epoch of now."""
    objects: ObjectStorage
    now: Callable[[], datetime]
    """The time in UTC."""
    parked: ParkedAt | None = None
    remember: Remember | None = None
    running: int = field(default=0, init=False)

    async def open(self, until: str, include: str) -> ServedExport:
        """An export that can begin. Raises BadRequestError, and ConflictError when two are under way."""
        asked = parse_until(until, local=False), parse_kinds(include)
        self._require_room()
        slot = _Slot(self)
        try:
            log = await self.served()
            planned = await plan(log, self.now(), *asked)
        except BaseException:
            slot.free()
            raise

        async def write(send: Send) -> None:
            try:
                await self._export(log, planned, send)
            finally:
                slot.free()

        return ServedExport(f"{planned.namespace}-{planned.created:%Y%m%dT%H%M%SZ}.snapshot.tar", write)

    async def _export(self, log: ReadableLog, planned: SnapshotHeader, send: Send) -> None:
        writer = object_writer(self.objects, planned.objects) if planned.objects else None
        await export(log, send, planned, objects=writer, parked=self.parked, remember=self.remember)

    def _require_room(self) -> None:
        if self.running >= AT_ONCE:
            raise ConflictError(
                f"{AT_ONCE} exports are under way already",
                code="exportsBusy",
                hint="try again when one of them has ended, or export with `runstream export` beside the service",
            )

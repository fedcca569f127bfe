"""The config service in the past: its log folded from the beginning up to a position or a time.

At a time, the state is the fold of all commits before the first later one.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TypeAlias

from runstream.commits import LogPosition, Position, StoredCommit
from runstream.config_folding import PARTITION, ConfigFold
from runstream.domain.config.state import ConfigState
from runstream.errors import BadRequestError, InternalError
from runstream.glance import made_after
from runstream.log.port import Log, RawMessage
from runstream.skips import Skips

Point: TypeAlias = LogPosition | Position | datetime
READ_SECONDS = 60.0
"""Maximum time for reading the log, in seconds."""
_BATCH = 200
"""Commits between two moments at which other requests are served: about 20 ms."""


class PastStates:
    """Earlier states of the config service. One is read at a time, and the last one is kept."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._reading = asyncio.Lock()
        self._kept: tuple[int, int | datetime, ConfigState] | None = None
        """Epoch, bound and state of the last read that no later commit can change."""

    async def at(self, point: Point) -> ConfigState:
        """Return the state as of a point, for reading only.

        Raises BadRequestError for a position that is not one of this log, InternalError while it cannot be read.
        """
        end = await self._log.end(PARTITION)
        bound = self._bound(point, end)
        async with self._reading:
            if self._kept is not None and self._kept[:2] == (self._log.epoch, bound):
                return self._kept[2]
            try:
                async with asyncio.timeout(READ_SECONDS):
                    return await self._read(bound, end)
            except TimeoutError as error:
                raise InternalError(
                    f"the log of users and projects cannot be read up to {point} in {READ_SECONDS:g} seconds",
                    code="configBehind",
                    hint="try again in a moment",
                ) from error

    def _bound(self, point: Point, end: int) -> int | datetime:
        """Return the last included sequence, or the time."""
        if isinstance(point, datetime):
            return point
        if isinstance(point, LogPosition):
            known = len(point.sequences) == 1 and point.epoch == self._log.epoch
            sequence = point.sequences[0]
        else:
            known, sequence = (point.epoch, point.partition) == (self._log.epoch, PARTITION), point.sequence
        if not known or sequence > end:
            raise BadRequestError(
                f"{point} is not a position of the log of users and projects, which is at "
                f"{Position(self._log.epoch, PARTITION, end)}",
                code="invalidPoint",
                hint="`runstream audit` shows the positions of changes",
            )
        return sequence

    async def _read(self, bound: int | datetime, end: int) -> ConfigState:
        """Fold the log up to the bound, at most up to its end, and keep the state if it can never change."""
        epoch, last = self._log.epoch, bound if isinstance(bound, int) else end
        fold = ConfigFold(await self._skips(bound, last))
        late = False
        if last:
            async with self._log.read(PARTITION, 0) as reader:
                while fold.after < last and not late:
                    for message in await reader.next_batch(_BATCH):
                        late = _is_late(message, bound)
                        if late or message.position.sequence > last:
                            break
                        fold.take(message)
                    await asyncio.sleep(0)
        if late or isinstance(bound, int):
            self._kept = epoch, bound, fold.state
        return fold.state

    async def _skips(self, bound: int | datetime, last: int) -> Skips:
        """Return the decisions to skip commits that were made by then."""
        skips, fold = Skips(), ConfigFold()
        if last == 0:
            return skips
        async with self._log.read(PARTITION, 0, filters=(self._log.subjects.skips(PARTITION),)) as reader:
            while reader.pending():
                for message in await reader.next_batch(_BATCH):
                    if message.position.sequence > last or _is_late(message, bound):
                        return skips
                    if isinstance(stored := fold.take(message), StoredCommit):
                        skips.take(stored)
        return skips


def _is_late(message: RawMessage, bound: int | datetime) -> bool:
    return isinstance(bound, datetime) and made_after(message, bound)

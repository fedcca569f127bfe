"""Read your writes: wait until the projection includes the position of an append.

One connection of the process listens to the NOTIFY of every batch, which commits with the rows. While that connection
is lost, the state is unknown; a new connection reads what it missed from the checkpoints.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict

import asyncpg
import structlog

from runstream.commits import Position
from runstream.database.connection import hang_up
from runstream.database.database import Database
from runstream.database.runs import get_positions
from runstream.errors import InternalError
from runstream.lifecycle import Component, wait_for_event, wait_for_first


def channel_of(schema: str) -> str:
    """Return the channel that announces a schema's projected positions."""
    return _channel("runstream", schema)


def retry_channel_of(schema: str) -> str:
    """Return the channel of retry requests for parked commits; the payload is the partition."""
    return _channel("runstream_retry", schema)


def announcement(position: Position) -> str:
    """Return the payload that announces a projected position: EPOCH:PARTITION:SEQUENCE."""
    return f"{position.epoch}:{position.partition}:{position.sequence}"


def announced(payload: str) -> Position:
    """Parse the position of a payload."""
    epoch, partition, sequence = payload.split(":")
    return Position(int(epoch), int(partition), int(sequence))


def _channel(prefix: str, schema: str) -> str:
    """Return a channel name of at most 63 bytes; all schemas of a database share its channels."""
    name = f"{prefix}_{schema}"
    return name if len(name.encode()) <= 63 else f"{prefix}_{hashlib.sha256(schema.encode()).hexdigest()[:32]}"


RECONNECT_SECONDS = 0.5

log = structlog.get_logger()


class Freshness(Component):
    """The projected position of each partition, kept current by notifications."""

    name = "freshness"

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._projected: dict[int, Position] = {}
        self._waiting: defaultdict[int, set[tuple[Position, asyncio.Future[None]]]] = defaultdict(set)

    async def run(self) -> None:
        """Listen until `stopping` is set. Raises InternalError when the first connection cannot be made."""
        while not self.stopping.is_set():
            try:
                await self._listen()
            except InternalError as error:
                if not self.started.is_set():
                    raise
                log.warning(
                    "cannot listen to the projection's notifications; trying again", action="listen_failed", error=error
                )
            await wait_for_event(self.stopping, RECONNECT_SECONDS)

    async def wait_for(self, *positions: Position, timeout: float) -> None:
        """Wait until the projection includes all these positions.

        A partition of a later epoch includes every earlier one. Raises InternalError after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                for position in positions:
                    await self._wait(position)
        except TimeoutError as error:
            behind = [position for position in positions if not self.includes(position)]
            raise InternalError(
                f"the projection has not reached {_listed(behind)} within {timeout:g} s",
                code="projectionBehind",
                details={"dependency": "projection", "partitions": [position.partition for position in behind]},
                hint="the append is durable; `runstream doctor` says whether schedulers and Postgres are there",
            ) from error

    def includes(self, position: Position) -> bool:
        """Return whether the projection is known to include the position."""
        projected = self._projected.get(position.partition)
        return projected is not None and projected >= position

    async def _wait(self, position: Position) -> None:
        if self.includes(position):
            return
        waiter = (position, asyncio.get_running_loop().create_future())
        self._waiting[position.partition].add(waiter)
        try:
            await waiter[1]
        finally:
            self._waiting[position.partition].discard(waiter)

    async def _listen(self) -> None:
        connection = await self._database.connect(watchful=True)
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(channel_of(self._database.schema), self._receive)
            async with self._database.snapshot() as transaction:
                for position in (await get_positions(transaction)).values():
                    self._note(position)
            self.started.set()
            await wait_for_first(lost.wait(), self.stopping.wait())
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise InternalError(f"listening failed: {error}", code="databaseDisconnected") from error
        finally:
            # After a crash of Postgres the projection may have gone back: its commits do not wait for the disk.
            self._projected.clear()
            await hang_up(connection)

    def _receive(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._note(announced(str(payload)))

    def _note(self, position: Position) -> None:
        known = self._projected.get(position.partition)
        # A lower epoch means that an operator went back to it: positions of the other epoch do not count for it.
        if known is not None and known.epoch == position.epoch and known >= position:
            return
        self._projected[position.partition] = position
        for waited, future in self._waiting[position.partition]:
            if waited <= position and not future.done():
                future.set_result(None)


def _listed(positions: list[Position]) -> str:
    return ", ".join(f"position {one.epoch}:{one.sequence} of partition {one.partition}" for one in positions)

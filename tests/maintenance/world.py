"""Instances in this process, each with a connection and a log of its own on a real NATS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from nats.aio.client import Client

from runstream.ids import new_id
from runstream.leases import LeaseBucket, open_leases
from runstream.lifecycle import Component
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.maintenance.instances import KnownInstance, Overview, Roster, ThisInstance
from runstream.maintenance.mode import Mode, Parkable
from runstream.maintenance.request import MaintenanceControl, Order
from tests.log.servers import Connection, connected

LEASE_SECONDS = 2


class Worker(Component):
    """Works until it is stopped."""

    async def run(self) -> None:
        self.started.set()
        await self.stopping.wait()


@dataclass
class Member:
    """One process, as far as it takes part in maintenance."""

    nc: Client
    log: JetStreamLog
    mode: Mode
    instance: ThisInstance
    parkable: Parkable

    async def start(self) -> None:
        await self.instance.start()
        await self.parkable.start()

    async def stop(self) -> None:
        await self.parkable.stop()
        await self.instance.stop()

    async def die(self) -> None:
        """Crash: drop the connection before anything can be withdrawn."""
        await self.nc.close()
        for component in (self.parkable, self.instance):
            component.stop_seconds = 0.0
            await component.stop()


@dataclass
class World:
    """A deployment's maintenance control and its members."""

    url: str
    namespace: str
    nc: Connection
    control: MaintenanceControl
    board: LeaseBucket
    roster: Roster
    stack: AsyncExitStack

    async def member(self, *components: str, instance_id: str = "", url: str = "") -> Member:
        """Start one more process."""
        nc = await self.stack.enter_async_context(connected(url or self.url))
        log = await open_log(nc, self.namespace)
        self.stack.push_async_callback(log.close)
        mode = Mode("runs", log)
        board = await open_leases(nc, self.board.bucket, seconds=LEASE_SECONDS)
        instance = ThisInstance(nc, board, self.namespace, instance_id or new_id(), components, mode)

        async def make() -> Component:
            return Worker()

        member = Member(nc, log, mode, instance, Parkable(components[0], mode, make))
        self.stack.push_async_callback(member.stop)
        await member.start()
        return member

    async def until(self, reached: Callable[[tuple[KnownInstance, ...]], bool]) -> tuple[KnownInstance, ...]:
        """Wait until the members satisfy the condition; return them."""
        while True:
            change = self.roster.change
            known = self.roster.known
            if reached(known):
                return known
            await change.wait()

    async def all_are(self, state: str) -> tuple[KnownInstance, ...]:
        return await self.until(lambda known: all(one.state("runs") == state for one in known))

    def overview(self, member: Member) -> Overview:
        return Overview(self.control, self.roster, member.instance.modes)


def order(why: str = "a test") -> Order:
    return Order(new_id(), "ada@host", why, datetime.now(UTC))


@asynccontextmanager
async def world(url: str, namespace: str) -> AsyncIterator[World]:
    """Yield a deployment with a log and no members yet."""
    async with AsyncExitStack() as stack:
        nc = await stack.enter_async_context(connected(url))
        log = await open_log(nc, namespace, create=True, partitions=2)
        await log.close()
        board = await open_leases(nc, f"{namespace}_instances", seconds=LEASE_SECONDS)
        roster = Roster(board)
        await roster.start()
        stack.push_async_callback(roster.stop)
        yield World(url, namespace, nc, MaintenanceControl(nc, namespace), board, roster, stack)

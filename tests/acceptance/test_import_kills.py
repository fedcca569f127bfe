"""Imports killed with SIGKILL at random moments: both services start in the whole old or the whole new state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from runstream.database import Database
from runstream.importing.epochs import ServicePlace, epochs_in_nats
from runstream.leases import LeaseBucket
from runstream.maintenance.instances import INSTANCE_SECONDS
from runstream.maintenance.request import lock_key
from runstream.projections.rebuild_schema import schema_beside
from tests.acceptance.deployment import Deployment, environment, in_one_process
from tests.acceptance.test_imports import a_run, compared, exported
from tests.chaos.kills import Chaos, Victim, kills, say
from tests.importing.rig import Rig
from tests.importing.test_config import ConfigRig
from tests.log.servers import connected
from tests.maintenance.test_processes import until
from tests.projections.test_rebuild import schemas
from tests.snapshots.files import generated, users_log, written

ORDINARILY = 2


@dataclass
class Sides:
    """Two states of both services, each a file; one of them is there, the other one is imported, and killed."""

    deployment: Deployment
    rig: Rig
    config: ConfigRig
    chaos: Chaos
    here: Path
    there: Path
    switched: int = 0

    def victim(self, path: Path) -> Victim:
        words = ("--data-dir", str(self.deployment.folder / "nowhere"), "import", str(path), *self.deployment.servers)
        return Victim(self.chaos, words, environment())

    async def killed_service(self, seconds: float) -> str:
        """Have the service import the other state and kill it meanwhile; return the moment."""
        seconds *= self.chaos.random.uniform(0.2, 1.1)
        importing = asyncio.create_task(self.deployment.run("import", str(self.there)))
        await asyncio.wait({importing}, timeout=seconds)
        await self.deployment.gateway.kill()
        await importing
        return f"the service after {seconds:.2f} s"

    async def restart(self) -> None:
        await self.deployment.gateway.kill()
        await self.deployment.gateway.start()
        async with self.deployment.client() as client:
            for service in ("runs", "config"):
                await until(client, lambda status: status.parked and status.current, service)

    async def are_whole(self) -> None:
        """Check that one of the two states is there as a whole, that fsck agrees, and that nothing else is left."""
        now = await exported(self.deployment, self.deployment.folder / "now")
        is_new = compared(self.there, now).equal
        assert is_new or compared(self.here, now).equal
        self.switched += is_new
        assert (await self.rig.fsck()).lines()[:-1] == []
        assert await self.config.differences() == []
        for place in (self.rig.place, self.config.place):
            ready = {number for number, epoch in (await Rig(place).epochs()).items() if epoch.state == "ready"}
            assert await epochs_in_nats(place) == ready
        assert schema_beside("runstream") not in await schemas(self.rig.database)

    async def repeated(self) -> None:
        """The import is done again, once the lease of the killed one has ended, and succeeds."""
        board = LeaseBucket(self.rig.place.nats, "runstream_instances", INSTANCE_SECONDS)
        for service in ("runs", "config"):
            async with board.watching(lock_key(service)) as watch, asyncio.timeout(10 * INSTANCE_SECONDS):
                while watch.held:
                    await anext(watch)
        done = await self.deployment.beside("import", str(self.there))
        assert done.code == 0, done.err
        assert compared(self.there, await exported(self.deployment, self.deployment.folder / "now")).equal
        self.here, self.there = self.there, self.here


@asynccontextmanager
async def two_sides(folder: Path) -> AsyncIterator[Sides]:
    """A service that is in maintenance for as long as the block lasts; afterwards it works."""
    async with in_one_process(folder, "--driver", "noop") as deployment, deployment.client() as client:
        await a_run(client)
        one = await exported(deployment, folder / "one")
        two = folder / "two"
        await written(two, generated(400, 4), also=await users_log("ada", "bob"))
        assert (await deployment.run("maintenance", "enable", "--service", "all", "--wait")).code == 0
        database = Database(deployment.postgres.url, "runstream")
        try:
            async with connected(deployment.nats.url) as nats:
                runs, config = (
                    ServicePlace(nats, deployment.nats.url, database, "runstream", service, 1)
                    for service in ("runs", "config")
                )
                yield Sides(deployment, Rig(runs), ConfigRig(config), Chaos(11, ORDINARILY), one, two)
        finally:
            await database.close()
        assert (await deployment.run("maintenance", "disable", "--service", "all", "--wait")).code == 0
        await a_run(client)
        assert (await deployment.fsck()).code == 0


@pytest.mark.chaos
@pytest.mark.seconds(120 + 30 * kills(ORDINARILY))
async def test_killed_at_any_moment_it_is_all_old_or_all_new(open_path: Path) -> None:
    async with two_sides(open_path) as sides:
        victims = {path: sides.victim(path) for path in (sides.there, sides.here)}
        for victim in victims.values():
            await victim.measure()
        for number in sides.chaos:
            victim = victims[sides.there]
            moment = await (sides.killed_service(victim.seconds) if number % 4 == 1 else victim.killed())
            say(moment)
            await sides.restart()
            await sides.are_whole()
            await sides.repeated()
        say(f"{sides.switched} of {sides.chaos.kills} killed imports had switched")

"""An import of both services is one step: their rows and epochs change together, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from benchmarks.generate import append

from runstream.api import ImportReport
from runstream.database.connection import Connection
from runstream.database.epochs import Epoch, make_current
from runstream.errors import BadRequestError, InternalError
from runstream.importing.epochs import ServicePlace, epochs_in_nats
from runstream.importing.importer import ImportPart, import_snapshot, of_services, preview_import, verify_file
from runstream.projections.rebuild_schema import apply_at_once
from runstream.snapshots.export import export, plan_all
from tests.importing.rig import Rig, begun, silent
from tests.importing.test_config import ConfigRig, config_rig
from tests.servers import Servers
from tests.snapshots.files import generated, users_log, written


@dataclass
class Both:
    """A deployment without processes, with both logs."""

    runs: Rig
    config: ConfigRig

    async def export(self, path: Path) -> Path:
        with path.open("wb") as file:

            async def send(content: bytes) -> None:
                file.write(content)

            async with self.runs.log() as runs, self.config.log() as config:
                planned, further = await plan_all([runs, config], datetime.now(UTC))
                await export(runs, send, planned, further=further)
        return path

    def parts(self, path: Path, *services: str) -> list[ImportPart]:
        """What an import replaces: all that the file holds, or these services."""
        rigs: dict[str, Rig | ConfigRig] = {"runs": self.runs, "config": self.config}
        verified = verify_file(path, "", silent)
        chosen = of_services(verified, services) if services else of_services(verified)
        return [ImportPart(rigs[one.header.service].place, self.runs.parked.hold, one) for one in chosen]

    async def run_import(self, path: Path, *services: str) -> ImportReport:
        return await import_snapshot(self.parts(path, *services), None, silent)

    async def state(self) -> tuple[int, set[str]]:
        """The number of commits of runs and the names of users, once fsck finds no difference and nothing is left."""
        assert await self.runs.differences() == []
        assert await self.config.differences() == []
        for rig in (self.runs, self.config):
            assert await epochs_in_nats(rig.place) == {
                number for number, epoch in (await Rig(rig.place).epochs()).items() if epoch.state == "ready"
            }
        async with self.runs.log() as log:
            commits = sum([await log.end(partition) for partition in range(log.partitions)])
        return commits, await self.config.users()

    async def numbers(self) -> tuple[int, int]:
        """The current epochs of runs and config."""
        runs, config = [await Rig(one.place).epochs() for one in (self.runs, self.config)]
        return _current(runs), _current(config)


def _current(epochs_there: dict[int, Epoch]) -> int:
    return next(number for number, epoch in epochs_there.items() if epoch.current)


@asynccontextmanager
async def both(servers: Servers) -> AsyncIterator[Both]:
    async with config_rig(servers) as config:
        place = config.place
        await begun(place.nats, place.database, servers.namespace, 3)
        runs = Rig(ServicePlace(place.nats, place.nats_url, place.database, place.namespace, "runs", 1))
        yield Both(runs, config)


@asynccontextmanager
async def two_states(servers: Servers, folder: Path) -> AsyncIterator[tuple[Both, Path, Path]]:
    """A deployment in the first of two states, each of which is a file."""
    async with both(servers) as rig:
        async with rig.runs.log() as log:
            await append(rig.runs.place.nats_url, log, 3)
        await rig.config.create("ada")
        first = await rig.export(folder / "first")
        await written(folder / "second", generated(9, 3), also=await users_log("ada", "bob"))
        await rig.run_import(first)
        yield rig, first, folder / "second"


async def test_both_logs_are_replaced_in_one_step_and_each_alone_on_demand(servers: Servers, tmp_path: Path) -> None:
    async with two_states(servers, tmp_path) as (rig, first, second):
        old = await rig.state()
        assert (old[1], await rig.numbers()) == ({"ada"}, (2, 2))
        dry = await preview_import(rig.parts(second))
        assert (dry.service, [one.service for one in dry.also], dry.dry) == ("runs", ["config"], True)
        assert await rig.numbers() == (2, 2)
        rig.runs.parked.asked.clear()
        done = await rig.run_import(second)
        assert [(one.service, one.here_epoch) for one in (done, *done.also)] == [("runs", 3), ("config", 3)]
        assert rig.runs.parked.asked == ["the import of second"] * 2
        new = await rig.state()
        assert (new[1], new[0] - done.commits, done.also[0].commits) == ({"ada", "bob"}, 0, 4)
        assert new[0] > old[0]
        assert (await rig.run_import(first, "config")).also == ()
        assert await rig.state() == (new[0], old[1])
        await rig.run_import(second, "config")
        await rig.run_import(first, "runs")
        assert await rig.state() == (old[0], new[1])


async def test_what_fails_before_or_in_the_switch_changes_neither(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_states(servers, tmp_path) as (rig, _, second):
        old, numbers = await rig.state(), await rig.numbers()

        rig.runs.parked.error = BadRequestError("maintenance has ended", code="test")
        with pytest.raises(BadRequestError, match="maintenance has ended"):
            await rig.run_import(second)
        assert (await rig.state(), await rig.numbers()) == (old, numbers)
        rig.runs.parked.error = None

        current = make_current

        async def half(connection: Connection, service: str, epoch: int, instead: int) -> None:
            await current(connection, service, epoch, instead)
            if service == "config":
                raise InternalError("cut off", code="test")

        with monkeypatch.context() as patched:
            patched.setattr("runstream.importing.epochs.make_current", half)
            with pytest.raises(InternalError, match="cut off"):
                await rig.run_import(second)
        assert (await rig.state(), await rig.numbers()) == (old, numbers)

        async def away(*_: object) -> None:
            raise InternalError("the answer was lost", code="test")

        async def lost(database: object, changes: object) -> None:
            await applied(database, changes)  # type: ignore[arg-type]
            await away()

        applied = apply_at_once
        monkeypatch.setattr("runstream.importing.epochs.apply_at_once", lost)
        done = await rig.run_import(second)
        assert await rig.numbers() == (done.here_epoch, done.also[0].here_epoch)
        assert (await rig.state())[1] == {"ada", "bob"}

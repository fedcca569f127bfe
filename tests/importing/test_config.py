"""The log of users, projects and secrets is exported and imported like that of runs, with its rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runstream.api import ImportReport
from runstream.config.store import ConfigFollower, ConfigStore
from runstream.configstore.checking import fsck_config
from runstream.configstore.reading import parked_as_of
from runstream.database import Database
from runstream.database.epochs import begin_epoch, list_epochs
from runstream.datamanager.startup import record_epoch
from runstream.domain.config.decisions.users import decide_create_user, decide_delete_user
from runstream.domain.config.references import find_user
from runstream.errors import BadRequestError
from runstream.ids import new_id
from runstream.importing.epochs import ServicePlace, activate, delete, epochs_in_nats, remove_killed
from runstream.importing.importer import ImportPart, import_snapshot, of_services, verify_file
from runstream.jetstream.connection import nats_connection
from runstream.log import streams
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.projections.fsck import FsckFindings
from runstream.snapshots.export import export, plan
from runstream.snapshots.manifest import Manifest
from runstream.snapshots.verify import verify
from tests.importing.rig import Parked, silent
from tests.migrated import make_tables
from tests.servers import Servers
from tests.snapshots.files import generated, written


@dataclass
class ConfigRig:
    """A deployment without processes whose service `config` has a log."""

    place: ServicePlace
    parked: Parked = field(default_factory=Parked)

    @asynccontextmanager
    async def log(self) -> AsyncIterator[JetStreamLog]:
        async with await open_log(self.place.nats, self.place.namespace, "config") as log:
            yield log

    @asynccontextmanager
    async def store(self) -> AsyncIterator[ConfigStore]:
        async with self.log() as log:
            store = ConfigStore(log)
            async with ConfigFollower(store).serving():
                yield store

    async def users(self) -> set[str]:
        async with self.store() as store:
            return {user.name for user in store.state.users.values()}

    async def create(self, *names: str) -> None:
        async with self.store() as store:
            for name in names:
                await store.change(
                    lambda state, name=name: decide_create_user(  # type: ignore[misc]
                        state, user_id=new_id(), root_group_id=new_id(), name=name
                    ),
                    actor="admin",
                )

    async def delete(self, name: str) -> None:
        async with self.store() as store:
            await store.change(lambda state: decide_delete_user(state, find_user(state, name)), actor="admin")

    async def export(self, path: Path) -> Manifest:
        with path.open("wb") as file:

            async def send(content: bytes) -> None:
                file.write(content)

            async with self.log() as log:
                planned = await plan(log, datetime.now(UTC))
                return await export(log, send, planned, parked=lambda _, positions: parked_as_of(log, positions))

    async def run_import(self, path: Path) -> ImportReport:
        (snapshot,) = of_services(verify_file(path, "", silent), ["config"])
        return await import_snapshot([ImportPart(self.place, self.parked.hold, snapshot)], None, silent)

    async def differences(self) -> list[str]:
        report = FsckFindings()
        async with self.log() as log:
            await fsck_config(self.place.database, log, report)
        return [str(one) for one in report.differences]

    async def epochs(self) -> dict[int, bool]:
        """The epochs that are not deleted, and whether each is current."""
        found = await list_epochs(self.place.database, "config")
        return {epoch.number: epoch.current for epoch in found if epoch.state != "deleted"}


@asynccontextmanager
async def config_rig(servers: Servers) -> AsyncIterator[ConfigRig]:
    await make_tables(servers.database_url, servers.schema)
    async with (
        Database(servers.database_url, servers.schema) as database,
        nats_connection(servers.nats_url) as client,
    ):
        async with await open_log(client, servers.namespace, "config", create=True, partitions=1):
            await record_epoch(database, "config", 1, 1)
        yield ConfigRig(ServicePlace(client, servers.nats_url, database, servers.namespace, "config", 1))


async def test_a_log_comes_back_with_its_rows_and_the_former_one_is_activated(servers: Servers, tmp_path: Path) -> None:
    async with config_rig(servers) as rig:
        await rig.create("ada", "bob")
        manifest = await rig.export(tmp_path / "first")
        assert verify(tmp_path / "first").good
        assert (manifest.commits, manifest.parked) == (4, ())
        assert "repositories" in manifest.left_out
        await rig.delete("ada")

        stream = rig.place.nats.jetstream()
        await stream.add_stream(name=f"{servers.namespace}_TIMERS", subjects=[f"{servers.namespace}.timers.>"])
        await stream.publish(f"{servers.namespace}.timers.of.a.run", b"")
        done = await rig.run_import(tmp_path / "first")
        assert (done.commits, done.here_epoch, done.parked, done.replaced_commits) == (4, 2, 0, 6)
        assert await rig.differences() == []
        assert await rig.users() == {"ada", "bob"}
        assert (await stream.stream_info(f"{servers.namespace}_TIMERS")).state.messages == 1
        await rig.create("eve")

        assert await activate(rig.place, 1, rig.parked.hold, silent) == 0
        assert await rig.differences() == []
        assert await rig.users() == {"bob"}
        await delete(rig.place, 2)
        assert await rig.epochs() == {1: True}


async def test_what_was_parked_is_named_and_parked_again(servers: Servers, tmp_path: Path) -> None:
    async with config_rig(servers) as rig:
        await rig.create("ada")
        async with rig.log() as log:
            subject = f"{log.subjects.prefix(0)}.user.strange"
            await rig.place.nats.jetstream().publish(subject, b"moo")
            await rig.place.nats.jetstream().publish(subject, b"moo again")
        await rig.create("bob")
        manifest = await rig.export(tmp_path / "first")
        assert [(one.sequence, one.subject) for one in manifest.parked] == [(3, "user.strange")]
        assert verify(tmp_path / "first").parked == 2
        assert (await rig.run_import(tmp_path / "first")).parked == 2
        assert await rig.differences() == []
        assert await rig.users() == {"ada", "bob"}


async def test_a_failure_before_the_switch_changes_nothing(servers: Servers, tmp_path: Path) -> None:
    async with config_rig(servers) as rig:
        await rig.create("ada")
        await rig.export(tmp_path / "first")
        await rig.create("bob")
        rig.parked.error = BadRequestError("maintenance has ended", code="test")
        with pytest.raises(BadRequestError, match="maintenance has ended"):
            await rig.run_import(tmp_path / "first")
        assert await rig.epochs() == {1: True}
        assert await rig.users() == {"ada", "bob"}


async def test_a_snapshot_of_another_service_is_refused(servers: Servers, tmp_path: Path) -> None:
    await written(tmp_path / "runs", generated(3))
    async with config_rig(servers) as rig:
        with pytest.raises(BadRequestError, match="of the service runs, not of config") as caught:
            of_services(verify_file(tmp_path / "runs", "", silent), ["config"])
        assert (caught.value.code, caught.value.hint) == ("otherService", "import it with --service runs")
        await rig.export(tmp_path / "config")
        with pytest.raises(BadRequestError, match="of the service config, not of runs"):
            of_services(verify_file(tmp_path / "config", "", silent), ["runs"])
        async with rig.log() as log:
            with pytest.raises(BadRequestError, match="have no logs and no archives"):
                await plan(log, datetime.now(UTC), objects=("logs",))


async def test_what_a_killed_import_left_is_removed_at_the_next_start(servers: Servers, tmp_path: Path) -> None:
    async with config_rig(servers) as rig:
        await rig.create("ada")
        killed = await begin_epoch(rig.place.database, "config", 1, "import of a killed process")
        await streams.create_streams(rig.place.nats, rig.place.subjects(killed.number), 1, 1)
        assert await epochs_in_nats(rig.place) == {1, killed.number}
        await remove_killed(rig.place)
        assert await epochs_in_nats(rig.place) == {1}
        assert await rig.epochs() == {1: True}
        await rig.export(tmp_path / "first")
        assert (await rig.run_import(tmp_path / "first")).here_epoch > killed.number
        assert await rig.users() == {"ada"}

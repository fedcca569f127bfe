"""NATS is killed and comes back while a task runs: the task runs on, is reported, and its log is complete."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
from nats.aio.client import Client as Nats

from runstream.codec import decode
from runstream.embedded import NatsServer
from runstream.events.executor_task import ExecutorTaskPhase, ExecutorTaskStopRequested
from runstream.executor.executor import make_executor
from runstream.jetstream.connection import nats_connection
from runstream.leases import open_leases
from runstream.log.jetstream import JetStreamLog, open_log
from runstream.objects import PosixObjects
from runstream.sealing import Keyring
from runstream.settings import ExecutorSettings, Settings
from runstream.steplogs.reader import StepLogReader
from runstream.subjects import StepLogKey
from tests.executor.rig import FakeLeases, Rig, run_step, task_of
from tests.executor.test_life import appears


@contextlib.asynccontextmanager
async def own_server(folder: Path) -> AsyncIterator[tuple[NatsServer, Nats, JetStreamLog]]:
    server = NatsServer(folder)
    await server.start()
    try:
        async with (
            nats_connection(server.url) as nc,
            await open_log(nc, "outage", create=True, partitions=2) as log,
        ):
            yield server, nc, log
    finally:
        await server.stop()


async def test_a_task_survives_the_death_of_nats(tmp_path: Path) -> None:
    async with own_server(tmp_path / "nats") as (server, nc, log):
        settings = Settings(data_dir=tmp_path, namespace="outage", executor=ExecutorSettings(sandbox="off"))
        objects = PosixObjects(settings.objects_path)
        board = await open_leases(nc, "outage_executors", seconds=30)
        executor = make_executor(settings, nc, log, objects, board, Keyring())
        await executor.start()
        try:
            it = Rig(log, objects, tmp_path, executor.id, FakeLeases())
            gated = "mkfifo ~/gate; echo before; echo > ~/ready; cat ~/gate > /dev/null; echo after"
            task = await it.assign(task_of("task", run_step(gated), run_step("echo second")))
            await task.step_begun()
            await appears(it.task_folder(task) / "home" / "ready")
            reader = StepLogReader(nc, "outage", log, objects)
            key = StepLogKey(
                task.address.partition, task.task.run_id, task.task.task, task.run_task_id, task.address.id, 0
            )
            follower = await reader.open(key, follow=True)
            read = [await anext(follower)]
            filters = [log.subjects.of(task.address)]
            async with log.read(task.address.partition, task.head.sequence, filters=filters) as commits:
                assert server.process is not None
                psutil.Process(server.process.pid).kill()
                await server.process.ended.wait()
                (it.task_folder(task) / "home" / "gate").write_text("go\n")
                await appears(it.task_folder(task) / "1.log")
                await server.start()
                while not task.task.settled:
                    for message in await commits.next_batch(1):
                        task.apply(decode(message))
            assert task.task.phase is ExecutorTaskPhase.SUCCESS
            assert await task.log() == "before\nafter\n"
            assert b"".join([*read, *[chunk async for chunk in follower]]) == b"before\nafter\n"
            after = await it.assign(task_of("after", run_step("sleep 1000")))
            await after.step_begun()
            await after.say(ExecutorTaskStopRequested())
            assert (await after.settled()).phase is ExecutorTaskPhase.STOPPED
        finally:
            await executor.stop()


async def test_an_executor_is_alive_by_its_lease(tmp_path: Path) -> None:
    async with own_server(tmp_path / "nats") as (_, nc, log):
        settings = Settings(data_dir=tmp_path, namespace="outage")
        settings = replace(settings, executor=replace(settings.executor, driver="noop", labels={"disk": "fast"}))
        board = await open_leases(nc, "outage_executors", seconds=3)
        executor = make_executor(settings, nc, log, PosixObjects(tmp_path), board, Keyring())
        async with board.watching() as watch:
            await executor.start()
            held = await anext(watch)
            assert (held.key, held.what) == (executor.id, "held")
            assert b'"disk":"fast"' in held.value
            await board.delete(executor.id)  # as the scheduler does when a user deletes it
            assert (await anext(watch)).what == "released"
            assert (await anext(watch)).what == "held"
            stopping = asyncio.create_task(executor.stop())
            assert (await anext(watch)).what == "released"
            await stopping

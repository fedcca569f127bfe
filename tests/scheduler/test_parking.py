"""A commit that cannot be read, applied or stored affects no other aggregate, and can be retried after a fix."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import orjson
import pytest

from runstream.commits import Head
from runstream.database import Database, Transaction
from runstream.database.freshness import channel_of
from runstream.database.run_lists import RunQuery, list_runs
from runstream.errors import BadRequestError
from runstream.events.executor_task import ExecutorTaskPhase, ExecutorTaskStepFinished
from runstream.ids import executor_task_id, new_id, run_task_id
from runstream.projections.parked import list_parked, request_retry
from runstream.subjects import Address
from runstream.timers import open_timers
from runstream.upcasters import UPCASTERS
from tests.domain.world import START, config, task
from tests.factories import run_created
from tests.servers import Servers

from .standing import FakeExecutor, running, standing

T = TypeVar("T")
ONE = config(task("a"))
GROUP = "/project/p/branch/main"


async def until(database: Database, read: Callable[[Transaction], Awaitable[T]], enough: Callable[[T], bool]) -> T:
    """What is read once it is enough; looked at again with every batch that is projected."""
    connection = await database.connect()
    projected = asyncio.Event()
    try:
        await connection.add_listener(channel_of(database.schema), lambda *_: projected.set())
        while True:
            projected.clear()
            async with database.snapshot() as transaction:
                found = await read(transaction)
            if enough(found):
                return found
            await projected.wait()
    finally:
        await connection.close()


async def phases(transaction: Transaction) -> dict[str, str]:
    page = await list_runs(transaction, RunQuery())
    return {run.id: run.phase.value for run in page.runs}


async def test_an_unknown_event_parks_its_run_alone_until_it_can_be_read(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with standing(servers) as around:
        first = await around.create(ONE)
        address = Address(around.runs[first], "run", first)
        body = {
            "id": new_id(),
            "aggregate": address.aggregate,
            "version": 2,
            "time": "2026-01-01T00:00:00Z",
            "actor": "user:later",
            "cause": "",
            "events": [{"type": "RunPondered", "version": 1}],
        }
        await around.nats.jetstream().publish(around.log.subjects.of(address), orjson.dumps(body))
        async with running(await around.scheduler()), FakeExecutor(around, "e1").alive():
            other = await around.create(ONE, "/project/p/branch/dev")
            await until(around.database, phases, lambda found: found.get(other) == "finished")
            (parked, *behind) = await until(around.database, list_parked, bool)
            assert parked.aggregate == address.aggregate
            assert "RunPondered" in parked.reason
            assert all(entry.aggregate == address.aggregate for entry in behind)

            monkeypatch.setitem(UPCASTERS, ("RunPondered", 1), lambda _event: [{"type": "RunCancelled", "version": 1}])
            assert await request_retry(around.database) == 1 + len(behind)
            await until(around.database, phases, lambda found: found[first] == "cancelled")
            assert await until(around.database, list_parked, lambda found: not found) == ()


async def test_a_value_that_postgres_cannot_hold_is_parked(servers: Servers) -> None:
    async with standing(servers) as around:
        good = await around.create(ONE)
        partition = around.runs[good]
        bad = new_id()
        event = run_created("a\0b", GROUP, around.configs[good])
        commit = Head().next_commit(Address(partition, "run", bad), (event,), time=START, actor="user")
        position = await around.log.append(commit)
        later = await around.create(ONE, "/project/p/branch/dev")
        async with running(await around.scheduler()), FakeExecutor(around, "e1").alive():
            ended = await until(
                around.database, phases, lambda found: found.get(good) == found.get(later) == "finished"
            )
            assert bad not in ended
            parked = await until(around.database, list_parked, bool)
        assert (parked[0].aggregate, parked[0].position) == (f"run/{bad}", position)
        # Deciding does not wait for the projection: its task may have run before.
        its_task = executor_task_id(bad, run_task_id(bad, "a"))
        assert {entry.aggregate for entry in parked} <= {f"run/{bad}", f"task/{its_task}"}


HOSTILE = {
    "long": "".join(f"{n:x}" for n in range(9000)),
    "nul": "a\0b",
    "half a surrogate": "a\ud800b",
    "right to left": "\u202eevil\u2066",
    "control": "\x1b[2J\r\n",
}


async def test_hostile_texts_are_projected_or_parked_and_the_partition_goes_on(servers: Servers) -> None:
    async with standing(servers) as around:
        good = await around.create(ONE)
        partition, key = around.runs[good], around.configs[good]
        bad: dict[str, str] = {}
        for text in HOSTILE.values():
            for event in (
                run_created(text, GROUP, key),
                run_created("main", f"{GROUP}/{text}", key),
                run_created("main", GROUP, key, annotations={text: text}),
                run_created("main", GROUP, text),
                run_created("main", GROUP, key, setup_errors=(text,), request=text),
            ):
                run_id = new_id()
                commit = Head().next_commit(Address(partition, "run", run_id), (event,), time=START, actor="user")
                with contextlib.suppress(BadRequestError, TypeError, UnicodeError):  # it never comes into the log
                    await around.log.append(commit)
                    bad[run_id] = text
        later = await around.create(ONE, "/project/p/branch/dev")
        async with running(await around.scheduler()), FakeExecutor(around, "e1").alive():
            await until(around.database, phases, lambda found: found.get(later) == "finished")
            async with around.database.snapshot() as transaction:
                parked = {entry.aggregate for entry in await list_parked(transaction)}
                shown = await phases(transaction)
        assert all(f"run/{run_id}" in parked or run_id in shown for run_id in bad)
        assert len([run_id for run_id in bad if f"run/{run_id}" in parked]) >= 4


async def test_a_commit_about_an_unknown_step_parks_its_task_alone(servers: Servers) -> None:
    """Its timeout, which no one can deliver, is acknowledged; the executor leaves the commit out."""
    async with standing(servers) as around:
        executor = FakeExecutor(around, "e1")
        executor.idle = True
        async with running(await around.scheduler()), executor.alive():
            first = await around.create(ONE)
            partition = around.runs[first]
            task_id = executor_task_id(first, run_task_id(first, "a"))
            fold = await around.folded_until(partition, lambda fold: task_id in fold.executor_tasks)
            head = fold.executor_tasks[task_id].head
            address = Address(partition, "task", task_id, "e1")
            event = ExecutorTaskStepFinished(7, START, ExecutorTaskPhase.SUCCESS, 0)
            await around.log.append(head.next_commit(address, (event,), time=START, actor="executor:e1"))
            timers = await open_timers(around.nats, around.log.subjects.namespace)
            command = {"partition": partition, "task": task_id, "executor": "e1"}
            for key, payload in (("broken", b"no JSON"), ("unfit", orjson.dumps(command))):
                await timers.schedule(key, START, payload)
            executor.idle = False
            other = await around.create(ONE, "/project/p/branch/dev")
            await until(around.database, phases, lambda found: found.get(other) == "finished")
            parked = await until(around.database, list_parked, bool)
            assert parked[0].aggregate == f"task/{task_id}"
            stream = f"{around.log.subjects.namespace}_TIMERS"
            while (await around.nats.jetstream().stream_info(stream)).state.messages:
                continue  # each is acknowledged

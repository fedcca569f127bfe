"""Reading the log of a step while it is written, and across the moment when it becomes an object."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client as Nats

from runstream.commits import Head
from runstream.errors import ConflictError, Kind, NotExistError, RunstreamError, find
from runstream.events.executor_task import (
    ExecutorTaskLost,
    ExecutorTaskPhase,
    ExecutorTaskStarted,
    ExecutorTaskStepStarted,
)
from runstream.events.run import RunCancelled, RunRestarted
from runstream.ids import executor_task_id, new_id, run_task_id
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import open_log
from runstream.log_search import compile_query
from runstream.objects import paths
from runstream.steplogs.live import LiveLogs, stored_pieces, stream_of
from runstream.steplogs.log_index import LogIndexer, decode, encode
from runstream.steplogs.log_state import CUT_OFF
from runstream.steplogs.reader import StepLogReader
from runstream.subjects import Address, StepLogKey
from tests.executor.rig import Rig, Watched, rig, run_step, task_of
from tests.executor.test_life import appears
from tests.factories import run_created, task_kept
from tests.links import link

GATED = "mkfifo ~/gate; echo > ~/ready; {before}; cat ~/gate > /dev/null; {after}"


@dataclass(slots=True)
class Logs:
    """An executor with live logs, and a reader."""

    rig: Rig
    reader: StepLogReader
    nats: Nats
    namespace: str

    def key(self, task: Watched, step: int | None = 0) -> StepLogKey:
        return StepLogKey(
            task.address.partition, task.task.run_id, task.task.task, task.run_task_id, task.address.id, step
        )

    async def gated(self, before: str = "true", after: str = "true", *more: str) -> Watched:
        """A task whose first step waits between two commands until `let_on`."""
        steps = [run_step(GATED.format(before=before, after=after)), *map(run_step, more)]
        task = await self.rig.assign(task_of("task", *steps))
        await task.step_begun()
        await appears(self.rig.task_folder(task) / "home" / "ready")
        return task

    async def let_on(self, task: Watched) -> None:
        await asyncio.to_thread((self.rig.task_folder(task) / "home" / "gate").write_text, "go\n")

    async def published(self, task: Watched) -> None:
        """Wait until something of the log is in the stream."""
        subject = f"{self.namespace}.logs.{task.address.id}.0"
        found = await self.nats.subscribe(subject, max_msgs=1)
        if not [piece async for piece in stored_pieces(self.nats, f"{self.namespace}_LOGS", subject, 0)]:
            await found.next_msg(timeout=10)

    async def timed(self, task: Watched, *, follow: bool = False) -> list[tuple[bytes, int | None]]:
        """The lines of the log with their times."""
        parts = await self.reader.open_timed(self.key(task), follow=follow)
        data, times = b"", list[int | None]()
        async for part in parts:
            for span, time in part.spans():
                data += span
                times += [time] * len(span)
        lines = data.splitlines(keepends=True)
        return [
            (line, times[begin]) for line, begin in zip(lines, accumulate(map(len, lines), initial=0), strict=False)
        ]

    async def read(self, task: Watched, step: int | None = 0, *, follow: bool = False) -> str:
        chunks = await self.reader.open(self.key(task, step), follow=follow)
        return b"".join([chunk async for chunk in chunks]).decode()


def milliseconds() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


@contextlib.asynccontextmanager
async def logs(url: str, namespace: str, folder: Path) -> AsyncIterator[Logs]:
    nc = await nats.connect(url)
    try:
        async with (
            await open_log(nc, namespace, create=True, partitions=2) as log,
            rig(folder, log=log, nats=nc, namespace=namespace) as it,
        ):
            yield Logs(it, StepLogReader(nc, namespace, log, it.objects), nc, namespace)
    finally:
        await nc.close()


async def test_a_follower_gets_bytes_as_they_come(nats_url: str, namespace: str, tmp_path: Path) -> None:
    async with logs(nats_url, namespace, tmp_path) as it:
        task = await it.gated(after="echo later")
        chunks = await it.reader.open(it.key(task), follow=True)  # at once: nothing is written yet
        await it.let_on(task)
        assert await anext(chunks) == b"later\n"
        assert [chunk async for chunk in chunks] == []
        await task.settled()


async def test_a_follower_that_joins_late_gets_every_byte_once(nats_url: str, namespace: str, tmp_path: Path) -> None:
    async with logs(nats_url, namespace, tmp_path) as it:
        task = await it.gated("seq 1 20000", "seq 20001 40000")
        early = asyncio.create_task(it.read(task, follow=True))
        middle = await it.reader.open(it.key(task), follow=True)
        read = [await anext(middle)]
        assert read[0].startswith(b"1\n2\n")
        await it.let_on(task)
        read += [chunk async for chunk in middle]
        whole = "".join(f"{number}\n" for number in range(1, 40001))
        assert b"".join(read).decode() == whole
        assert await early == whole
        await task.settled()
        assert await it.read(task) == await it.read(task, follow=True) == whole


async def test_times_of_lines_are_the_same_live_and_stored(nats_url: str, namespace: str, tmp_path: Path) -> None:
    async with logs(nats_url, namespace, tmp_path) as it:
        begun = milliseconds()
        task = await it.gated("seq 1 2500", "echo end")
        await it.published(task)
        live = await it.timed(task)
        assert (await it.reader.lines(it.key(task), -1, 5)).lines[0].data + b"\n" == live[-1][0]
        query = compile_query("^2500$", regex=True, ignore_case=False)
        assert [line.number for line in (await it.reader.search(it.key(task), 0, 5, query)).lines] == [
            number for number, (line, _) in enumerate(live) if line == b"2500\n"
        ]
        assert await it.reader.since(it.key(task), begun) == 0
        assert await it.reader.stored_size(it.key(task)) is None
        following = asyncio.create_task(it.timed(task, follow=True))
        await it.let_on(task)
        followed = await following
        await task.settled()
        stored = await it.timed(task)
        assert (stored, stored[: len(live)]) == (followed, live)
        assert b"".join(data for data, _ in stored).decode() == await it.read(task)
        times = [time for _, time in stored if time is not None]
        assert len(times) == len(stored)
        assert begun <= times[0] <= times[-1] <= milliseconds()
        for first in (2499, -2):
            page = await it.reader.lines(it.key(task), first, 5)
            assert [(line.number, line.data + b"\n", line.time) for line in page.lines] == [
                (2499, *stored[2499]),
                (2500, *stored[2500]),
            ]
            found = await it.reader.search(it.key(task), max(first, 0), 5, query)
            assert [(line.number, line.data + b"\n", line.time) for line in found.lines] == [(2499, *stored[2499])]
        begins = list(accumulate((len(line) for line, _ in stored), initial=0))
        for time in {times[0], times[1250], times[-1]}:
            assert await it.reader.since(it.key(task), time) == begins[times.index(time)]
        end = begins[-1]
        assert await it.reader.since(it.key(task), times[-1] + 1) == await it.reader.stored_size(it.key(task)) == end
        index = decode(await it.rig.stored(paths.log_index(task.run_task_id, 0)))
        assert (index.lines, list(index.offsets)) == (2501, [3893, 8893])


async def test_a_log_without_a_usable_index_has_no_times(nats_url: str, namespace: str, tmp_path: Path) -> None:
    async with logs(nats_url, namespace, tmp_path) as it:
        task = await it.rig.run(run_step("echo hello"))
        path = paths.log_index(task.run_task_id, 0)
        good = await it.rig.stored(path)
        await it.rig.objects.delete(path)
        assert await it.timed(task) == [(b"hello\n", None)]
        of_another = LogIndexer()
        of_another.add(b"hello", 1)
        for bad in (b"", good[:-1], bytes(4 << 20), encode(of_another.index())):
            await it.rig.objects.write_all({path: bad})
            assert await it.timed(task) == [(b"hello\n", None)]
        await it.rig.objects.write_all({path: good})
        assert await it.timed(task) != [(b"hello\n", None)]


async def test_the_last_lines_of_a_log_begin_at_one_place_live_and_stored(
    nats_url: str, namespace: str, tmp_path: Path
) -> None:
    async with logs(nats_url, namespace, tmp_path) as it:
        task = await it.gated("seq 1 20000")
        await it.published(task)

        async def last(lines: int) -> str:
            begin = await it.reader.tail(it.key(task), lines)
            chunks = await it.reader.open(it.key(task), follow=False, offset=begin)
            return b"".join([chunk async for chunk in chunks]).decode()

        follower = await it.reader.open(it.key(task), follow=True)
        read = b""
        while not read.endswith(b"\n20000\n"):
            read += await anext(follower)
        assert await last(2) == "19999\n20000\n"
        assert len(await last(30_000)) == len(read)
        await it.let_on(task)
        assert [chunk async for chunk in follower] == []
        await task.settled()
        assert await last(2) == "19999\n20000\n"
        assert len(await last(30_000)) == len(read)


async def test_there_is_no_seam_where_the_live_log_becomes_an_object(
    nats_url: str, namespace: str, tmp_path: Path
) -> None:
    async with logs(nats_url, namespace, tmp_path) as it:
        task = await it.gated("seq 1 1000", "seq 1001 300000")
        slow = await it.reader.open(it.key(task), follow=True)
        read = [await anext(slow)]
        await it.let_on(task)
        await task.settled()
        await it.rig.executor.stop()  # type: ignore[union-attr]  # and with it the live log is gone
        read += [chunk async for chunk in slow]
        assert b"".join(read).decode() == "".join(f"{number}\n" for number in range(1, 300001))


async def test_bytes_that_the_live_log_lacks_come_from_the_object(
    nats_url: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.steplogs.live.PENDING_BYTES", 10_000)
    async with logs(nats_url, namespace, tmp_path) as it:
        task = await it.gated("seq 1 100", "seq 101 200000")
        follower = await it.reader.open(it.key(task), follow=True)
        read = [await anext(follower)]
        await it.let_on(task)
        read += [chunk async for chunk in follower]
        whole = "".join(f"{number}\n" for number in range(1, 200001))
        assert b"".join(read).decode() == whole


async def test_the_beginning_of_a_live_log_can_be_gone(
    nats_url: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.steplogs.live.PENDING_BYTES", 10_000)
    async with logs(nats_url, namespace, tmp_path) as it:
        task = await it.gated("seq 1 200000; echo > ~/written")
        await appears(it.rig.task_folder(task) / "home" / "written")
        follower = asyncio.create_task(it.read(task, follow=True))
        await it.published(task)
        with pytest.raises(ConflictError, match="beginning of the log"):
            await it.read(task)
        await it.let_on(task)
        assert await follower == "".join(f"{number}\n" for number in range(1, 200001))


async def test_without_follow_one_gets_what_there_is_now(nats_url: str, namespace: str, tmp_path: Path) -> None:
    async with logs(nats_url, namespace, tmp_path) as it:
        task = await it.gated("echo now", "echo later")
        follower = await it.reader.open(it.key(task), follow=True)
        assert await anext(follower) == b"now\n"
        assert await it.read(task) == "now\n"
        assert "Preparing the task" in await it.read(task, None)
        await it.let_on(task)
        await task.settled()
        assert await it.read(task) == "now\nlater\n"


async def test_a_log_that_is_not_there(nats_url: str, namespace: str, tmp_path: Path) -> None:
    async with logs(nats_url, namespace, tmp_path) as it:
        task = await it.gated("true", "exit 1", "echo never")
        for step in (1, 2, 9):
            with pytest.raises(NotExistError, match="log doesn't exist") as raised:
                await it.read(task, step)
            assert raised.value.code == "logDoesNotExist"
        for step in (2, 9):
            with pytest.raises(NotExistError):
                await it.reader.open(it.key(task, step), follow=True)
        unknown = StepLogKey(0, new_id(), "t", new_id(), new_id(), 0)
        for follow in (True, False):
            with pytest.raises(NotExistError):
                await it.reader.open(unknown, follow=follow)
        waiting = await it.reader.open(it.key(task, 1), follow=True)
        await it.let_on(task)
        assert [chunk async for chunk in waiting] == []  # its step never ran
        await task.settled()
        for follow in (True, False):
            with pytest.raises(NotExistError):
                await it.reader.open(it.key(task, 1), follow=follow)
        await it.rig.objects.delete(paths.step_log(task.run_task_id, 0))
        with pytest.raises(NotExistError):
            await it.reader.open(it.key(task), follow=True)


async def test_following_a_task_that_is_not_assigned_yet(nats_url: str, namespace: str, tmp_path: Path) -> None:
    async with logs(nats_url, namespace, tmp_path) as it:
        run_id, log = new_id(), it.rig.log
        partition = int(run_id[:8], 16) % log.partitions
        run_task = run_task_id(run_id, "task")
        key = StepLogKey(partition, run_id, "task", run_task, executor_task_id(run_id, run_task), 0)
        created = run_created(group="/project/p/branch/b")
        address = Address(partition, "run", run_id)
        commit = Head().next_commit(address, (created,), time=datetime.now(UTC), actor="test")
        position = await log.append(commit)
        with pytest.raises(NotExistError):
            await it.reader.open(key, follow=False)
        follower = await it.reader.open(key, follow=True)
        cancelled = await it.reader.open(StepLogKey(partition, run_id, "other", new_id(), new_id(), 0), follow=True)
        task = await it.rig.assign(task_of("task", run_step("echo hello")), run_id=run_id)
        assert b"".join([chunk async for chunk in follower]) == b"hello\n"
        await task.settled()
        end = Head(1, position.sequence).next_commit(address, (RunCancelled(""),), time=datetime.now(UTC), actor="test")
        waiting = asyncio.create_task(anext(cancelled, b"ended"))
        await log.append(end)
        assert await waiting == b"ended"


async def test_the_log_of_a_task_that_a_restart_kept(nats_url: str, namespace: str, tmp_path: Path) -> None:
    """It is the log of the earlier run; a task that never ran has none, and readers do not wait for one."""
    async with logs(nats_url, namespace, tmp_path) as it:
        earlier, run_id = await it.gated("echo once"), new_id()
        await it.let_on(earlier)
        await earlier.settled()
        partition, made = earlier.address.partition, earlier.address.id
        kept = (
            task_kept("task", earlier.run_task_id, made),
            task_kept("other", new_id()),
        )
        events = (
            run_created(group="/project/p/branch/b"),
            RunRestarted(earlier.task.run_id, "failed", (), descendants=False, fresh=False, kept=kept),
        )
        commit = Head().next_commit(Address(partition, "run", run_id), events, time=datetime.now(UTC), actor="test")
        await it.rig.log.append(commit)
        for follow in (True, False):
            shared = StepLogKey(partition, run_id, "task", earlier.run_task_id, made, 0)
            assert b"".join([chunk async for chunk in await it.reader.open(shared, follow=follow)]) == b"once\n"
            with pytest.raises(NotExistError, match="log doesn't exist"):
                await it.reader.open(StepLogKey(partition, run_id, "other", kept[1].id, "", 0), follow=follow)


async def test_a_follower_of_a_lost_task_ends(nats_url: str, namespace: str, tmp_path: Path) -> None:
    async with logs(nats_url, namespace, tmp_path) as it:
        task = await it.gated("echo seen")
        follower = await it.reader.open(it.key(task), follow=True)
        assert await anext(follower) == b"seen\n"
        await task.say(ExecutorTaskLost(datetime.now(UTC), "gone"))
        rest = b"".join([chunk async for chunk in follower]).decode()
        assert rest in (f"{CUT_OFF}\n", "The task was ended: it was declared lost.\n")
        assert task.task.phase is not ExecutorTaskPhase.SUCCESS


async def test_the_log_of_a_lost_executor_has_what_it_had_published(
    nats_url: str, namespace: str, tmp_path: Path
) -> None:
    async with logs(nats_url, namespace, tmp_path) as it:
        never = await it.rig.assign(task_of("never", run_step("true")), executor_id=new_id())
        task = await it.rig.assign(task_of("task", run_step("true")), executor_id=new_id())
        await task.say(ExecutorTaskStarted(datetime.now(UTC)), ExecutorTaskStepStarted(0, datetime.now(UTC)))
        live = LiveLogs(it.nats, it.namespace)
        await live.start()
        live.log(task.address.id, 0).write(b"compiling\nlinki")
        await it.published(task)
        follower = await it.reader.open(it.key(task), follow=True)
        assert await anext(follower) == b"compiling\nlinki"
        for one in (task, never):
            await one.say(ExecutorTaskLost(datetime.now(UTC), "gone"))
        assert b"".join([chunk async for chunk in follower]).decode() == f"\n{CUT_OFF}\n"
        for follow in (False, True):
            assert await it.read(task, follow=follow) == f"compiling\nlinki\n{CUT_OFF}\n"
            with pytest.raises(NotExistError) as raised:
                await it.read(never, follow=follow)
            assert "stored when that executor starts again" in (raised.value.hint or "")
        tail = await it.reader.open(it.key(task), follow=False, offset=10)
        assert b"".join([chunk async for chunk in tail]).decode() == f"linki\n{CUT_OFF}\n"
        await live.stop()


async def test_an_unreachable_nats_is_a_clear_error(nats_url: str, namespace: str, tmp_path: Path) -> None:
    async with logs(nats_url, namespace, tmp_path) as it:
        task = await it.gated("echo seen")
        closed = await nats.connect(nats_url)
        reader = StepLogReader(closed, namespace, it.rig.log, it.rig.objects)
        await closed.close()
        for follow in (False, True):
            with pytest.raises(RunstreamError) as raised:
                async for _ in await reader.open(it.key(task), follow=follow):
                    pass
            remote = find(raised.value, Kind.REMOTE)
            assert remote is not None
            assert (remote.code, "NATS" in remote.message) == ("natsUnreachable", True)
        await it.let_on(task)


async def test_the_live_log_is_removed_when_it_is_an_object(nats_url: str, namespace: str, tmp_path: Path) -> None:
    async with logs(nats_url, namespace, tmp_path) as it:
        task = await it.gated("echo one")
        await it.let_on(task)
        await task.settled()
        await it.rig.executor.stop()  # type: ignore[union-attr]
        info = await it.nats.jetstream().stream_info(f"{namespace}_LOGS")
        assert info.state.bytes == 0


async def test_a_lost_stream_is_made_again(nats_url: str, namespace: str) -> None:
    nc = await nats.connect(nats_url)
    try:
        live = LiveLogs(nc, namespace)
        await live.start()
        await nc.jetstream().delete_stream(f"{namespace}_LOGS")  # as a restart of NATS does
        while True:
            log = live.log(new_id(), 0)
            log.end()
            with contextlib.suppress(nats.js.errors.NotFoundError):
                if (await nc.jetstream().stream_info(f"{namespace}_LOGS")).state.messages:
                    break
        await live.stop()
    finally:
        await nc.close()


async def test_live_logs_start_while_nats_is_away_and_are_published_when_it_is_back(
    nats_url: str, namespace: str
) -> None:
    async with link(nats_url) as way, nats_connection(way.url) as nc, nats_connection(nats_url) as other:
        way.break_off()
        while nc.is_connected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # sleeps: until the client library notices
        live = LiveLogs(nc, namespace)
        await live.start()
        log = live.log(new_id(), 0)
        log.write(b"while it was away")
        log.end()
        way.mend()
        while not (found := [piece async for piece in stored_pieces(other, stream_of(namespace), log.subject, 0)]):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # sleeps: publishing sends no event
        assert [piece.data for piece in found] == [b"while it was away"]
        await live.stop()

"""The smallest program of this architecture: the work that any system with the same guarantees must do for a run.

    publisher -> log -> scheduler: read a batch, fold it, decide, append; project it into Postgres meanwhile
                 log -> executor: read what is assigned, append that it started, then how it finished
                 log -> observer: the run has finished

The promises: an append is acknowledged once it is on disk, names the sequence that it was based on, and carries an id
derived from its cause; rows and checkpoint change in one transaction, compared and set; a task begins only after its
start is in the log. A run makes the same commits and events as in the product, one stream a partition. Validation,
telemetry, leases, fairness, timeouts and recovery are left out: any fault ends the process. Only libraries are
imported, so that nothing here gets faster or slower with the product.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import itertools
import os
import secrets
import sys
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg
import nats
import orjson
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

PARTITIONS = 4
EXECUTOR = "e1"
PLAIN_COMMITS = 8
"""Up to so many commits are published side by side; more are one atomic batch, which takes 2.6 ms and one sync."""
BATCH_COMMITS = 1000
WINDOW = 1000
"""Maximum number of messages on their way to a reader."""
ANSWER_SECONDS = 20.0
"""How long a group of commits may take to be acknowledged."""
PACE_SECONDS = 0.1
"""Minimum interval between transactions of one partition."""
_STREAM = {"storage": "file", "discard": "new", "deny_delete": True, "deny_purge": True}
_SCHEMA = """
CREATE TABLE checkpoints (partition int PRIMARY KEY, sequence bigint NOT NULL);
CREATE TABLE runs (id text PRIMARY KEY, partition int, version int, position bigint, counter int, "group" text,
    name text, phase text, result text, enqueue_time timestamptz, start_time timestamptz, end_time timestamptz);
CREATE INDEX ON runs ("group", counter);
CREATE INDEX ON runs (partition) WHERE phase <> 'finished';
CREATE TABLE tasks (id text PRIMARY KEY, partition int, version int, position bigint, run_id text, name text,
    executor_id text, phase text, steps jsonb, start_time timestamptz, end_time timestamptz);
CREATE INDEX ON tasks (run_id);
"""
_MOVE = "UPDATE checkpoints SET sequence = $3 WHERE partition = $1 AND sequence = $2 RETURNING sequence"
_RUNS = """
INSERT INTO runs SELECT * FROM json_populate_recordset(NULL::runs, $1)
ON CONFLICT (id) DO UPDATE SET (version, position, counter, phase, result, start_time, end_time) = (excluded.version,
    excluded.position, excluded.counter, excluded.phase, excluded.result, excluded.start_time, excluded.end_time)
"""
_TASKS = """
INSERT INTO tasks SELECT * FROM json_populate_recordset(NULL::tasks, $1)
ON CONFLICT (id) DO UPDATE SET (version, position, phase, steps, start_time, end_time) = (excluded.version,
    excluded.position, excluded.phase, excluded.steps, excluded.start_time, excluded.end_time)
"""

Event: TypeAlias = dict[str, Any]


async def create(nats_url: str, database_url: str, name: str) -> None:
    """Create the streams and the tables; `name` is that of the subjects, the streams and the schema."""
    async with connected(nats_url) as client:
        for partition in range(PARTITIONS):
            stream = {"name": f"{name}-{partition}", "subjects": [f"{name}.{partition}.>"], "num_replicas": 1}
            config = stream | _STREAM | {"allow_atomic": True, "allow_direct": True}
            await _ask(client, f"STREAM.CREATE.{name}-{partition}", config)
    connection = await asyncpg.connect(database_url)
    await connection.execute(f'CREATE SCHEMA "{name}"; SET search_path TO "{name}"; {_SCHEMA}')
    await connection.executemany("INSERT INTO checkpoints VALUES ($1, 0)", [(p,) for p in range(PARTITIONS)])
    await connection.close()


@asynccontextmanager
async def connected(url: str, on_closed: Callable[[], Awaitable[None]] | None = None) -> AsyncIterator[Client]:
    """A connection to NATS."""
    client = await nats.connect(
        url, allow_reconnect=False, closed_cb=on_closed, pending_size=32 << 20, skip_subject_validation=True
    )
    try:
        yield client
    finally:
        await client.close()


async def _ask(client: Client, subject: str, body: object) -> Any:
    answer = orjson.loads((await client.request(f"$JS.API.{subject}", orjson.dumps(body), timeout=10)).data)
    if "error" in answer:
        raise RuntimeError(f"{subject}: {answer['error']['description']}")
    return answer


@dataclass(slots=True, eq=False)
class Pending:
    """A commit on its way."""

    subject: str
    body: bytes
    headers: dict[str, str]
    stored: asyncio.Future[int]


class Log:
    """Appends with group commit, and reads in order; `run` sends what is appended."""

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self._client = client
        self._inbox = client.new_inbox()
        self._tokens = itertools.count()
        self._acks: dict[str, asyncio.Future[int]] = {}
        self._queues: list[asyncio.Queue[Pending]] = [asyncio.Queue() for _ in range(PARTITIONS)]

    async def run(self) -> None:
        """Send what is appended until cancelled. Raises RuntimeError for an append that is refused, or not answered."""
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_ack)
        async with asyncio.TaskGroup() as group:
            for queue in self._queues:
                group.create_task(self._commit(queue))

    def append(
        self, partition: int, aggregate: str, version: int, expected: int, events: Sequence[Event], cause: str = ""
    ) -> asyncio.Future[int]:
        """Append a commit decided on `expected`, the aggregate's last sequence; the future gives its own."""
        identity = hashlib.sha256(f"{cause} {aggregate} {version}".encode()).hexdigest()[:32]
        commit = {"id": identity, "aggregate": aggregate, "version": version, "time": now(), "cause": cause}
        headers = {"Nats-Msg-Id": identity, "Nats-Expected-Last-Subject-Sequence": str(expected)}
        prefix = f"{self.name}.{partition}"
        subject = f"{prefix}.{aggregate.replace('/', '.')}"
        if aggregate.startswith("task/"):  # an executor filters by its id; no other executor may have the same task
            subject = f"{prefix}.task.{EXECUTOR}.{aggregate[5:]}"
            if expected == 0:
                headers["Nats-Expected-Last-Subject-Sequence-Subject"] = f"{prefix}.task.*.{aggregate[5:]}"
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        body = orjson.dumps({**commit, "actor": self.name, "events": events})
        self._queues[partition].put_nowait(Pending(subject, body, headers, stored))
        return stored

    async def _commit(self, queue: asyncio.Queue[Pending]) -> None:
        """Send one group after the other; the next one gathers meanwhile."""
        while True:
            group = [await queue.get()]
            while not queue.empty() and len(group) < BATCH_COMMITS:
                group.append(queue.get_nowait())
            async with asyncio.timeout(ANSWER_SECONDS):
                sequences = await (self._batch(group) if len(group) > PLAIN_COMMITS else self._side_by_side(group))
            for pending, sequence in zip(group, sequences, strict=True):
                pending.stored.set_result(sequence)

    async def _side_by_side(self, group: Sequence[Pending]) -> Sequence[int]:
        return await asyncio.gather(*[await self._publish(each, each.headers) for each in group])

    async def _batch(self, group: Sequence[Pending]) -> Sequence[int]:
        batch = {"Nats-Batch-Id": secrets.token_hex(8)}
        for number, each in enumerate(group[:-1], 1):
            headers = each.headers | batch | {"Nats-Batch-Sequence": str(number)}
            await self._client.publish(each.subject, each.body, headers=headers)
        end = {"Nats-Batch-Sequence": str(len(group)), "Nats-Batch-Commit": "1"}
        last = await (await self._publish(group[-1], group[-1].headers | batch | end))
        return range(last - len(group) + 1, last + 1)

    async def _publish(self, pending: Pending, headers: dict[str, str]) -> asyncio.Future[int]:
        token = str(next(self._tokens))
        self._acks[token] = acknowledged = asyncio.get_running_loop().create_future()
        await self._client.publish(pending.subject, pending.body, reply=f"{self._inbox}.{token}", headers=headers)
        return acknowledged

    async def _on_ack(self, message: Msg) -> None:
        answer = orjson.loads(message.data)
        acknowledged = self._acks.pop(message.subject.rpartition(".")[2])
        if "error" in answer:
            acknowledged.set_exception(RuntimeError(answer["error"]["description"]))
        else:
            acknowledged.set_result(answer["seq"])

    async def read(
        self, partition: int, subjects: str, after: int = 0
    ) -> AsyncGenerator[list[tuple[int, bytes]], None]:
        """Read a partition behind a sequence, as far as its subjects match: sequence and body, in batches."""
        stream, consumer, inbox = f"{self.name}-{partition}", secrets.token_hex(8), self._client.new_inbox()
        came: list[Msg] = []
        some = asyncio.Event()

        async def receive(message: Msg) -> None:
            came.append(message)
            some.set()

        subscription = await self._client.subscribe(inbox, cb=receive)
        config = {"name": consumer, "ack_policy": "none", "mem_storage": True, "num_replicas": 1}
        config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": after + 1}
        config |= {"filter_subjects": [f"{self.name}.{partition}.{subjects}"]}
        await _ask(self._client, f"CONSUMER.CREATE.{stream}.{consumer}", {"stream_name": stream, "config": config})
        asked = 0
        try:
            while True:
                if asked < WINDOW // 2:
                    body = orjson.dumps({"batch": WINDOW - asked})
                    await self._client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", body, reply=inbox)
                    asked = WINDOW
                await some.wait()
                some.clear()
                # The reply of a message tells its place: `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>…`
                batch = [(int(each.reply.split(".")[5]), each.data) for each in came if each.reply]
                came.clear()
                asked -= len(batch)
                if batch:
                    yield batch
        finally:
            await subscription.unsubscribe()

    async def end(self, partition: int) -> int:
        """Return the last sequence of a partition."""
        sequence: int = (await _ask(self._client, f"STREAM.INFO.{self.name}-{partition}", {}))["state"]["last_seq"]
        return sequence


def new_run(log: Log, number: int, group: str, name: str, tasks: Sequence[str]) -> tuple[str, asyncio.Future[int]]:
    """Append a run whose tasks follow each other; return its id, and a future of its acknowledgement."""
    run_id = derived("run", secrets.token_hex(8), str(number))
    created = {"type": "RunCreated", "version": 2, "group": group, "name": name, "tasks": tasks, "annotations": {}}
    partition = zlib.crc32(group.rpartition("/branch/")[0].encode()) % PARTITIONS
    return run_id, log.append(partition, f"run/{run_id}", 1, 0, [created])


async def finished(log: Log, partition: int, after: int) -> AsyncIterator[str]:
    """Yield the ids of runs as they finish."""
    async for batch in log.read(partition, "run.*", after):
        for _, body in batch:
            if b'"RunFinished"' in body:
                yield orjson.loads(body)["aggregate"].removeprefix("run/")


@dataclass(slots=True)
class Run:
    """A run that has not finished: the columns of its row, then what decisions rest on."""

    id: str
    partition: int
    version: int
    position: int
    counter: int
    group: str
    name: str
    phase: str
    result: str
    enqueue_time: str
    start_time: str | None = None
    end_time: str | None = None
    tasks: Sequence[str] = ()
    assigned: int = 0
    ended: int = 0
    ending: bool = False


@dataclass(slots=True)
class Task:
    """A task at the executor: the columns of its row."""

    id: str
    partition: int
    version: int
    position: int
    run_id: str
    name: str
    executor_id: str
    phase: str
    steps: list[Event]
    start_time: str | None = None
    end_time: str | None = None


@dataclass(slots=True)
class Decision:
    """What one run needs now: a commit of its own, and a task to assign."""

    run: Run
    cause: str
    own: list[Event] = field(default_factory=list)
    assign: str = ""


class Scheduler:
    """Schedules and projects one partition."""

    def __init__(self, log: Log, database_url: str, partition: int) -> None:
        self._log = log
        self._database_url = database_url
        self._partition = partition
        self._runs: dict[str, Run] = {}
        self._tasks: dict[str, Task] = {}
        self._counters: dict[str, int] = {}
        self._changed: dict[str, Run | Task] = {}
        self._position = 0
        self._some = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled; a batch is read while decisions and rows of the one before are on their way."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._project())
            async for batch in self._log.read(self._partition, ">"):
                touched: dict[str, str] = {}
                for sequence, body in batch:
                    commit = orjson.loads(body)
                    touched[self._evolve(sequence, commit)] = commit["id"]
                self._position = batch[-1][0]
                self._some.set()
                runs = [(self._runs[run_id], cause) for run_id, cause in touched.items() if run_id in self._runs]
                if decisions := [made for run, cause in runs if (made := self._decide(run, cause))]:
                    group.create_task(self._append(decisions))

    def _evolve(self, sequence: int, commit: dict[str, Any]) -> str:
        """Fold a commit; return the id of its run."""
        kind, _, key = commit["aggregate"].partition("/")
        at = commit["time"]
        state = self._tasks.get(key) if kind == "task" else self._runs.get(key)
        for event in commit["events"]:
            match state, event["type"]:
                case None, "RunCreated":
                    group, name = event["group"], event["name"]
                    state = Run(key, self._partition, 1, sequence, 0, group, name, "queued", "unknown", at)
                    state.tasks = event["tasks"]
                    self._runs[key] = state
                case None, "ExecutorTaskAssigned":
                    run_id, name, executor = event["run_id"], event["task"], event["executor_id"]
                    state = Task(key, self._partition, 1, sequence, run_id, name, executor, "not_started", [])
                    self._tasks[key] = state
                case Run(), "RunNumbered":
                    state.counter = event["counter"]
                case Run(), "RunStarted":
                    state.phase, state.start_time = "running", at
                case Run(), "RunResultSet":
                    state.result = event["result"]
                case Run(), "RunFinished":
                    state.phase, state.end_time = "finished", at
                    del self._runs[key]
                case Task(), "ExecutorTaskStarted":
                    state.phase, state.start_time = "running", at
                case Task(), "ExecutorTaskStepStarted":
                    state.steps.append({"start": event["at"]})
                case Task(), "ExecutorTaskStepFinished":
                    state.steps[event["step"]] |= {"phase": event["phase"], "end": event["at"]}
                case Task(), "ExecutorTaskFinished":
                    state.phase, state.end_time = event["phase"], at
                    self._runs[state.run_id].ended += 1
                    del self._tasks[key]
        if state is None:
            raise RuntimeError(f"{commit['aggregate']} begins with version {commit['version']}")
        state.version, state.position = commit["version"], sequence
        self._changed[key] = state
        return state.run_id if isinstance(state, Task) else key

    def _decide(self, run: Run, cause: str) -> Decision | None:
        """Decide what the run needs; that counts at once, so that nothing is decided twice before it is read."""
        decision = Decision(run, cause)
        if not run.assigned:
            root = run.group.rpartition("/branch/")[0]
            self._counters[root] = run.counter = self._counters.get(root, 0) + 1
            decision.own = [{"type": "RunNumbered", "version": 1, "counter": run.counter}]
            decision.own.append({"type": "RunStarted", "version": 1})
        if run.ended == len(run.tasks):
            if run.ending:
                return None
            run.ending = True
            decision.own = [{"type": "RunResultSet", "version": 1, "result": "success"}]
            decision.own += [{"type": "RunFinished", "version": 1}, {"type": "RunArchived", "version": 1}]
        elif run.ended == run.assigned:
            decision.assign = run.tasks[run.assigned]
            run.assigned += 1
        else:
            return None
        return decision

    async def _append(self, decisions: Sequence[Decision]) -> None:
        """The runs' own commits first, then what rests on them."""
        await asyncio.gather(*[self._own(each) for each in decisions if each.own])
        await asyncio.gather(*[self._assignment(each) for each in decisions if each.assign])

    def _own(self, decision: Decision) -> asyncio.Future[int]:
        run = decision.run
        aggregate, version = f"run/{run.id}", run.version + 1
        return self._log.append(self._partition, aggregate, version, run.position, decision.own, decision.cause)

    def _assignment(self, decision: Decision) -> asyncio.Future[int]:
        run, name = decision.run, decision.assign
        event = {"type": "ExecutorTaskAssigned", "version": 2, "run_id": run.id, "task": name, "attempt": 1}
        event |= {"executor_id": EXECUTOR, "group": run.group, "counter": run.counter, "steps": 1, "timeout": 0}
        aggregate = f"task/{derived(run.id, name)}"
        return self._log.append(self._partition, aggregate, 1, 0, [event], decision.cause)

    async def _project(self) -> None:
        """Write what changed, and move the checkpoint, in one transaction; what changes meanwhile is the next one."""
        connection = await asyncpg.connect(self._database_url, server_settings={"search_path": self._log.name})
        try:
            await self._write_to(connection)
        finally:
            connection.terminate()

    async def _write_to(self, connection: asyncpg.Connection) -> None:
        before = 0
        while True:
            await self._some.wait()
            self._some.clear()
            changed, self._changed, after = self._changed, {}, self._position
            runs = orjson.dumps([row for row in changed.values() if isinstance(row, Run)]).decode()
            tasks = orjson.dumps([row for row in changed.values() if isinstance(row, Task)]).decode()
            async with connection.transaction():
                await connection.execute("SET LOCAL synchronous_commit = off")  # it can be made again from the log
                if await connection.fetchval(_MOVE, self._partition, before, after) is None:
                    raise RuntimeError(f"another scheduler has moved the checkpoint of partition {self._partition}")
                await connection.execute(_RUNS, runs)
                await connection.execute(_TASKS, tasks)
            before = after
            await asyncio.sleep(PACE_SECONDS)


async def schedule(log: Log, database_url: str) -> None:
    """Be the scheduler of all partitions."""
    async with asyncio.TaskGroup() as group:
        for partition in range(PARTITIONS):
            group.create_task(Scheduler(log, database_url, partition).run())


async def execute(log: Log, _database_url: str = "") -> None:
    """Be the executor: tasks do nothing, and succeed at once."""
    async with asyncio.TaskGroup() as group:
        for partition in range(PARTITIONS):
            group.create_task(_execute(log, partition))


async def _execute(log: Log, partition: int) -> None:
    async with asyncio.TaskGroup() as group:
        async for batch in log.read(partition, f"task.{EXECUTOR}.*"):
            for sequence, body in batch:
                commit = orjson.loads(body)
                if commit["version"] == 1:
                    group.create_task(_work(log, partition, sequence, commit))


async def _work(log: Log, partition: int, assigned: int, commit: dict[str, Any]) -> None:
    aggregate, cause = commit["aggregate"], commit["id"]
    event: Event = {"type": "ExecutorTaskStarted", "version": 1, "at": now()}
    started = await log.append(partition, aggregate, 2, assigned, [event], cause)
    at, success = now(), {"version": 1, "phase": "success"}
    events: list[Event] = [{"type": "ExecutorTaskSetupFinished", "at": at, **success}]
    events.append({"type": "ExecutorTaskLogLost", "version": 1, "step": None})
    for step in range(commit["events"][0]["steps"]):
        events.append({"type": "ExecutorTaskStepStarted", "version": 1, "step": step, "at": at})
        events.append({"type": "ExecutorTaskStepFinished", "step": step, "at": at, "exit_status": 0, **success})
        events.append({"type": "ExecutorTaskLogLost", "version": 1, "step": step})
    events.append({"type": "ExecutorTaskFinished", "at": at, "error": "", **success})
    await log.append(partition, aggregate, 3, started, events, cause)


def now() -> str:
    """Return the time, in UTC."""
    return datetime.now(UTC).isoformat()


def derived(*parts: str) -> str:
    """Return an id that depends on these parts alone."""
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]


PROCESSES: dict[str, Callable[[Log, str], Awaitable[None]]] = {"scheduler": schedule, "executor": execute}


async def _end() -> None:
    os._exit(1)


async def _main(part: str, name: str) -> None:
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # hardly any cycles are made; Python's own threshold costs a fifth of the time
    async with connected(os.environ["NATS_URL"], _end) as client, asyncio.TaskGroup() as group:
        log = Log(client, name)
        group.create_task(log.run())
        await PROCESSES[part](log, os.environ["DATABASE_URL"])


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], sys.argv[2]))

"""The log on JetStream: a stream for each partition, a message for each commit.

Each append names the last sequence that its decision was based on. An acknowledged commit is durable. One without an
acknowledgement is looked up at the stream's leader and sent again, for up to `append_seconds`, or less for a request
(`runstream.log.patience`). Deduplication alone cannot be trusted: a standalone server checks the expected sequence
first, a clustered one the message's id.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Self

import structlog
from nats.aio.client import Client

from runstream.backoff import Backoff
from runstream.codec import ID_HEADER, decode, encode
from runstream.commits import NewCommit, Position, StoredCommit
from runstream.counting import counted
from runstream.errors import BadRequestError, InternalError, NotExistError, RunstreamError
from runstream.jetstream.api import (
    STORE_FULL,
    TOO_LARGE,
    StoreFullError,
    StreamMessage,
    UnavailableError,
    last_message,
    next_message,
    request,
)
from runstream.jetstream.direct import messages_of
from runstream.jetstream.failover import answers_of
from runstream.jetstream.publisher import Ack, Publisher, Refused, Unanswered
from runstream.lifecycle import keep_running, wait_for_event
from runstream.log import streams
from runstream.log.group_commit import GroupCommitter, PendingCommit
from runstream.log.patience import append_seconds
from runstream.log.port import AppendConflictError, RawMessage
from runstream.log.reader import (
    ELECTION_SECONDS,
    PAUSE_SECONDS,
    JetStreamReader,
    end_of,
    of_stream,
    stream_info,
    stream_state,
)
from runstream.log.serial import append_serial
from runstream.skips import Skips
from runstream.subjects import Address, Subjects
from runstream.telemetry.metrics import APPEND_CONFLICTS, APPEND_RETRIES

APPEND_SECONDS = 30.0
UNSENT_SECONDS = 5.0
"""Maximum wait of an unsent append for a connection, in seconds."""
_HEADER_ROOM = 1024
"""Bytes of a message reserved for headers."""
_CLOSE_SECONDS = 3.0
_HISTORY_SECONDS = 10.0
"""Maximum time for reading the history of one aggregate, in seconds."""
_LOOK_UP_SECONDS = 1.0
"""Maximum time of one look-up at the leader, in seconds; during an election there is no leader, and the next look-up
follows."""
_BACKOFF = Backoff(0.01, 0.5, jitter=True)
_SILENT_GROUPS = 2
"""Number of consecutive groups without an answer after which the server's store counts as broken."""
log = structlog.get_logger()


async def open_log(
    nc: Client,
    namespace: str,
    service: str = "runs",
    *,
    create: bool = False,
    partitions: int | None = None,
    replicas: int = 1,
    append_seconds: float = APPEND_SECONDS,
) -> JetStreamLog:
    """Open the log of a service; with `create`, make a missing one, which needs `partitions`.

    `partitions` None takes the number that the log has. Raises NotExistError when there is no log, BadRequestError
    for a log that this release cannot use, InternalError when NATS cannot be reached or is too old.
    """
    description = await streams.described(nc, namespace, service)
    if description is None:
        if not create or partitions is None:
            raise _no_log(namespace)
        description = await streams.create(nc, Subjects(namespace, service, 1), partitions, replicas)
    subjects = Subjects(namespace, service, description.epoch)
    await streams.check(nc, subjects, description, partitions)
    log = JetStreamLog(nc, subjects, description.partitions, append_seconds)
    await log.start()
    return log


class LogReader:
    """A log that can only be read: for processes that append nothing, and for epochs that are not current."""

    def __init__(self, nc: Client, subjects: Subjects, partitions: int) -> None:
        self.subjects = subjects
        self.partitions = partitions
        self._nc = nc

    @property
    def epoch(self) -> int:
        """The epoch of these subjects."""
        return self.subjects.epoch

    async def last(self, address: Address) -> StoredCommit | None:
        """Return the aggregate's last commit, from the leader (see the port)."""
        stream, subject = self._stream(address), self.subjects.guard(address)
        return await self._skippable(address, await last_message(self._nc, stream, subject))

    async def first(self, address: Address) -> StoredCommit | None:
        """Return the aggregate's first commit, from the leader (see the port)."""
        stream, subject = self._stream(address), self.subjects.guard(address)
        return await self._skippable(address, await next_message(self._nc, stream, subject, 0))

    async def _skippable(self, address: Address, found: StreamMessage | None) -> StoredCommit | None:
        """Return a message of an aggregate as a commit, without events if it is skipped. Raises as `last` does."""
        if found is None:
            return None
        message, skips = of_stream(found, self.epoch, address.partition), Skips()
        subject = self.subjects.skips_of(address)
        if await last_message(self._nc, self._stream(address), subject) is not None:
            skips = Skips.of(map(decode, await self.messages(address.partition, [subject])))
        return skips.find(message) or decode(message)

    async def history(self, address: Address) -> list[StoredCommit]:
        """Return all commits of the aggregate, in order (see the port)."""
        own = self.subjects.guard(address)
        found = await self.messages(address.partition, [own, self.subjects.skips_of(address)])
        # The subject of a decision to skip is longer than that of the commits which it is about.
        decisions = [message for message in found if message.subject.count(".") > own.count(".")]
        skips = Skips.of(map(decode, decisions))
        return [
            skips.find(message) or decode(message) for message in found if message.subject.count(".") == own.count(".")
        ]

    async def messages(self, partition: int, subjects: Sequence[str]) -> list[RawMessage]:
        """Return all messages on these subjects, in order (see the port)."""
        stream = self.subjects.stream(partition)
        by_subject = await messages_of(self._nc, stream, subjects, seconds=_HISTORY_SECONDS)
        info = await request(self._nc, f"STREAM.INFO.{stream}")
        found = {message.sequence: message for messages in by_subject.values() for message in messages}
        if info["config"]["num_replicas"] > 1:
            for missing in await asyncio.gather(
                *(self._missing(stream, subject, by_subject) for subject in {*subjects, *by_subject})
            ):
                found |= missing
        return [of_stream(found[sequence], self.epoch, partition) for sequence in sorted(found)]

    async def _missing(
        self, stream: str, subject: str, found: Mapping[str, Sequence[StreamMessage]]
    ) -> dict[int, StreamMessage]:
        """Return the messages on a subject that the replica which answered did not have yet, from the leader."""
        missing: dict[int, StreamMessage] = {}
        last = await last_message(self._nc, stream, subject)
        known = found.get(last.subject, ()) if last is not None else ()
        after = known[-1].sequence if known else 0
        while last is not None and after < last.sequence:
            following = await next_message(self._nc, stream, subject, after)
            if following is None:
                break
            missing[following.sequence] = following
            after = following.sequence
        return missing

    async def end(self, partition: int, *, at_least: int = 0) -> int:
        """Return the last sequence of the partition (see the port)."""
        stream = self.subjects.stream(partition)
        info = await stream_info(self._nc, stream, at_least)
        if not info["state"].get("num_deleted"):
            return end_of(info["state"])
        loop = asyncio.get_running_loop()
        give_up = loop.time() + (ELECTION_SECONDS if info["config"]["num_replicas"] > 1 else 0.0)
        while True:
            _, state = await stream_state(self._nc, stream)
            end = end_of(state)
            if end >= at_least or loop.time() >= give_up:
                return end
            await asyncio.sleep(PAUSE_SECONDS)  # an old leader may lack what the next one has

    async def origin(self, partition: int) -> str:
        """Return the creation time of the partition's stream (see the port)."""
        made: str = (await request(self._nc, f"STREAM.INFO.{self.subjects.stream(partition)}"))["created"]
        return made

    @asynccontextmanager
    async def read(self, partition: int, after: int, *, filters: Sequence[str] = ()) -> AsyncIterator[JetStreamReader]:
        """Read a partition from the first message behind `after` (see the port)."""
        reader = JetStreamReader(self._nc, self.subjects, partition, after, tuple(filters), self.messages)
        try:
            await reader.open_when_there()
            yield reader
        finally:
            await reader.close()

    def _stream(self, address: Address) -> str:
        return self.subjects.stream(address.partition)


class JetStreamLog(LogReader):
    """One service's log in its current epoch (see `runstream.log.port.Log`); `open_log` makes it, `close` ends it."""

    def __init__(self, nc: Client, subjects: Subjects, partitions: int, append_seconds: float) -> None:
        super().__init__(nc, subjects, partitions)
        self._append_seconds = append_seconds
        self._publisher = Publisher(nc)
        self._committers: list[GroupCommitter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._resting = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Start to accept appends."""
        await self._publisher.start()
        self._start_committers()

    def _start_committers(self) -> None:
        self._committers = [
            GroupCommitter(self._nc, self._publisher, partition) for partition in range(self.partitions)
        ]
        self._tasks = [
            asyncio.create_task(keep_running(name := f"commit partition {partition}", committer.run), name=name)
            for partition, committer in enumerate(self._committers)
        ]

    async def _end_committers(self) -> None:
        running = {task for task in self._tasks if not task.done()}
        while running:
            for task in running:
                task.cancel()
            # Cancel until they end: the client library swallows a cancellation while it flushes.
            _, running = await asyncio.wait(running, timeout=1.0)

    async def close(self) -> None:
        """Refuse further appends, wait a few seconds for those in flight, and stop. The connection stays open."""
        self._closed = True
        if not await wait_for_event(self._idle, _CLOSE_SECONDS):
            # Their callers get an error that says that the outcome is unknown.
            log.warning("closing the log while appends are in flight", action="appends_cut_off")
        await self._end_committers()
        await self._publisher.close()

    async def rest(self) -> None:
        """Refuse appends from now on; return once none is in flight."""
        self._resting = True
        await self._idle.wait()

    async def resume(self) -> None:
        """Accept appends again, in the current epoch. Raises as `open_log` does."""
        namespace, service = self.subjects.namespace, self.subjects.service
        description = await streams.described(self._nc, namespace, service)
        if description is None:
            raise _no_log(namespace)
        subjects = Subjects(namespace, service, description.epoch)
        await streams.check(self._nc, subjects, description, None)
        await streams.uncompress(self._nc, subjects, description.partitions)
        self.subjects = subjects
        if description.partitions != self.partitions:
            await self._end_committers()
            self.partitions = description.partitions
            self._start_committers()
        self._resting = False

    async def append(self, commit: NewCommit) -> Position:
        """Append one commit (see the port)."""
        (answer,) = await self.append_all([commit])
        if isinstance(answer, AppendConflictError):
            raise answer
        return answer

    async def append_all(self, commits: Sequence[NewCommit]) -> list[Position | AppendConflictError]:
        """Append commits of different aggregates (see the port)."""
        on_their_way = [self._pending(commit) for commit in commits]
        deadline = self._deadline()
        with self._appending():
            try:
                for commit, pending in zip(commits, on_their_way, strict=True):
                    await self._committers[commit.address.partition].submit(pending)
                return [await self._settled(c, p, deadline) for c, p in zip(commits, on_their_way, strict=True)]
            finally:
                for pending in on_their_way:
                    pending.outcome.cancel()

    async def append_batch(self, commits: Sequence[NewCommit], after: int) -> list[Position]:
        """Append commits of different aggregates of one partition as one atomic batch (see the port)."""
        partition = commits[0].address.partition
        batch = [self._encoded(commit) for commit in commits]
        deadline = self._deadline()
        with self._appending():
            sequences = await append_serial(
                self._nc,
                self._publisher,
                self.subjects.stream(partition),
                batch,
                after=after,
                deadline=deadline,
                refused=partial(self._final, commits[0], len(batch[0].body)),
                failed=lambda why, sent: self._unknown(commits[0], why, sent=sent),
            )
        return [Position(self.epoch, partition, sequence) for sequence in sequences]

    def _deadline(self) -> float:
        """Return the loop's time at which an append that begins now gives up."""
        seconds = append_seconds(self._append_seconds, servers=len(self._nc.servers))
        return asyncio.get_running_loop().time() + seconds

    def _final(self, commit: NewCommit, size: int, refused: Refused) -> RunstreamError | None:
        """Return the error of a refusal that another attempt does not change."""
        if refused.number in STORE_FULL:
            return self._not_stored(commit, refused.why)
        return self._too_large(commit.address, size) if refused.number in TOO_LARGE else None

    @contextmanager
    def _appending(self) -> Iterator[None]:
        """Count an append as in flight."""
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def _pending(self, commit: NewCommit) -> PendingCommit:
        """Encode a commit that expects the last sequence of its subject. Raises BadRequestError if it is too large."""
        pending, guard = self._encoded(commit), self.subjects.guard(commit.address)
        pending.headers["Nats-Expected-Last-Subject-Sequence"] = str(commit.expected)
        if commit.expected == 0 and guard != pending.subject:
            pending.headers["Nats-Expected-Last-Subject-Sequence-Subject"] = guard
        return pending

    def _encoded(self, commit: NewCommit) -> PendingCommit:
        """Encode a commit. Raises BadRequestError for one that is too large."""
        if self._closed:
            raise InternalError("the log is closed", code="logClosed")
        if self._resting:
            raise InternalError("the service is in maintenance: nothing is appended", code="maintenance")
        address = commit.address
        body, headers = encode(commit)
        if len(body) > self._nc.max_payload - _HEADER_ROOM:
            raise self._too_large(address, len(body))
        return PendingCommit(address.aggregate, self.subjects.of(address), body, headers)

    def _too_large(self, address: Address, size: int) -> BadRequestError:
        """Return the error for a commit that the server, or its stream, never takes."""
        return BadRequestError(
            f"the commit of {address.aggregate} takes {counted(size, 'byte')}; NATS accepts {self._nc.max_payload}",
            code="commitTooLarge",
            details={"bytes": size, "limit": self._nc.max_payload - _HEADER_ROOM},
            hint="make it smaller, or raise max_payload in the configuration of NATS",
        )

    async def _settled(
        self, commit: NewCommit, pending: PendingCommit, deadline: float
    ) -> Position | AppendConflictError:
        """Wait for the outcome of a commit; send it again while the outcome is unknown and there is time."""
        loop, committer = asyncio.get_running_loop(), self._committers[commit.address.partition]
        delays = _BACKOFF.delays()
        sent, give_up = False, min(deadline, loop.time() + UNSENT_SECONDS)
        while True:
            match await pending.outcome:
                case Ack(sequence):
                    return Position(self.epoch, commit.address.partition, sequence)
                case Refused(number, why) if number in STORE_FULL:
                    raise self._not_stored(commit, why)
                case Refused(number) if number in TOO_LARGE:
                    raise self._too_large(commit.address, len(pending.body))
                case Unanswered(why, sent=False):
                    pass
                case Refused(why=why) | Unanswered(why):
                    sent, give_up = True, deadline
            try:
                found = await self._look_up(commit)
            except UnavailableError as error:
                # Send it again nevertheless: a cluster can store before it can answer look-ups.
                why, found, committer.silent = error.message, None, 0
            if found is not None:
                return found
            delay = next(delays)
            if self._closed or loop.time() + delay > give_up:
                raise self._unknown(commit, why, sent=sent)
            # With a full disk the server answers reads, but never a publish that it cannot write.
            enough = 1 if answers_of(self._nc).full else _SILENT_GROUPS
            if committer.silent >= enough and not await self._is_replicated(commit):
                raise self._not_stored(commit, "NATS answers, but does not acknowledge publishes", uncertain=True)
            await asyncio.sleep(delay)
            APPEND_RETRIES.add(1, str(commit.address.partition))
            pending.outcome = loop.create_future()
            await committer.submit(pending)

    async def _look_up(self, commit: NewCommit) -> Position | AppendConflictError | None:
        """Ask the leader: the commit's position, or a conflict; None while it may still be appended."""
        stream, guard = self._stream(commit.address), self.subjects.guard(commit.address)
        last = await last_message(self._nc, stream, guard, seconds=_LOOK_UP_SECONDS)
        sequence = 0 if last is None else last.sequence
        if sequence == commit.expected:
            return None
        found = (
            last if last is None or _is(last, commit) else await next_message(self._nc, stream, guard, commit.expected)
        )
        if found is not None and _is(found, commit):
            return Position(self.epoch, commit.address.partition, found.sequence)
        APPEND_CONFLICTS.add(1, str(commit.address.partition))
        return AppendConflictError(commit, self._readable(last, commit.address.partition))

    def _readable(self, message: StreamMessage | None, partition: int) -> StoredCommit | None:
        """Decode a message; None for one that cannot be read, which readers of the log park."""
        try:
            return None if message is None else decode(of_stream(message, self.epoch, partition))
        except BadRequestError:
            return None

    async def _is_replicated(self, commit: NewCommit) -> bool:
        """Return whether the stream has other servers, of which one may take the commit."""
        try:
            info = await request(self._nc, f"STREAM.INFO.{self._stream(commit.address)}", seconds=_LOOK_UP_SECONDS)
        except UnavailableError:
            return True
        return bool(info["config"]["num_replicas"] > 1)

    def _not_stored(self, commit: NewCommit, why: str, *, uncertain: bool = False) -> StoreFullError:
        answers = answers_of(self._nc)
        answers.full = why
        return StoreFullError(
            commit.address.aggregate,
            why,
            outcome=_not_done(commit),
            folder=answers.folder,
            uncertain=uncertain,
        )

    def _unknown(self, commit: NewCommit, why: str, *, sent: bool) -> InternalError:
        may_be = " It may be in the log all the same: look before you do it again" if sent else " Nothing was stored"
        return InternalError(
            f"the log did not take {commit.address.aggregate} in time: {why}",
            code="logUnreachable",
            details={"commit": commit.id, "uncertain": sent},
            hint=f"is NATS running and reachable?{may_be}",
        )


def _no_log(namespace: str) -> NotExistError:
    return NotExistError(
        f"there is no log {namespace!r} on this NATS",
        code="noLog",
        hint="`runstream serve` makes it; is this the right NATS and the right namespace?",
    )


def _not_done(commit: NewCommit) -> str:
    """Say to a user what a commit would have done, if it is not plain from its aggregate."""
    creates = commit.address.kind == "runconfig" or (commit.address.kind == "run" and commit.version == 1)
    return "the run was not created" if creates else ""


def _is(message: StreamMessage, commit: NewCommit) -> bool:
    return message.headers.get(ID_HEADER) == commit.id

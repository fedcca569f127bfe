"""Consumers of the log that have stopped: which, at which commit, since when, why, and what to do.

A consumer has stopped when a commit waits for it and it has not moved for `PROJECTION_SECONDS` (`ARCHIVE_SECONDS`). All
of it follows from the log, the rows, and the answers of the consumers' processes, so every process and every command
reports the same, and a restart forgets nothing. A parked commit counts as a stall from its parking on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

import structlog
from msgspec.structs import asdict, replace

from runstream.api import Stall
from runstream.commits import Position
from runstream.database import Database
from runstream.database.runs import get_positions
from runstream.datamanager.archive import Archive
from runstream.datamanager.errors import DamagedArchiveError
from runstream.errors import InternalError, RunstreamError
from runstream.jetstream.messaging import MAX_REASON, ConsumerProgress, NoAnswer, Questions, ask_progress
from runstream.lifecycle import Component, wait_for_event
from runstream.log.port import ReadableLog
from runstream.objects import ObjectStorage
from runstream.projections.parked import ParkedCommit, first_parked
from runstream.tables import PROJECTION
from runstream.telemetry.logs import without_secrets
from runstream.telemetry.metrics import ARCHIVE_STALLED_SECONDS, PARKED_SECONDS, PROJECTION_STALLED_SECONDS

PROJECTION_SECONDS = 10.0
"""Bound for a projection, in seconds: after any single fault, a new owner has the partition by then."""
ARCHIVE_SECONDS = 60.0
"""Bound for the archive, in seconds: it closes a segment every 4 s, and a busy storage takes longer."""
LOOK_SECONDS = 5.0
"""Interval of checks, in seconds; a stall raises no event."""
FRESH_SECONDS = 1.0
"""Age, in seconds, up to which a probe gets the last result."""
_LOOKING_SECONDS = 10.0
_PROJECTORS = {"runs": "scheduler", "config": "configstore"}
"""The component that projects the log of each service."""
log = structlog.get_logger()

Consumer: TypeAlias = Literal["projection", "archive"]


@dataclass(frozen=True, slots=True)
class Consumed:
    """A log and the positions of its consumers: in the database, the archive and their processes."""

    log: ReadableLog
    database: Database
    questions: Questions
    objects: ObjectStorage | None = None
    """The storage of the archive; None ignores the archive."""

    async def stalls(self, now: datetime | None = None) -> list[Stall]:
        """Return all consumers that stand still at `now` (UTC), the projections first.

        Raises InternalError when NATS or Postgres cannot be reached.
        """
        at = datetime.now(UTC) if now is None else now
        parked, consumed = await self._rows()
        archived: dict[int, int] = {}
        answer: ConsumerProgress | NoAnswer | None = None
        if self.objects is not None:
            answer = await ask_progress(self.questions, self.log.subjects.progress("archive"))
            archived = await _archived(answer, Archive(self.objects, self.log.subjects))
        behind = await asyncio.gather(
            *(self._stall(number, consumed.get(number, 0), at) for number in range(self.log.partitions)),
            *(self._stall(number, last, at, answer) for number, last in archived.items()),
        )
        service = self.log.subjects.service
        return [*parked, *(replace(stall, service=service) for stall in behind if stall is not None)]

    async def _rows(self) -> tuple[list[Stall], dict[int, int]]:
        """Return the stalls of parked commits, and the projected sequence of each partition."""
        epoch, service = self.log.subjects.epoch, self.log.subjects.service
        async with self.database.snapshot() as transaction:
            found = await first_parked(transaction, epoch, service)
            positions = (await get_positions(transaction, service)).values()
        parked = [_parked(first, count, service) for first, count in found]
        return parked, {one.partition: one.sequence for one in positions if one.epoch == epoch}

    async def _stall(
        self, partition: int, consumed: int, now: datetime, archived: ConsumerProgress | NoAnswer | None = None
    ) -> Stall | None:
        """Return the stall of a projection; that of the archive, if its answer is given."""
        seconds = PROJECTION_SECONDS if archived is None else ARCHIVE_SECONDS
        waiting = await self._waiting(partition, consumed, now, seconds)
        if waiting is None:
            return None
        if archived is not None:
            return stall_of("archive", waiting, archived, now, seconds, "datamanager")
        answer = await ask_progress(self.questions, self.log.subjects.progress(partition))
        part = _PROJECTORS[self.log.subjects.service]
        return stall_of("projection", waiting, answer, now, seconds, part)

    async def _waiting(self, partition: int, consumed: int, now: datetime, seconds: float) -> Backlog | None:
        """Return the commits after `consumed`; None when none has been pending for `seconds`."""
        end = await self.log.end(partition)
        if end <= consumed:
            return None
        async with self.log.read(partition, consumed) as reader:
            batch = await reader.next_batch(1, wait=False)
        if not batch or now - (first := batch[0]).stored_at < timedelta(seconds=seconds):
            return None
        return Backlog(first.position, first.stored_at, end - consumed)


@dataclass(frozen=True, slots=True)
class Backlog:
    """Commits that a consumer has not processed."""

    position: Position
    """The position of the first."""
    since: datetime
    """Time at which the first was stored (UTC)."""
    commits: int


def _parked(first: ParkedCommit, count: int, service: str) -> Stall:
    position = str(first.position)
    of = "" if service == PROJECTION else f" --service {service}"
    todo = (
        f"runstream parked show {position}{of}; when the cause is gone: "
        f"{'runstream parked retry' if not of else 'start the service again'}; to leave it out for good: "
        f"runstream parked skip {position}{of} --reason …"
    )
    why = without_secrets(first.reason)[:MAX_REASON]
    return Stall("projection", "parked", first.position.partition, position, first.at, count, why, todo, service)


def stall_of(
    consumer: Consumer,
    waiting: Backlog,
    answer: ConsumerProgress | NoAnswer,
    now: datetime,
    seconds: float,
    part: str = "scheduler",
) -> Stall | None:
    """Return the stall of a consumer with pending commits; None when it moves, however slowly.

    `part` is the component that runs it.
    """
    since = waiting.since
    if answer is NoAnswer.NO_RESPONDERS:
        why = f"no {part} has it"
        todo = f"start a process with the {part}: runstream serve (--components {part})"
    elif isinstance(answer, NoAnswer):
        why = f"its {part} does not answer"
        todo = f"look at the log of the {part}'s process, and start that process again"
    else:
        since = max(since, answer.moved_at)
        if now - since < timedelta(seconds=seconds):
            return None
        why = answer.error or f"its {part} has not moved on, without an error so far"
        todo = "runstream doctor; it goes on by itself when the cause is gone"
    return Stall(
        consumer,
        "behind",
        waiting.position.partition,
        str(waiting.position),
        since,
        waiting.commits,
        without_secrets(why)[:MAX_REASON],
        todo,
    )


async def _archived(answer: ConsumerProgress | NoAnswer, archive: Archive) -> dict[int, int]:
    """Return the archived sequence of each partition; empty without an archive.

    The datamanager knows it even while the object storage, a likely cause of the stall, does not answer. Where neither
    answers, `runstream doctor` reports the storage, and `runstream fsck` a damaged archive.
    """
    if isinstance(answer, ConsumerProgress) and answer.consumed:
        return answer.consumed
    try:
        status = await archive.find_status()
    except (DamagedArchiveError, InternalError):
        return {}
    return {} if status is None else dict(enumerate(status.position.sequences))


class StallWatch(Component):
    """A component that keeps the metrics of stalls and answers which there are."""

    name = "stall watch"

    def __init__(self, consumed: Callable[[], Sequence[Consumed]]) -> None:
        """`consumed` returns the logs of the current epochs."""
        super().__init__()
        self._consumed = consumed
        self._last: list[Stall] = []
        self._looked_at = -FRESH_SECONDS
        """Time of the last check, by the loop's clock."""
        self._looking = asyncio.Lock()

    async def run(self) -> None:
        """Check every `LOOK_SECONDS` until `stopping` is set."""
        self.started.set()
        while not await wait_for_event(self.stopping, LOOK_SECONDS):
            await self.stalls()

    async def stalls(self) -> list[Stall]:
        """Return the current stalls; the last ones when NATS or Postgres cannot be reached."""
        clock = asyncio.get_running_loop().time
        async with self._looking:
            if clock() - self._looked_at < FRESH_SECONDS:
                return self._last
            consumed = self._consumed()
            try:
                async with asyncio.timeout(_LOOKING_SECONDS):
                    self._last = [stall for one in consumed for stall in await one.stalls()]
            except (RunstreamError, TimeoutError) as error:
                log.debug("stalls cannot be checked now", action="stalls_unknown", error=str(error))
            self._looked_at = clock()
            for one in consumed:
                measure(self._last, one.log.subjects.service, one.log.partitions)
        return self._last

    async def as_json(self) -> list[dict[str, object]]:
        """Return the current stalls as JSON values, for /readyz."""
        return [{**asdict(stall), "since": stall.since.isoformat()} for stall in await self.stalls()]


def measure(stalls: Iterable[Stall], service: str, partitions: int) -> None:
    """Set the metrics of a service: the seconds of each partition's stall, 0 without one."""
    now = datetime.now(UTC)
    seconds = {
        (stall.component, stall.kind, stall.partition): (now - stall.since).total_seconds()
        for stall in stalls
        if stall.service == service
    }
    for partition in range(partitions):
        label = str(partition)
        PROJECTION_STALLED_SECONDS.set(seconds.get(("projection", "behind", partition), 0.0), service, label)
        PARKED_SECONDS.set(seconds.get(("projection", "parked", partition), 0.0), service, label)
        ARCHIVE_STALLED_SECONDS.set(seconds.get(("archive", "behind", partition), 0.0), service, label)

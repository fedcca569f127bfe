"""The state of the config service in this process, and the only way to change it.

The store folds the whole log in memory and follows it. A change is decided on this state and appended where the log
ends at its position; when another process was first, the store reads on and decides again. So every decision was right
at its place in the log, whatever other gateways did meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Never

import structlog
from msgspec import Struct

from runstream.backoff import Backoff
from runstream.commits import DecodedCommit, NewCommit, Position, StoredCommit
from runstream.config.audit import AuditTrail
from runstream.config.past import PastStates
from runstream.config_folding import PARTITION, ConfigFold, ParkedConfig
from runstream.domain.config.state import ConfigState, Decision
from runstream.errors import InternalError, RunstreamError
from runstream.lifecycle import BackgroundTasks, Component, wait_for_first
from runstream.log.port import MAX_BATCH_COMMITS, Log, LogMovedError
from runstream.skips import Skips

ATTEMPTS = 20
"""Maximum number of decisions for one change, each on a newer state."""
WAIT_SECONDS = 5.0
"""Maximum wait for a position of the log, in seconds."""
_BACKOFF = Backoff(0.05, 2.0)
log = structlog.get_logger()


class AppendedChange(Struct, frozen=True):
    """A change that is in the log."""

    commits: tuple[NewCommit, ...]
    """Empty when there was nothing to change."""
    position: Position | None
    """The position of the last commit."""


class ConfigStore:
    """The state of the config service, and changes to it; a `ConfigFollower` keeps it up to date."""

    def __init__(
        self,
        log: Log,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        maintenance: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`maintenance` returns start and reason of the maintenance that is enabled, None outside one."""
        self._log = log
        self.now = clock
        """The time of changes."""
        self._maintenance = maintenance
        self._fold = ConfigFold()
        self._ready = False
        self._moved = asyncio.Event()
        """Replaced when it is set, so that each step wakes all waiters once."""
        self._writing = asyncio.Lock()
        self._applying = asyncio.Lock()
        """Held by the follower while it applies commits, and by a change from its decision to its answer: no commit of
        another process comes between them."""
        self.trail = AuditTrail(log)
        """Who changed what, from the same log."""
        self.past = PastStates(log)
        """Earlier states."""

    @property
    def state(self) -> ConfigState:
        """The state as of `position`, for reading only.

        Raises InternalError: `configNotReady` while it is loaded, `maintenance` while it is parked.
        """
        return self._loaded().state

    @property
    def position(self) -> Position:
        """The position that the state includes."""
        return Position(self._log.epoch, PARTITION, self._fold.after)

    @property
    def parked(self) -> Sequence[ParkedConfig]:
        """The commits that could not be read or applied, by position."""
        return sorted(self._loaded().all_parked.values(), key=lambda one: one.position.sequence)

    def _loaded(self) -> ConfigFold:
        if not self._ready:
            if (since := self._maintenance()) is not None:
                raise InternalError(
                    f"users, projects and secrets are in maintenance{since}",
                    code="maintenance",
                    hint="try again later; `runstream maintenance status --service config` shows how far it is",
                )
            raise InternalError(
                "users, projects and secrets are not loaded yet",
                code="configNotReady",
                hint="try again in a moment; is NATS reachable?",
            )
        return self._fold

    async def follow(self) -> Never:
        """Load the state, and follow the log until cancelled; the state is not available before and after."""
        delays = _BACKOFF.delays()
        try:
            while True:
                try:
                    await self._fold_until_skip()
                    delays = _BACKOFF.delays()
                except RunstreamError as error:
                    log.warning(
                        "the config log cannot be read now", action="config_away", code=error.code, why=error.message
                    )
                    await asyncio.sleep(next(delays))
        finally:
            self._ready = False
            self._wake()

    async def loaded(self) -> None:
        """Wait until the state is available."""
        await self._until(lambda: self._ready)

    async def changed(self) -> None:
        """Wait until the state is another one, or is not available any more."""
        await self._moved.wait()

    async def idle(self) -> None:
        """Wait until no change is under way."""
        async with self._writing:
            return

    async def reached(self, position: Position, *, seconds: float = WAIT_SECONDS) -> None:
        """Wait until the state includes a position. Raises InternalError `configBehind` when it does not in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._until(lambda: self._ready and self.position >= position)
        except TimeoutError as error:
            self._loaded()
            raise InternalError(
                f"the state of the config service does not include position {position} after {seconds:g} seconds",
                code="configBehind",
                details={"position": str(position), "reached": str(self.position)},
                hint="try again in a moment",
            ) from error

    async def change(
        self,
        decide: Callable[[ConfigState], Decision],
        *,
        actor: str,
        cause: str = "",
        trace: str = "",
        show: Callable[[ConfigState], None] = lambda _: None,
    ) -> AppendedChange:
        """Decide on the current state and append the decision as one atomic batch; the state then includes it.

        `decide` is pure and may be called again, with a newer state. `show` reads the state that ends with the
        decision, before a later commit of another process is applied. `actor` is the author, such as `user:<name>`. A
        decision of more than MAX_BATCH_COMMITS changes takes several batches, in its order. Raises what `decide`
        raises, ConflictError after ATTEMPTS, InternalError while the log cannot be reached.
        """
        done: list[NewCommit] = []
        async with self._writing:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    async with self._applying:
                        fold = self._loaded()
                        decision = decide(fold.state)
                        self._require_readable(fold, decision)
                        for start in range(0, len(decision), MAX_BATCH_COMMITS):
                            batch = decision[start : start + MAX_BATCH_COMMITS]
                            time = self.now()
                            commits = [
                                fold.commit_of(one, time=time, actor=actor, cause=cause, trace=trace) for one in batch
                            ]
                            await self._append(fold, commits)
                            done += commits
                        show(fold.state)
                        return AppendedChange(tuple(done), self.position if done else None)
                except LogMovedError as moved:
                    if attempt == ATTEMPTS:
                        raise
                    await self.reached(Position(self._log.epoch, PARTITION, moved.following))
        raise AssertionError("unreachable")

    async def _append(self, fold: ConfigFold, commits: list[NewCommit]) -> None:
        positions = await self._log.append_batch(commits, fold.after)
        for commit, position in zip(commits, positions, strict=True):
            fold.apply(_stored(commit, position))
        self._wake()

    def _require_readable(self, fold: ConfigFold, decision: Decision) -> None:
        """Raise InternalError if a change would follow a parked commit, whose version it cannot know."""
        for change in decision:
            parked = fold.parked.get(f"{change.kind}/{change.id}")
            if parked:
                raise InternalError(
                    f"{change.kind} {change.id} has a commit that cannot be read: {parked[0].reason}",
                    code="aggregateParked",
                    details={"position": str(parked[0].position)},
                    hint="`runstream parked list --service config` shows such commits; "
                    "`runstream parked skip --service config` goes on without one",
                )

    async def _fold_until_skip(self) -> None:
        """Fold the log from its beginning, and follow it until another commit is skipped."""
        end = await self._log.end(PARTITION)
        fold = ConfigFold(await self._skips(end))
        if not end:
            async with self._applying:
                self._take_over(fold)
        async with self._log.read(PARTITION, 0) as reader:
            while True:
                batch = await reader.next_batch(1000)
                async with self._applying:
                    for message in batch:
                        if message.position.sequence <= fold.after:
                            continue  # appended by this process, and applied already
                        if fold is self._fold and self._ready and message.subject.split(".")[4:5] == ["skip"]:
                            return
                        fold.take(message)
                    # The state that is available does not go back.
                    if fold.after >= max(end, self._fold.after if self._ready else 0):
                        self._take_over(fold)

    async def _skips(self, end: int) -> Skips:
        skips, fold = Skips(), ConfigFold()
        filters = (self._log.subjects.skips(PARTITION),)
        if end == 0:
            return skips
        async with self._log.read(PARTITION, 0, filters=filters) as reader:
            while reader.pending():
                for message in await reader.next_batch(1000):
                    stored = fold.take(message)
                    if isinstance(stored, StoredCommit):
                        skips.take(stored)
        return skips

    def _take_over(self, fold: ConfigFold) -> None:
        self._fold, self._ready = fold, True
        self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            await self._moved.wait()


def _stored(commit: NewCommit, position: Position) -> StoredCommit:
    decoded = DecodedCommit(
        commit.id,
        commit.address,
        commit.version,
        commit.time,
        commit.actor,
        commit.cause,
        commit.events,
        commit.trace,
    )
    return StoredCommit(decoded, position, commit.time)


class ConfigFollower(Component):
    """The component that keeps a config store up to date; in maintenance it is parked, and the store not available."""

    name = "config store"

    def __init__(self, store: ConfigStore) -> None:
        super().__init__()
        self._store = store

    async def run(self) -> None:
        """Follow the log until `stopping` is set."""
        async with BackgroundTasks() as background:
            background.keep(self._store.follow(), "follow the config log")
            await wait_for_first(self._store.loaded(), self.stopping.wait())
            self.started.set()
            await self.stopping.wait()

    async def drain(self, seconds: float | None) -> None:
        """Wait for the change under way."""
        await self._store.idle()

    def positions(self) -> Mapping[int, int]:
        """Return the position of the state."""
        return {PARTITION: self._store.position.sequence}

"""The component: it waits for the lock of the config service, then keeps its rows up to date.

wait for the lock > fold the log to its end > make the rows those of the fold > follow
                             ^                                                    |
                             +--- a commit is skipped, another process took over -+
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from runstream.config_folding import PARTITION, ConfigFold, ParkedConfig
from runstream.configstore.projection import ConfigProjection
from runstream.database.database import Database
from runstream.errors import RunstreamError, chain_lines, sentence_of
from runstream.feed import read_skips
from runstream.jetstream.messaging import ConsumerProgress, Questions
from runstream.lifecycle import Component, only_asked_cancellation
from runstream.log.port import Log
from runstream.projections.ownership import PartitionOwnership

RESTART_SECONDS = 0.5
BATCH = 1000
log = structlog.get_logger()


class ConfigPeers(Protocol):
    """This instance among those with a config store (`runstream.maintenance.instances.ThisInstance`)."""

    @property
    def id(self) -> str:
        """The id of this instance."""

    def members(self, part: str, service: str) -> AsyncIterator[Collection[str]]:
        """Yield the ids of the instances whose component of this name works for the service."""


@dataclass(eq=False)
class ConfigStoreComponent(Component):
    """The projector of the config service; of several processes one works, and the others stand by."""

    name = "configstore"
    source: Log
    database: Database
    peers: ConfigPeers
    questions: Questions | None = None
    """The answers about the progress of the rows and what holds them up; without it, such questions get no answer."""

    def __post_init__(self) -> None:
        super().__init__()
        self._task: asyncio.Task[None] | None = None
        self._working: asyncio.Task[None] | None = None
        self._position: int | None = None

    async def run(self) -> None:
        """Stand by or work until `stopping` is set."""
        subjects = self.source.subjects
        ownership = PartitionOwnership(
            self.database,
            namespace=subjects.namespace,
            service=subjects.service,
            partitions=self.source.partitions,
            instance=self.peers.id,
            live=self.peers.members(self.name, subjects.service),
            on_acquired=self._acquired,
            on_lost=self._lost,
        )
        async with ownership.serving():
            self.started.set()
            await self.stopping.wait()

    def positions(self) -> Mapping[int, int]:
        """Return the position of the rows, where this process writes them."""
        return {} if self._position is None else {PARTITION: self._position}

    async def _acquired(self, _: int) -> None:
        self._working = asyncio.create_task(self._work(), name="config projection")

    async def _lost(self, _: int) -> None:
        task, self._working = self._working, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self._position = None

    async def _work(self) -> None:
        progress = ConsumerProgress()
        subject = self.source.subjects.progress(PARTITION)
        async with contextlib.AsyncExitStack() as stack:
            if self.questions is not None:
                await stack.enter_async_context(self.questions.answering(subject, progress.answer))
            await self._keep_working(progress)

    async def _keep_working(self, progress: ConsumerProgress) -> None:
        while True:
            try:
                with only_asked_cancellation("config projection"):
                    await self._session(progress)
            except Exception as error:  # noqa: BLE001  the next session begins with the whole log
                progress.failed(sentence_of(error))
                log.warning(
                    "the rows of the config service are not written now",
                    action="config_projection_restarted",
                    code=error.code if isinstance(error, RunstreamError) else "",
                    errors=chain_lines(error),
                )
                await asyncio.sleep(RESTART_SECONDS)

    async def _session(self, progress: ConsumerProgress) -> None:
        """Write the rows until a commit is skipped, which changes what was folded before."""
        epoch, end = self.source.epoch, await self.source.end(PARTITION)
        fold, projection = ConfigFold(await read_skips(self.source, PARTITION, end)), ConfigProjection(self.database)
        async with self.source.read(PARTITION, 0) as reader:
            while fold.after < end:
                for message in await reader.next_batch(BATCH):
                    fold.take(message)
            await projection.begin(fold, epoch)
            while True:
                self._position = before = fold.after
                progress.moved()
                changed: dict[str, None] = {}
                parked: list[ParkedConfig] = []
                for message in await reader.next_batch(BATCH):
                    if message.subject.split(".")[4:5] == ["skip"]:
                        return
                    taken = fold.take(message)
                    if isinstance(taken, ParkedConfig):
                        parked.append(taken)
                    elif taken.commit.events:
                        changed[taken.commit.address.aggregate] = None
                await projection.apply(fold, epoch, before, changed, parked)

"""The component that archives the log continuously. Of all processes that run it, one archives and the others wait.

An advisory lock selects that one, and another takes over within seconds. A process that has lost the lock and has not
noticed cannot do harm, because its generation is no longer valid (`runstream.datamanager.fence`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from runstream.backoff import Backoff
from runstream.database.database import Database
from runstream.datamanager.errors import ContradictionError
from runstream.datamanager.fence import PostgresFence
from runstream.datamanager.shipper import CLOSE_SECONDS, Shipper
from runstream.errors import causes, chain_lines, sentence_of
from runstream.ids import new_id
from runstream.jetstream.messaging import ConsumerProgress, Questions
from runstream.lifecycle import Component, only_asked_cancellation, wait_for_first
from runstream.log.port import ReadableLog
from runstream.objects.port import ObjectStorage
from runstream.projections.ownership import PartitionOwnership

FINISH_SECONDS = 4.0
"""Time that an orderly stop allows for archiving the last commits."""
_BACKOFF = Backoff(0.5, 10.0)
log = structlog.get_logger()


async def never(_: int) -> None:
    """Wait for an epoch that never changes."""
    await asyncio.Event().wait()


@dataclass(eq=False)
class DataManager(Component):
    """The component that archives the log of the served epoch."""

    name = "datamanager"
    served: Callable[[], ReadableLog]
    """Returns the log of the served epoch."""
    objects: ObjectStorage
    database: Database
    deployment: str
    moved: Callable[[int], Coroutine[Any, Any, object]] = never
    """Waits until another epoch than this one is served."""
    close_seconds: float = CLOSE_SECONDS
    questions: Questions | None = None
    """Where it answers how it gets on."""

    def __post_init__(self) -> None:
        super().__init__()
        self._progress = ConsumerProgress()
        self._instance = new_id()
        self._log = self.served()
        self._shipper: Shipper | None = None
        self._shipping: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        """Set when the shipper should archive the last commits before it stops."""

    def positions(self) -> Mapping[int, int]:
        """Return the last archived sequence of each partition; empty while another process archives."""
        return self._shipper.positions() if self._shipper is not None else {}

    async def run(self) -> None:
        """Archive, or wait for the lock, until `stopping` is set. Raises ContradictionError."""
        while not self.stopping.is_set():
            self._log = self.served()
            self._ending.clear()
            await self._archive_epoch()

    async def _archive_epoch(self) -> None:
        """Archive one epoch until another one is served, or `stopping` is set."""
        subjects = self._log.subjects
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def acquired(_: int) -> None:
            self._shipping = asyncio.create_task(self._keep_shipping(), name=f"archive {subjects.epoch}")
            self._shipping.add_done_callback(partial(_note_end, failed))

        ownership = PartitionOwnership(
            self.database,
            namespace=subjects.namespace,
            service=f"{subjects.service}/{subjects.epoch}/archive",
            partitions=1,
            instance=self._instance,
            live=_alone(self._instance),
            on_acquired=acquired,
            on_lost=self._lost,
        )
        async with ownership.serving():
            self.started.set()
            try:
                await wait_for_first(self.stopping.wait(), self.moved(subjects.epoch), _result(failed))
                self._ending.set()
            finally:
                ownership.stop_seconds = min(ownership.stop_seconds, self.stop_seconds * 0.9)

    async def _keep_shipping(self) -> None:
        self._progress = ConsumerProgress()
        with only_asked_cancellation("archive"):
            async with contextlib.AsyncExitStack() as stack:
                if self.questions is not None:
                    subject = self._log.subjects.progress("archive")
                    await stack.enter_async_context(self.questions.answering(subject, self._progress.answer))
                await self._ship_with_retries()

    async def _ship_with_retries(self) -> None:
        """Archive, in a new term after each error, until the shipper has archived the last commits."""
        delays = _BACKOFF.delays()
        while True:
            subjects = self._log.subjects
            shipper = self._shipper = Shipper(
                self._log,
                self.objects,
                PostgresFence(self.database, subjects.service, subjects.epoch),
                self.deployment,
                close_seconds=self.close_seconds,
                progress=self._progress,
            )
            try:
                with only_asked_cancellation("archive"):
                    await shipper.run()
            except Exception as error:  # noqa: BLE001  any error ends the term; a new one begins
                contradiction = next((each for each in causes(error) if isinstance(each, ContradictionError)), None)
                if contradiction is not None:
                    raise contradiction from None
                self._progress.failed(sentence_of(error))
                log.warning(
                    "archiving failed; taking over the archive again",
                    action="archive_restarted",
                    errors=chain_lines(error),
                )
            if self._ending.is_set():
                return
            if shipper.began.is_set():
                delays = _BACKOFF.delays()
            await asyncio.sleep(next(delays))

    async def _lost(self, _: int) -> None:
        """Stop archiving: the lock is released, or lost."""
        shipping, self._shipping = self._shipping, None
        if shipping is None:
            return
        if self._ending.is_set() and self._shipper is not None:
            self._shipper.finish()
            await asyncio.wait({shipping}, timeout=min(FINISH_SECONDS, self.stop_seconds * 0.8))
        shipping.cancel()
        await asyncio.wait({shipping})
        self._shipper = None


def _note_end(failed: asyncio.Future[None], shipping: asyncio.Task[None]) -> None:
    """Fail when archiving has failed."""
    if not shipping.cancelled() and (error := shipping.exception()) is not None and not failed.done():
        failed.set_exception(error)


async def _result(future: asyncio.Future[None]) -> object:
    return await asyncio.shield(future)


async def _alone(instance: str) -> AsyncIterator[Collection[str]]:
    """Name this instance as the only live one, so that each process waits for the one lock."""
    yield {instance}
    await asyncio.Event().wait()

"""The component that archives the log all the time. Any number of processes may have it: one works, the others wait.

A lock of the database says which one, so that another goes on within seconds; the generation (`fence`) keeps one that
has not noticed its loss from changing anything that counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping

import structlog

from runstream.database.database import Database
from runstream.datamanager.errors import ContradictionError
from runstream.datamanager.fence import PostgresFence
from runstream.datamanager.shipper import CLOSE_SECONDS, Shipper
from runstream.errors import causes, chain_lines, sentence_of
from runstream.ids import new_id
from runstream.jetstream.messaging import Progress, Questions
from runstream.lifecycle import Component
from runstream.log.port import ReadableLog
from runstream.objects.port import ObjectStorage
from runstream.projections.ownership import PartitionOwnership

FINISH_SECONDS = 4.0
"""What an orderly stop gives to archive the last commits."""
_FIRST_BACKOFF = 0.5
_LAST_BACKOFF = 10.0
log = structlog.get_logger()


async def for_ever(_: int) -> None:
    """The epoch never changes."""
    await asyncio.Event().wait()


class DataManager(Component):
    """Archives the log in the epoch that is served."""

    name = "datamanager"

    def __init__(
        self,
        served: Callable[[], ReadableLog],
        objects: ObjectStorage,
        database: Database,
        deployment: str,
        *,
        moved: Callable[[int], Awaitable[None]] = for_ever,
        close_seconds: float = CLOSE_SECONDS,
        questions: Questions | None = None,
    ) -> None:
        """`served` gives the log in the epoch of now, which `moved(epoch)` waits to change.

        `questions` is where it answers how it gets on.
        """
        super().__init__()
        self._served = served
        self._objects = objects
        self._database = database
        self._deployment = deployment
        self._moved = moved
        self._close_seconds = close_seconds
        self._questions = questions
        self._progress = Progress()
        self._instance = new_id()
        self._log = served()
        self._shipper: Shipper | None = None
        self._shipping: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        """Set when what is under way is to be finished, and not only ended."""

    def positions(self) -> Mapping[int, int]:
        """How far each partition is archived by this process; empty while another one does it."""
        return self._shipper.positions() if self._shipper is not None else {}

    async def run(self) -> None:
        """Archive, or wait to, until `stopping` is set. Raises ContradictionError."""
        while not self.stopping.is_set():
            self._log = self._served()
            self._ending.clear()
            await self._one_epoch()

    async def _one_epoch(self) -> None:
        """Archive one epoch until the service is in another one, or is to stop."""
        subjects = self._log.subjects
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def acquired(_: int) -> None:
            self._shipping = asyncio.create_task(self._keep_shipping(failed), name=f"archive {subjects.epoch}")

        ownership = PartitionOwnership(
            self._database,
            namespace=subjects.namespace,
            service=f"{subjects.service}/{subjects.epoch}/archive",
            partitions=1,
            instance=self._instance,
            live=_alone(self._instance),
            on_acquired=acquired,
            on_lost=self._lost,
        )
        stopping = asyncio.create_task(self._stop())
        moved: asyncio.Future[None] = asyncio.ensure_future(self._moved(subjects.epoch))
        try:
            await ownership.start()
            self.started.set()
            await asyncio.wait({failed, stopping, moved}, return_when=asyncio.FIRST_COMPLETED)
            self._ending.set()
        finally:
            stopping.cancel()
            moved.cancel()
            ownership.stop_seconds = min(ownership.stop_seconds, self.stop_seconds * 0.9)
            await ownership.stop()
        if failed.done():
            failed.result()

    async def _keep_shipping(self, failed: asyncio.Future[None]) -> None:
        self._progress = Progress()
        async with contextlib.AsyncExitStack() as stack:
            if self._questions is not None:
                subject = self._log.subjects.progress("archive")
                await stack.enter_async_context(self._questions.answering(subject, self._progress.answer))
            await self._ship_again_and_again(failed)

    async def _ship_again_and_again(self, failed: asyncio.Future[None]) -> None:
        backoff = _FIRST_BACKOFF
        while True:
            shipper = self._shipper = self._new_shipper()
            try:
                await shipper.run()
                return
            except Exception as error:  # noqa: BLE001  whatever it was, the archive is taken over again
                contradiction = next((each for each in causes(error) if isinstance(each, ContradictionError)), None)
                if contradiction is not None:
                    failed.set_exception(contradiction)
                    return
                self._progress.failed(sentence_of(error))
                log.warning("the archive is taken over again", action="archive_restarted", errors=chain_lines(error))
            if self._ending.is_set():
                return
            backoff = _FIRST_BACKOFF if shipper.began.is_set() else min(backoff * 2, _LAST_BACKOFF)
            await asyncio.sleep(backoff)

    def _new_shipper(self) -> Shipper:
        subjects = self._log.subjects
        fence = PostgresFence(self._database, subjects.service, subjects.epoch)
        return Shipper(
            self._log,
            self._objects,
            fence,
            self._deployment,
            close_seconds=self._close_seconds,
            progress=self._progress,
        )

    async def _stop(self) -> None:
        await self.stopping.wait()

    async def _lost(self, _: int) -> None:
        """The archive is to be given back, or is somebody else's already."""
        shipping, self._shipping = self._shipping, None
        if shipping is None:
            return
        if self._ending.is_set() and self._shipper is not None:
            self._shipper.finish()
            await asyncio.wait({shipping}, timeout=min(FINISH_SECONDS, self.stop_seconds * 0.8))
        shipping.cancel()
        await asyncio.wait({shipping})
        self._shipper = None


async def _alone(instance: str) -> AsyncIterator[Collection[str]]:
    """To `PartitionOwnership` there is no other instance: each waits for the one lock."""
    yield {instance}
    await asyncio.Event().wait()

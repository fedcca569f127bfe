"""What a gateway tells administrators: parked commits, the check of the rows against the log, and health.

A check folds the whole log, so it runs in a process of its own; an advisory lock keeps it the only one of all gateways.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from runstream import api
from runstream.commits import Position
from runstream.database.connection import hang_up, lock_key
from runstream.errors import BadRequestError
from runstream.gateway.requests import FsckBody
from runstream.gateway.routes.operations import fsck_runs
from runstream.gateway.streaming import ReportProgress
from runstream.log.jetstream import JetStreamLog
from runstream.maintenance.request import SERVICE, MaintenanceControl
from runstream.projections.parked import list_parked_after, list_skip_decisions, request_retry, skip_commit
from runstream.projections.parked_commit import detail_answer, find, parked_answer, skipped_answer
from runstream.projections.rebuild_processes import OnDone, run_in_processes
from runstream.service.platform import Platform
from runstream.settings import Settings

_TOLD_SECONDS = 0.5
"""Interval of a check's reports of progress."""
_HEALTH_SECONDS = 20.0
"""Maximum time of the checks of health."""
_HEALTH_AGE = timedelta(seconds=10)
"""Age of findings after which they are looked for again."""


class ServedParked:
    """The parked commits of both services."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def page(self, service: str, after: Position | None, limit: int) -> api.ParkedList:
        """Return the parked commits behind a position."""
        async with self._platform.pool().snapshot() as transaction:
            found = await list_parked_after(transaction, after, limit + 1, projection=service)
        return api.ParkedList(tuple(map(parked_answer, found[:limit])), len(found) > limit)

    async def get(self, service: str, position: Position) -> api.ParkedCommitDetail:
        """Return a commit that is parked or was skipped. Raises NotExistError."""
        return detail_answer(await find(self._log(service), self._platform.pool(), position))

    async def skipped(self, service: str) -> api.SkippedList:
        """Return the skipped commits."""
        return api.SkippedList(tuple(map(skipped_answer, await list_skip_decisions(self._log(service)))))

    async def retry(self, positions: tuple[Position, ...]) -> int:
        """Ask the schedulers to try these (or all) again; return their number."""
        return await request_retry(self._platform.pool(), positions)

    async def skip(self, service: str, position: Position, *, actor: str, reason: str) -> Position:
        """Skip a commit for good. Raises NotExistError, ConflictError, and BadRequestError in maintenance."""
        control = MaintenanceControl(self._platform.nats, self._platform.settings.namespace)
        requested = await control.requested(service)
        if requested is not None and requested.enabled:
            raise BadRequestError(
                f"the service {service} is in maintenance: nothing is appended to its log",
                code="maintenance",
                hint=f"decide when maintenance has ended: runstream maintenance disable --service {service}",
            )
        return await skip_commit(
            self._log(service), self._platform.pool(), position, actor=actor, reason=reason, at=datetime.now(UTC)
        )

    def _log(self, service: str) -> JetStreamLog:
        return self._platform.log if service == SERVICE else self._platform.config()


class ServedFsck:
    """The check of everything that is derived from the log."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def run(self, report: ReportProgress, wanted: FsckBody) -> object:
        """Compare all; report the number of compared commits. Raises ConflictError while another check runs."""
        log, partitions = self._platform.log, wanted.partitions
        for partition in partitions:
            if not 0 <= partition < log.partitions:
                raise BadRequestError(
                    f"the log has no partition {partition}",
                    code="invalidPartition",
                    hint=f"its partitions are 0 to {log.partitions - 1}",
                )
        async with self._alone():
            total = sum([await log.end(number) for number in partitions or range(log.partitions)])
            done = 0

            def tell(more: int) -> None:
                nonlocal done
                done += more
                report("comparing", done, total)

            tell(0)
            # Two, so that the work runs in another process than this one.
            (found,) = await run_in_processes(_checked, [(self._platform.settings, wanted)], [1], 2, tell)
            return found

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        database = self._platform.pool()
        connection = await database.connect(watchful=True, application="runstream fsck")
        try:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", lock_key(f"{database.schema}/fsck")):
                raise fsck_runs()
            yield
        finally:
            await hang_up(connection)


async def _checked(work: tuple[Settings, FsckBody], tell: OnDone) -> dict[str, object]:
    """Run the check; this is the other process."""
    from runstream.projections.fsck import FsckFindings
    from runstream.service.checking import check_everything, values_of

    settings, wanted = work
    report, told = FsckFindings(), 0
    objects = wanted.archive and not wanted.partitions if wanted.objects is None else wanted.objects
    checking = asyncio.ensure_future(
        check_everything(
            settings, wanted.partitions or None, with_archive=wanted.archive, with_objects=objects, report=report
        )
    )
    try:
        while not (await asyncio.wait({checking}, timeout=_TOLD_SECONDS))[0]:
            tell(report.commits - told)
            told = report.commits
        return values_of(await checking)
    finally:
        checking.cancel()


class ServedHealth:
    """The findings of `runstream doctor` that a gateway can know."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._looking = asyncio.Lock()
        self._last: api.Health | None = None

    async def findings(self) -> api.Health:
        """Return the findings, at most ten seconds old."""
        from runstream.service.doctor import Finding, examine_servers  # not paid for by the start of a gateway

        async with self._looking:
            now = datetime.now(UTC)
            if self._last is None or now - self._last.at > _HEALTH_AGE:
                found: list[Finding] = []
                try:
                    async with asyncio.timeout(_HEALTH_SECONDS):
                        async for finding in examine_servers(self._platform.settings, self._platform.nats_folder):
                            found.append(finding)  # noqa: PERF401  those before a timeout are kept
                except TimeoutError:
                    why = f"not all of them were done in {_HEALTH_SECONDS:.0f} s"
                    found.append(Finding("checks", "problem", why, "run `runstream doctor` where the service runs"))
                self._last = api.Health(now, tuple(api.HealthFinding(**asdict(one)) for one in found))
            return self._last

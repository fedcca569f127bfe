"""Operate a service: executors, maintenance mode, exports and imports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from urllib.parse import quote

import httpx2
import msgspec

from runstream.api import (
    CacheList,
    Executor,
    ExecutorList,
    FsckState,
    ImportReport,
    Maintenance,
    ParkedCommitDetail,
    ParkedList,
    RetriedCommits,
    SkippedCommit,
    SkippedList,
)
from runstream.client.errors import ConnectionFailedError
from runstream.client.paths import api_path
from runstream.client.session import Session, Stream, decoded, lines_of, refusal

STATUS_WAIT_SECONDS = 20.0
"""Maximum wait of one request for a change of the status, in seconds."""
_SILENCE_SECONDS = 60.0
_NDJSON = {"Accept": "application/x-ndjson"}
_IMPORT_CONTINUES = "it continues at the service: follow it again, or see `runstream epochs list`"


class Executors:
    """Operations on executors."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def list(self) -> tuple[Executor, ...]:
        """Return all executors that were not deleted, by id."""
        return (await self._session.read("/executors", ExecutorList)).executors

    async def drain(self, executor_id: str) -> None:
        """Give an executor no new tasks; its running ones continue. Raises ClientError (not-exist)."""
        await self._act(executor_id, "drain")

    async def undrain(self, executor_id: str) -> None:
        """Give a drained executor new tasks again. Raises ClientError (not-exist)."""
        await self._act(executor_id, "undrain")

    async def _act(self, executor_id: str, action: str) -> None:
        path = api_path("executors", executor_id, "actions")
        await self._session.write("PUT", path, {"action_type": action}, type(None))

    async def delete(self, executor_id: str) -> None:
        """Remove an executor; its unfinished tasks fail once it is found to be gone. Raises ClientError (not-exist)."""
        await self._session.write("DELETE", api_path("executors", executor_id), None, type(None))


class Caches:
    """Operations on the caches of tasks."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def page(self, group: str = "", prefix: str = "", *, limit: int = 100, cursor: str = "") -> CacheList:
        """Return the caches of a group, or of all, whose keys begin with a text, in order. Raises ClientError."""
        params = {"group": group, "prefix": prefix, "limit": limit, "cursor": cursor}
        return await self._session.read("/caches", CacheList, {name: value for name, value in params.items() if value})

    async def delete(self, group: str, key: str) -> None:
        """Delete a cache. Raises ClientError (not-exist)."""
        path = f"/caches?group={quote(group, safe='')}&key={quote(key, safe='')}"
        await self._session.write("DELETE", path, None, type(None))


class ParkedClient:
    """Operations on parked commits: those that could not be read or applied; `service` is `runs` or `config`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def page(self, service: str = "runs", *, after: str = "", limit: int = 100) -> ParkedList:
        """Return parked commits in the order of the log, those behind the position `after`. Raises ClientError."""
        params = {"service": service, "limit": limit, **({"after": after} if after else {})}
        return await self._session.read("/parked", ParkedList, params)

    async def get(self, position: str, service: str = "runs") -> ParkedCommitDetail:
        """Return a parked or skipped commit as it is in the log. Raises ClientError (not-exist)."""
        return await self._session.read(
            api_path("parked", *position.split("/")), ParkedCommitDetail, {"service": service}
        )

    async def skipped(self, service: str = "runs") -> tuple[SkippedCommit, ...]:
        """Return the skipped commits: by whom, when and why. Raises ClientError."""
        return (await self._session.read("/parked/skipped", SkippedList, {"service": service})).skipped

    async def retry(self, positions: Sequence[str] = ()) -> int:
        """Ask the schedulers to try these parked commits of `runs` again, or all; return their number."""
        body = {"action_type": "retry", "positions": list(positions)}
        return (await self._session.write("PUT", "/parked/actions", body, RetriedCommits)).asked

    async def skip(self, position: str, service: str = "runs", *, reason: str) -> str:
        """Skip a parked commit for good; return the position of the decision.

        Raises ClientError: not-exist when it is not parked, conflict when another one has to be decided about first.
        """
        body = {"action_type": "skip", "reason": reason}
        path = f"{api_path('parked', *position.split('/'), 'actions')}?service={quote(service, safe='')}"
        return (await self._session.write("PUT", path, body, _Decided)).position


class _Decided(msgspec.Struct):
    position: str


class Checks:
    """The check of the rows, the archive and the objects against the log; one runs at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def start(
        self, *, partitions: Sequence[int] = (), archive: bool = True, objects: bool | None = None
    ) -> FsckState:
        """Start a check, which goes on without this client. Raises ClientError; of kind conflict while one runs."""
        body = {"partitions": list(partitions), "archive": archive, "objects": objects}
        return await self._session.write("POST", "/fsck", body, FsckState)

    async def state(self) -> FsckState:
        """Return the progress of the check at this gateway, or what the last one found. Raises ClientError."""
        return await self._session.read("/fsck", FsckState)


class _ModeRequest(msgspec.Struct, omit_defaults=True):
    by: str = ""
    reason: str = ""
    deadline: str = ""


class MaintenanceMode:
    """Operations on maintenance mode; `service` is `runs`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def status(self, service: str = "runs", *, unlike: str = "") -> Maintenance:
        """Return the status. With an earlier status's tag as `unlike`, wait (at most 20 s) until it has changed."""
        params = {"unlike": unlike, "seconds": STATUS_WAIT_SECONDS} if unlike else {}
        return await self._session.read(api_path("maintenance", service), Maintenance, params)

    async def enable(self, service: str = "runs", *, by: str = "", reason: str = "", deadline: str = "") -> Maintenance:
        """Request maintenance and return at once; after `deadline`, such as `10m`, running tasks are stopped.

        Raises ClientError (bad-request) when it is enabled already.
        """
        return await self._session.write(
            "PUT", api_path("maintenance", service), _ModeRequest(by, reason, deadline), Maintenance
        )

    async def disable(self, service: str = "runs", *, by: str = "", reason: str = "") -> Maintenance:
        """End maintenance. Raises ClientError: bad-request when it is disabled, conflict while an import runs."""
        path = api_path("maintenance", service)
        return await self._session.write("DELETE", path, _ModeRequest(by, reason), Maintenance)

    async def forget(self, instance_id: str, service: str = "runs") -> None:
        """Forget a lost process. Raises ClientError: not-exist, bad-request for one that is not lost."""
        path = api_path("maintenance", service, "instances", instance_id)
        await self._session.write("DELETE", path, None, type(None))


class ImportProgress(msgspec.Struct, frozen=True):
    """The progress of an import."""

    step: str
    """The current step: verifying, loading, making indexes, storing objects or switching."""
    done: int
    total: int
    """Commits or objects; 0 when not known."""


OnProgress = Callable[[ImportProgress], None]


class Snapshots:
    """Exports of the log, and imports."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def export(self, service: str = "", *, until: str = "", include: str = "") -> Stream[bytes]:
        """Export the log as a snapshot file, chunk by chunk: up to a position or a time (with zone), or up to now.

        `service` is `runs`, or `config` (users, projects, secrets); without it the file holds both. `include` may name
        `logs` and `archives` of runs, separated by a comma. A file without its `END` was cut off; `runstream snapshot
        verify` detects it. Raises ClientError.
        """
        params = {name: value for name, value in (("until", until), ("with", include)) if value}
        return self._session.streams.stream(self._export(_of_service("export", service), params))

    async def _export(self, path: str, params: dict[str, str]) -> AsyncGenerator[bytes, None]:
        async with (
            self._session.stream(path, params, {}, silence=_SILENCE_SECONDS) as answer,
            aclosing(answer.aiter_bytes()) as chunks,
        ):
            async for chunk in chunks:
                yield chunk

    async def load(
        self,
        content: AsyncIterator[bytes],
        service: str = "",
        *,
        name: str = "",
        dry_run: bool = False,
        tell: OnProgress | None = None,
    ) -> ImportReport:
        """Replace the logs of all services in the file, or of one service, by a snapshot: all of it or nothing.

        These services have to be in maintenance. With `dry_run` nothing is changed. Returns when the import is done,
        which may take minutes; `tell` is called with its progress once the file is sent. When the connection breaks
        the import continues at the service, and `follow` waits for it. Raises ClientError.
        """
        path = _of_service("import", service)
        params = {key: value for key, value in (("name", name), ("dry_run", "1" if dry_run else "")) if value}
        if tell is None:
            return await self._session.upload(path, content, params, ImportReport)
        # The service sends nothing until it has the whole file, however long that takes; then a line every few seconds.
        async with self._session.stream(path, params, _NDJSON, silence=None, content=content) as answer:
            return await _await_report(answer, tell)

    async def follow(self, tell: OnProgress, service: str = "") -> ImportReport:
        """Wait for the import that runs and named this service (or none), or return the report of the last one.

        Raises ClientError: with code `noImport` when there was none, or the error that the import ended with.
        """
        async with self._session.stream(
            _of_service("import", service), {}, _NDJSON, silence=_SILENCE_SECONDS
        ) as answer:
            return await _await_report(answer, tell)


def _of_service(path: str, service: str) -> str:
    return api_path(path, service) if service else api_path(path)


class _ImportLine(msgspec.Struct):
    progress: ImportProgress | None = None
    result: ImportReport | None = None
    error: msgspec.Raw = msgspec.Raw()


async def _await_report(answer: httpx2.Response, tell: OnProgress) -> ImportReport:
    if not answer.headers.get("Content-Type", "").startswith(_NDJSON["Accept"]):  # from an older service
        return decoded(await answer.aread(), answer, ImportReport)
    try:
        async with aclosing(lines_of(answer)) as lines:
            while True:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    line = decoded((await anext(lines)).encode(), answer, _ImportLine)
                if line.progress is not None:
                    tell(line.progress)
                elif line.result is not None:
                    return line.result
                elif line.error:
                    raise refusal(bytes(line.error), answer)
    except (StopAsyncIteration, TimeoutError, httpx2.TransportError) as error:
        raise ConnectionFailedError("the connection to the import was lost", hint=_IMPORT_CONTINUES) from error

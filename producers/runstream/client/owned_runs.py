"""The runs of projects, and the direct runs of users, by number."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Literal

from runstream.api import OwnedRun, OwnedRunSummary, OwnedTask
from runstream.client.paths import api_path
from runstream.client.session import Session, Stream


class OwnedRuns:
    """Operations on the runs of projects, or of users; an owner is named by its path, name or id."""

    def __init__(self, session: Session, owners: Literal["projects", "users"]) -> None:
        self._session = session
        self._owners = owners

    async def page(
        self,
        owner: str,
        *,
        subgroup: str = "",
        phases: Sequence[str] = (),
        results: Sequence[str] = (),
        limit: int = 30,
        start: int = 0,
        cursor: str = "",
    ) -> tuple[tuple[OwnedRunSummary, ...], str]:
        """Return a page of runs, the latest first, and the cursor of the next page; empty after the last.

        `subgroup` is such as `branch/main`, with the name escaped; `start` is the number behind which the page begins.
        Raises ClientError.
        """
        params: dict[str, str | Sequence[str]] = {"limit": str(limit), "phase": phases, "result": results}
        params |= {name: text for name, text in (("subgroup", subgroup), ("cursor", cursor)) if text}
        params |= {"start": str(start)} if start else {}
        return await self._session.read_page(self._path(owner), tuple[OwnedRunSummary, ...], params)

    async def get(self, owner: str, number: int) -> OwnedRun:
        """Return a run. Raises ClientError (not-exist, `runDoesNotExist`)."""
        return await self._session.read(self._path(owner, str(number)), OwnedRun)

    async def task(self, owner: str, number: int, task_id: str) -> OwnedTask:
        """Return a task with its steps. Raises ClientError (not-exist, `runTaskDoesNotExist`)."""
        return await self._session.read(self._path(owner, str(number), "tasks", task_id), OwnedTask)

    def log(self, owner: str, number: int, task_id: str, step: int | None, *, follow: bool = False) -> Stream[bytes]:
        """Read the log of a step (None: of the setup), chunk by chunk; with `follow` until it ends. Raises ClientError.

        A response that breaks off is not resumed.
        """
        path = self._path(owner, str(number), "tasks", task_id, "logs")
        params = {"setup": "1"} if step is None else {"step": str(step)}
        return self._session.streams.stream(self._chunks(path, params | ({"follow": "1"} if follow else {})))

    async def delete_log(self, owner: str, number: int, task_id: str, step: int | None) -> None:
        """Delete the stored log of a step (None: of the setup). Raises ClientError."""
        which = "setup" if step is None else f"step={step}"
        path = self._path(owner, str(number), "tasks", task_id, "logs")
        await self._session.write("DELETE", f"{path}?{which}", None, type(None))

    async def _chunks(self, path: str, params: dict[str, str]) -> AsyncGenerator[bytes, None]:
        async with (
            self._session.stream(path, params, self._session.own_writes(), silence=None) as answer,
            aclosing(answer.aiter_bytes()) as chunks,
        ):
            async for chunk in chunks:
                yield chunk

    def _path(self, owner: str, *below: str) -> str:
        return api_path(self._owners, owner, "runs", *below)

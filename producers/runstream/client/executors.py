"""Executors: list and delete."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from runstream.client.types import Executor
from runstream.client.wire import Wire


@dataclass(frozen=True, slots=True)
class _ExecutorsAnswer:
    executors: tuple[Executor, ...]


class Executors:
    """What can be asked about executors."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def list(self) -> tuple[Executor, ...]:
        """All executors that were not deleted, by id."""
        return (await self._wire.read("/executors", _ExecutorsAnswer)).executors

    async def delete(self, executor_id: str) -> None:
        """Forget an executor; its tasks are failed once it is found to be gone. Raises ClientError (not-exist)."""
        await self._wire.write("DELETE", f"/executors/{quote(executor_id, safe='')}", None, type(None))

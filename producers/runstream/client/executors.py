"""Executors: list, drain and delete."""

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

    async def drain(self, executor_id: str) -> None:
        """Let an executor get no new tasks; those that it has go on. Raises ClientError (not-exist)."""
        await self._act(executor_id, "drain")

    async def undrain(self, executor_id: str) -> None:
        """Let an executor get new tasks again. Raises ClientError (not-exist)."""
        await self._act(executor_id, "undrain")

    async def _act(self, executor_id: str, action: str) -> None:
        path = f"/executors/{quote(executor_id, safe='')}/actions"
        await self._wire.write("PUT", path, {"action_type": action}, type(None))

    async def delete(self, executor_id: str) -> None:
        """Forget an executor; its tasks are failed once it is found to be gone. Raises ClientError (not-exist)."""
        await self._wire.write("DELETE", f"/executors/{quote(executor_id, safe='')}", None, type(None))

"""One driver made of two: host tasks run by the one, tasks with containers by the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runstream.executor.drivers.port import Driver, Output, Pod, ServiceOutput
from runstream.executor.spec import ExecutorTaskSpec
from runstream.executor.workdir import TaskFolder


class ByRuntime:
    """A driver that gives each task to the driver of its runtime."""

    def __init__(self, host: Driver, pods: Driver) -> None:
        self._host = host
        self._pods = pods

    @property
    def allow_host(self) -> bool:
        """Whether it runs host tasks."""
        return self._host.allow_host

    @property
    def allow_pod(self) -> bool:
        """Whether it runs containers."""
        return self._pods.allow_pod

    @property
    def sandbox(self) -> str:
        """How host tasks are isolated from the machine."""
        return self._host.sandbox

    @property
    def engine(self) -> str:
        """The container engine."""
        return self._pods.engine

    @property
    def engine_away(self) -> str:
        """Why the container engine cannot be used now."""
        return self._pods.engine_away

    @property
    def engine_cpu(self) -> int:
        """Thousandths of a processor of the engine's machine."""
        return self._pods.engine_cpu

    @property
    def engine_memory(self) -> int:
        """Bytes of memory of the engine's machine."""
        return self._pods.engine_memory

    @property
    def archs(self) -> tuple[str, ...]:
        """The architectures of the container engine, unless host tasks run here: they have this machine's."""
        return () if self._host.allow_host else self._pods.archs

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call `changed` when the container engine comes or goes."""
        self._pods.on_change(changed)

    def act_until(self, until: float, lapsed: Callable[[], None]) -> None:
        """Let tasks run until then."""
        self._host.act_until(until, lapsed)
        self._pods.act_until(until, lapsed)

    def expect_tasks(self, expected: bool) -> None:
        """Let both drivers prepare for the next task."""
        self._host.expect_tasks(expected)
        self._pods.expect_tasks(expected)

    async def setup(self) -> None:
        """Set both drivers up."""
        await asyncio.gather(self._host.setup(), self._pods.setup())

    async def new_pod(
        self, task_id: str, spec: ExecutorTaskSpec, folder: TaskFolder, output: Output, services: ServiceOutput
    ) -> Pod:
        """Create a pod by the driver of the task's runtime."""
        driver = self._pods if spec.task.runtime.type == "pod" and self._pods.allow_pod else self._host
        return await driver.new_pod(task_id, spec, folder, output, services)

    async def end_leftover(self, task_id: str, folder: TaskFolder) -> None:
        """End what an earlier process left of a task."""
        await self._host.end_leftover(task_id, folder)
        await self._pods.end_leftover(task_id, folder)

    async def sweep(self) -> None:
        """End what earlier processes left."""
        await self._host.sweep()
        await self._pods.sweep()

    async def close(self) -> None:
        """Close both drivers."""
        await self._pods.close()
        await self._host.close()

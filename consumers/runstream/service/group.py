"""The components of one process: started in order, watched together, stopped in the opposite order.

The first one that ends by itself ends the process. All of them together have a bounded time to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType

import structlog

from runstream.errors import InternalError, RunstreamError, outermost
from runstream.lifecycle import Component
from runstream.service.edge import sentence
from runstream.service.stopping import StopRequest
from runstream.telemetry.health import Check, check_all

SERVERS_SECONDS = 2.0
"""What is kept of the time for stopping for telemetry and the servers."""
START_SECONDS = 60.0
_FORCED_SECONDS = 0.2
log = structlog.get_logger()


@contextlib.asynccontextmanager
async def running(
    components: Sequence[Component], request: StopRequest, checks: Mapping[str, Check] = MappingProxyType({})
) -> AsyncIterator[None]:
    """Start these, one after the other; stop them when the block ends.

    `checks` tell what is away when a component does not start in time.
    """
    started: list[Component] = []
    try:
        for component in components:
            started.append(component)
            await _start(component, checks)
        yield
    finally:
        await _stop_all(started, request)


async def first_end(components: Sequence[Component]) -> InternalError:
    """Wait until one of them ends by itself, and say which and why."""
    waiting = {asyncio.create_task(component.wait()): component for component in components}
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    task = next(iter(done))
    return _ended(waiting[task], task.exception() if not task.cancelled() else None)


def _ended(component: Component, cause: BaseException | None) -> InternalError:
    known = outermost(cause) if cause is not None else None
    why = f": {sentence(cause)}" if cause is not None else ""
    error = InternalError(
        f"the {component.name} has ended{why}",
        code="componentEnded",
        details={"component": component.name},
        hint=(known.hint if known is not None else "") or "its last log records say what happened; start it again",
    )
    error.__cause__ = cause
    return error


async def _start(component: Component, checks: Mapping[str, Check]) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            await component.start()
    except TimeoutError as error:
        found = await check_all(checks)
        failing = {name: why for name, why in found.items() if why != "ok"}
        raise InternalError(
            f"the {component.name} has not started within {START_SECONDS:.0f} seconds",
            code="componentNotStarted",
            details={"failing": failing},
            hint="its log records say what it waits for",
        ) from error
    except RunstreamError:
        raise
    except Exception as error:
        raise InternalError(
            f"the {component.name} has not started: {sentence(error)}",
            code="componentNotStarted",
            hint="--detailed-errors shows where",
        ) from error
    log.info(f"{component.name} started", action="component_started", component=component.name)


async def _stop_all(started: Sequence[Component], request: StopRequest) -> None:
    stopping = asyncio.create_task(_stop_in_order(started, request))
    insisted = asyncio.create_task(request.insisted.wait())
    await asyncio.wait({stopping, insisted}, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        for component in started:
            component.stop_seconds = _FORCED_SECONDS
        await asyncio.gather(*(component.stop() for component in started))
    insisted.cancel()
    await stopping


async def _stop_in_order(started: Sequence[Component], request: StopRequest) -> None:
    for component in reversed(started):
        component.stop_seconds = min(component.stop_seconds, request.remaining(SERVERS_SECONDS) - SERVERS_SECONDS)
        await component.stop()
        log.info(f"{component.name} stopped", action="component_stopped", component=component.name)

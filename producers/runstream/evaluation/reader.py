"""Reading configurations beside an event loop: in threads, few at a time, so that none of them holds up the rest.

Programs wait for each other and texts do too, but no text waits for a program.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

from runstream.errors import InternalError
from runstream.evaluation.evaluation import LIMITS, Limits
from runstream.evaluation.files import PROGRAMS, ConfigName, parse_file
from runstream.runconfig import ParsedConfig, RefContext

T = TypeVar("T")
_NOTHING: Mapping[str, str] = {}
AT_ONCE = 2
"""Programs that are evaluated at once, and texts that are read at once; programs may take LIMITS each."""
WAITING_SECONDS = 20.0


class ConfigReader:
    """Reads configurations for a service."""

    def __init__(self, limits: Limits = LIMITS, at_once: int = AT_ONCE, waiting_seconds: float = WAITING_SECONDS):
        self._limits = limits
        self._waiting_seconds = waiting_seconds
        self._programs = asyncio.Semaphore(at_once)
        self._texts = asyncio.Semaphore(at_once)

    async def read(
        self,
        name: ConfigName,
        content: str,
        context: RefContext,
        then: Callable[[ParsedConfig], T],
        imports: Mapping[str, str] = _NOTHING,
        source: str = "",
    ) -> T:
        """What `then` makes of the configuration; it too may take long, and is called in the thread.

        Raises what `parse_file` raises; InternalError (configsBusy) when too many others are read.
        """
        turns = self._programs if name in PROGRAMS else self._texts
        await self._turn(turns)
        reading = asyncio.ensure_future(
            asyncio.to_thread(
                lambda: then(parse_file(name, content, context, self._limits, source=source, imports=imports))
            )
        )
        reading.add_done_callback(lambda _: turns.release())
        return await asyncio.shield(reading)  # a thread goes on when nobody waits for it any more, so does its turn

    async def _turn(self, turns: asyncio.Semaphore) -> None:
        try:
            async with asyncio.timeout(self._waiting_seconds):
                await turns.acquire()
        except TimeoutError as error:
            raise InternalError(
                "too many configurations are read at the moment", code="configsBusy", hint="try again in a moment"
            ) from error

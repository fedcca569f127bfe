"""Parsing configurations beside an event loop: in threads, a few at a time.

Programs and texts have slots of their own, so that no text waits for a program.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

from runstream.errors import InternalError
from runstream.evaluation.files import PROGRAMS, ConfigName, parse_file
from runstream.evaluation.program import LIMITS, NO_IMPORTS, EvaluationLimits
from runstream.runconfig.parse import ParsedConfig
from runstream.runconfig.refs import RefContext

T = TypeVar("T")
CONCURRENCY = 2
"""Programs evaluated at once, and texts parsed at once; each program may use up its limits."""
SLOT_TIMEOUT_SECONDS = 20.0


class ConfigReader:
    """A service's reader of configurations."""

    def __init__(
        self,
        limits: EvaluationLimits = LIMITS,
        concurrency: int = CONCURRENCY,
        slot_timeout_seconds: float = SLOT_TIMEOUT_SECONDS,
    ) -> None:
        self._limits = limits
        self._slot_timeout_seconds = slot_timeout_seconds
        self._program_slots = asyncio.Semaphore(concurrency)
        self._text_slots = asyncio.Semaphore(concurrency)

    async def read(
        self,
        name: ConfigName,
        content: str,
        context: RefContext,
        then: Callable[[ParsedConfig], T],
        imports: Mapping[str, str] = NO_IMPORTS,
        source: str = "",
    ) -> T:
        """Parse a configuration and return the result of `then`, which may take long: it runs in the thread too.

        Raise the errors of `parse_file`, and InternalError (configsBusy) if no slot gets free in time.
        """
        slots = self._program_slots if name in PROGRAMS else self._text_slots
        try:
            async with asyncio.timeout(self._slot_timeout_seconds):
                await slots.acquire()
        except TimeoutError as error:
            raise InternalError(
                "too many configurations are read at the moment", code="configsBusy", hint="try again in a moment"
            ) from error
        reading = asyncio.ensure_future(
            asyncio.to_thread(
                lambda: then(parse_file(name, content, context, self._limits, source=source, imports=imports))
            )
        )
        reading.add_done_callback(lambda _: slots.release())
        return await asyncio.shield(reading)  # a cancelled request's thread goes on, and keeps its slot until it ends

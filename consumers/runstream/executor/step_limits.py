"""How long a step may take, and how long it may be silent: timers of the event loop, which say once what was passed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from runstream.events.run_config import Step
from runstream.runconfig import format_duration

Limit = Literal["timeout", "no_output"]
_SECOND = 1_000_000_000


def said(limit: Limit, step: Step) -> str:
    """What a step did when it passed a limit of its own, for people."""
    if limit == "timeout":
        return f"it took longer than {format_duration(step.step_timeout_interval)}"
    return f"it wrote nothing for {format_duration(step.no_output_timeout)}"


class StepLimits:
    """Watches one step from now on. `close` when it has ended."""

    def __init__(self, step: Step, passed: Callable[[Limit], None]) -> None:
        """`passed` is called at most once."""
        self._loop = asyncio.get_running_loop()
        self._passed = passed
        self._silence = step.no_output_timeout / _SECOND
        self._heard_at = self._loop.time()
        self._timers: dict[Limit, asyncio.TimerHandle] = {}
        if step.step_timeout_interval:
            seconds = step.step_timeout_interval / _SECOND
            self._timers["timeout"] = self._loop.call_later(seconds, self._over, "timeout")
        if self._silence:
            self._listen()

    def heard(self) -> None:
        """The step wrote something."""
        self._heard_at = self._loop.time()

    def close(self) -> None:
        """It has ended."""
        while self._timers:
            self._timers.popitem()[1].cancel()

    def _listen(self) -> None:
        """Set the timer anew only when it ends: a step may write many times a second."""
        due = self._heard_at + self._silence
        if self._loop.time() >= due:
            self._over("no_output")
        else:
            self._timers["no_output"] = self._loop.call_at(due, self._listen)

    def _over(self, limit: Limit) -> None:
        self.close()
        self._passed(limit)

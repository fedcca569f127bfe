"""What an executor can run, as its driver says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Capabilities(Protocol):
    """What a driver can run on this machine; known after its setup, and changing with its container engine."""

    @property
    def allow_host(self) -> bool:
        """Whether it runs host tasks."""

    @property
    def allow_pod(self) -> bool:
        """Whether it runs containers at all; `engine_away` says whether it can now."""

    @property
    def sandbox(self) -> str:
        """How host tasks are isolated from the machine, as text; known after `setup`."""

    @property
    def engine(self) -> str:
        """The container engine, such as `docker 28.2.2`; empty without one, or before it was reached."""

    @property
    def engine_away(self) -> str:
        """Why the container engine cannot be used now; empty if it can, or if there is none."""

    @property
    def engine_cpu(self) -> int:
        """Thousandths of a processor of the container engine's machine; 0 if unknown."""

    @property
    def engine_memory(self) -> int:
        """Bytes of memory of the container engine's machine; 0 if unknown."""

    @property
    def archs(self) -> tuple[str, ...]:
        """The architectures for which it runs tasks; empty for this machine's."""

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call `changed` each time that `engine` or `engine_away` has changed."""

    def act_until(self, until: float, lapsed: Callable[[], None]) -> None:
        """Let tasks run until this time of the monotonic clock, even if this process stands still.

        Then they are ended from outside, and `lapsed` is called once this process notices.
        """

    def expect_tasks(self, expected: bool) -> None:
        """Say whether tasks may come now, so that a driver can prepare for the next one."""

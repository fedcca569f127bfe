"""What all drivers for containers have in common: labels, rules, and the errors of an engine."""

from __future__ import annotations

from collections.abc import Sequence

from runstream.errors import BadRequestError, InternalError
from runstream.events.run_config import Container

LABEL = "runstream.io"
OWN, EXECUTOR, POD, TASK, INDEX = (
    f"{LABEL}/{name}" for name in ("runstream", "executorid", "podid", "taskid", "containerindex")
)
CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE"),
    *("SETGID", "SETUID", "SYS_CHROOT"),
)
"""What a container's root may do, unless it is privileged: enough to install packages and to change users."""


class EngineUnreachableError(InternalError):
    """The container engine does not answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the container engine is unreachable: {reason}", code="engineUnreachable")
        self.reason = reason


class EngineRefusedError(BadRequestError):
    """The container engine refused a call."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the container engine refused: {message}", code="engineRefused", hint=hint_when_full(message))
        self.status = status
        self.reason = message


def hint_when_full(reason: str) -> str:
    """Return the hint for what an engine with a full disk says; empty for anything else."""
    return "the disk of the container engine is full" if "no space left" in reason.lower() else ""


def require_allowed(containers: Sequence[Container], *, allow_privileged: bool) -> None:
    """Raise BadRequestError for a privileged container where none are allowed."""
    for container in containers:
        if container.privileged and not allow_privileged:
            raise BadRequestError(
                f"the container of image {container.image} is privileged, which this executor does not allow",
                code="privilegedNotAllowed",
                hint="leave `privileged` out, or set executor.allow_privileged_containers where tasks are trusted",
            )

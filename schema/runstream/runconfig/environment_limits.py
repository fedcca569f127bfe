"""What fits into the environment of a process: a value that does not is refused before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runstream.counting import counted
from runstream.errors import BadRequestError
from runstream.events.run_config import RunConfig, Text

MAX_ENTRY_BYTES = 131_072
"""Of one variable: its name, `=`, its value and a final zero (Linux: MAX_ARG_STRLEN)."""
_SEALED_EXTRA_BYTES = 28
"""Nonce and tag of a sealed value."""
_NAMED = 5


def require_fitting_environment(config: RunConfig) -> None:
    """Raise BadRequestError that names each variable of the run that no process can take, and its size."""
    found = dict(_too_large(config))
    if not found:
        return
    sizes = [f"{name[:100]} is {counted(size, 'byte')}" for name, size in list(found.items())[:_NAMED]]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    raise BadRequestError(
        f"{', '.join(sizes)}{more}, a process can take {MAX_ENTRY_BYTES:,}",
        code="environmentTooLarge",
        details={"run": config.name, "variables": found},
        hint="hand it over in a file: in the repository, or by save_to_workspace",
    )


def _too_large(config: RunConfig) -> Iterator[tuple[str, int]]:
    for environment in _environments(config):
        for name, value in environment.items():
            size = _size(value)
            if len(name.encode()) + size + 2 > MAX_ENTRY_BYTES:
                yield name, size


def _environments(config: RunConfig) -> Iterator[Mapping[str, Text]]:
    yield from (config.static_environment, config.environment)
    for task in config.tasks.values():
        if task.skip:
            continue
        yield task.environment
        yield from (container.environment for container in task.runtime.containers)
        yield from (step.environment for step in task.steps if step.environment)


def _size(value: Text) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    return len(value.value) * 3 // 4 - value.value[-2:].count("=") - _SEALED_EXTRA_BYTES

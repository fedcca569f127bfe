"""What no container engine gives: too little of a resource, and volumes where none can be (rule config-6).

A configuration file and a ready-made run config of `POST /runs` are checked by these rules alike.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runstream.events.run_config import Resources, Volume
from runstream.runconfig.problems import quoted

_LEAST_PROCESSORS = 10
"""The least limit of processors that Docker accepts, in thousandths."""
_LEAST_MEMORY = 6 << 20
"""The least memory limit that Docker accepts, in bytes."""
_SUCH_AS = "such as /scratch"


@dataclass(frozen=True, slots=True)
class ContainerProblem:
    """What is wrong with a field of a container."""

    field: tuple[str | int, ...]
    """The keys that lead to it: `("volumes", 0, "path")`."""
    message: str
    hint: str

    def __str__(self) -> str:
        field = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.field)
        return f"{field[1:]}: {self.message} ({self.hint})"


def container_problems(resources: Resources, volumes: Sequence[Volume]) -> Iterator[ContainerProblem]:
    """Yield what no engine gives to a container, at most one problem for each field."""
    if 0 < resources.memory < _LEAST_MEMORY:
        yield ContainerProblem(
            ("resources", "memory"),
            f"{resources.memory} bytes are less than a container engine gives",
            "at least 6Mi; without it, no limit",
        )
    if 0 < resources.cpu < _LEAST_PROCESSORS:
        yield ContainerProblem(
            ("resources", "cpu"),
            f"{resources.cpu}m of a processor are less than a container engine gives",
            "at least 0.01; without it, no limit",
        )
    taken: set[str] = set()
    for index, volume in enumerate(volumes):
        if (problem := _path_problem(volume.path, taken)) is not None:
            yield ContainerProblem(("volumes", index, "path"), *problem)
        taken.add(_normal(volume.path))


def _path_problem(path: str, taken: set[str]) -> tuple[str, str] | None:
    """Return what is wrong with the path of a volume, and a hint; `taken` are the paths before it."""
    if not path:
        return "the volume has no path", _SUCH_AS
    if not path.startswith("/"):
        return f"the path {quoted(path)} of the volume is not absolute", _SUCH_AS
    normal = _normal(path)
    if normal in ("/", "/proc", "/sys", "/dev") or normal.startswith("/proc/"):
        return f"a volume cannot be at {quoted(path)}, which the container has already", _SUCH_AS
    if normal in taken:
        return f"duplicate volume at {quoted(path)}", "give each volume a path of its own"
    return None


def _normal(path: str) -> str:
    return posixpath.normpath(f"/{path.strip('/')}")

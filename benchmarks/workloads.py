"""The runs that are measured, as the log takes them and as HTTP does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import msgspec

from benchmarks.machine import COMMANDS
from runstream.events.run_config import RunConfig
from runstream.gateway.requests import CreateRunBody
from runstream.gateway.runs.create import PreparedRun
from runstream.gateway.runs.prepare import prepare_run

GROUPS = 64
"""Projects that the runs of a load belong to; each run has a group of its own, so that none waits for another."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of run."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    """For each task of the chain its commands, one a step."""
    image: str = ""
    """Of the container that the tasks run in; empty for the executor's machine."""

    def body(self, number: int) -> bytes:
        """What POST /runs takes."""
        return msgspec.json.encode({"group": self.group(number), "name": self.name, "run_config_tasks": self.tasks()})

    def new(self, number: int) -> PreparedRun:
        """The same run, as it is appended."""
        return PreparedRun(self.group(number), _config(self), {}, ())

    @staticmethod
    def group(number: int) -> str:
        """The group of the run of this number."""
        return f"/project/p{number % GROUPS}/branch/b{number}"

    def tasks(self) -> dict[str, Mapping[str, object]]:
        """Its tasks by id, as POST /runs takes them."""
        host: dict[str, object] = {"type": "host"}
        runtime = {"type": "pod", "containers": [{"image": self.image}]} if self.image else host
        return {
            f"t{index}": {
                "id": f"t{index}",
                "name": f"t{index}",
                "runtime": runtime,
                "steps": [{"type": "run", "name": command, "command": command, "tty": False} for command in commands],
                "depends": {f"t{index - 1}": {"task_id": f"t{index - 1}"}} if index else {},
            }
            for index, commands in enumerate(self.commands)
        }


@cache
def _config(workload: Workload) -> RunConfig:
    """What POST /runs makes of the body."""
    return prepare_run(msgspec.json.decode(workload.body(0), type=CreateRunBody)).config


ONE = Workload("one task", (("true",),))
CHAIN = Workload("chain of three", (("true",), ("true",), ("true",)))
SHELL = Workload("two shell steps", (COMMANDS,))

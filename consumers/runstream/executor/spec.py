"""What an executor needs to know of a task: generated from its run config when it is taken up, stored nowhere.

Run configs are read from the log by their hash, and kept in memory, bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from runstream.domain.executor_task import ExecutorTask
from runstream.errors import InternalError
from runstream.events.run_config import RunConfig, RunConfigStored, RunConfigTask, Sealed, Text
from runstream.executor.asking import asked
from runstream.executor.environment import task_environment
from runstream.ids import run_task_id
from runstream.log.port import Log
from runstream.runconfig import ancestors_of
from runstream.sealing import Keyring
from runstream.subjects import Address

_KEPT = 256


@dataclass(frozen=True, slots=True)
class WorkspaceArchive:
    """One archive that an ancestor may have left in the workspace."""

    task: str
    stored_id: str
    """What names its stored archives: its id, or that of the attempt or the earlier run that made them."""
    step: int


@dataclass(frozen=True, slots=True)
class ExecutorTaskSpec:
    """What is to be done."""

    task: RunConfigTask
    environment: dict[str, str] = field(repr=False)
    step_environments: tuple[dict[str, str], ...] = field(repr=False)
    """What each step adds to it."""
    secrets: frozenset[str] = field(repr=False)
    """Every text among all these that was sealed."""
    workspace: tuple[WorkspaceArchive, ...]
    """Those of all ancestors by level and name, each one's in the order of its steps (c.11)."""


class Specs:
    """Generates specs."""

    def __init__(self, log: Log, keyring: Keyring) -> None:
        """`keyring` opens the secrets of tasks."""
        self._log = log
        self._keyring = keyring
        self._configs: OrderedDict[str, RunConfig] = OrderedDict()

    async def spec(self, task: ExecutorTask, partition: int) -> ExecutorTaskSpec:
        """The spec of an assigned task.

        Raises InternalError when its run config is not in the log, or a secret of it cannot be opened.
        """
        config = await self._config(task.run_config, partition)
        own = config.tasks.get(task.task)
        if own is None:
            raise InternalError(f"the run config has no task {task.task!r}", code="runConfigIncomplete")
        opened = _Opened(self._keyring)
        return ExecutorTaskSpec(
            task=own,
            environment=opened.all(task_environment(config, own, task.counter, task.attempt)),
            step_environments=tuple(opened.all(step.environment or {}) for step in own.steps),
            secrets=frozenset(opened.secrets),
            workspace=workspace_of(config, own, task),
        )

    async def _config(self, content_hash: str, partition: int) -> RunConfig:
        config = self._configs.get(content_hash)
        if config is None:
            address = Address(partition, "runconfig", content_hash)
            stored = await asked(lambda: self._log.last(address))
            event = next(reversed(stored.commit.events), None) if stored is not None else None
            if not isinstance(event, RunConfigStored):
                raise InternalError(f"run config {content_hash} is not in the log", code="runConfigMissing")
            config = self._configs[content_hash] = event.content
            if len(self._configs) > _KEPT:
                self._configs.popitem(last=False)
        self._configs.move_to_end(content_hash)
        return config


class _Opened:
    """Opens texts, and remembers which were sealed."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self.secrets: set[str] = set()

    def all(self, texts: Mapping[str, Text]) -> dict[str, str]:
        return {name: self._one(text) for name, text in texts.items()}

    def _one(self, text: Text) -> str:
        plain = self._keyring.open(text)
        if isinstance(text, Sealed):
            self.secrets.add(plain)
        return plain


def workspace_of(config: RunConfig, own: RunConfigTask, task: ExecutorTask) -> tuple[WorkspaceArchive, ...]:
    """The archives that all ancestors of a task may have made, and where they are."""
    parents = (config.tasks[name] for name in ancestors_of(config.tasks, own.name))
    return tuple(
        WorkspaceArchive(parent.name, task.workspaces.get(parent.name, run_task_id(task.run_id, parent.name)), index)
        for parent in sorted(parents, key=lambda found: (found.level, found.name))
        for index, step in enumerate(parent.steps)
        if step.type == "save_to_workspace"
    )

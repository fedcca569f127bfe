"""What an executor needs to know of a task: generated from its run config when it is taken up, stored nowhere.

Run configs are read from the log by their hash, and kept in memory, bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from runstream.domain.executor_task import ExecutorTask
from runstream.errors import InternalError
from runstream.events.run_config import RunConfig, RunConfigStored, RunConfigTask
from runstream.executor.asking import asked
from runstream.executor.environment import for_steps, task_environment
from runstream.ids import run_task_id
from runstream.log.port import Log
from runstream.runconfig import ancestors_of
from runstream.sealing import Keyring, OpenedSecrets
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
class GitCredentials:
    """What git needs to reach the repository; empty where there is none."""

    username: str = ""
    password: str = ""
    private_key: str = ""


@dataclass(frozen=True, slots=True)
class ExecutorTaskSpec:
    """What is to be done."""

    task: RunConfigTask
    environment: dict[str, str] = field(repr=False)
    step_environments: tuple[dict[str, str], ...] = field(repr=False)
    """What each step adds to it."""
    git_credentials: GitCredentials = field(repr=False)
    """For the clone step alone."""
    secrets: frozenset[str] = field(repr=False)
    """Every text among all these that was sealed."""
    workspace: tuple[WorkspaceArchive, ...]
    """Those of all ancestors by level and name, each one's in the order of its steps (rule step-18)."""


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
        opened = OpenedSecrets(config, own, self._keyring)
        environment = task_environment(
            opened.all(own.environment, "task.environment"),
            opened.all(config.static_environment, "static"),
            opened.all(config.environment, "environment"),
            task.counter,
            task.attempt,
        )
        return ExecutorTaskSpec(
            task=own,
            environment=for_steps(environment, opened.secrets),
            git_credentials=GitCredentials(
                environment.get("RUNSTREAM_GIT_USERNAME", ""),
                environment.get("RUNSTREAM_GIT_PASSWORD", ""),
                environment.get("RUNSTREAM_SSHPRIVKEY", ""),
            ),
            step_environments=tuple(
                opened.all(step.environment or {}, f"task.steps.{at}.environment") for at, step in enumerate(own.steps)
            ),
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


def workspace_of(config: RunConfig, own: RunConfigTask, task: ExecutorTask) -> tuple[WorkspaceArchive, ...]:
    """The archives that all ancestors of a task may have made, and where they are."""
    parents = (config.tasks[name] for name in ancestors_of(config.tasks, own.name))
    return tuple(
        WorkspaceArchive(parent.name, task.workspaces.get(parent.name, run_task_id(task.run_id, parent.name)), index)
        for parent in sorted(parents, key=lambda found: (found.level, found.name))
        for index, step in enumerate(parent.steps)
        if step.type == "save_to_workspace"
    )

"""All messages of the log about one run: its own, those of its executor tasks, and decisions to skip one of them.

An executor task can have a commit only after the attempt before it has one. So the subjects of later attempts are read
only for tasks whose earlier attempt is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cachetools import LRUCache

from runstream.commits import StoredCommit
from runstream.domain.executor_task import ExecutorTask
from runstream.domain.run import RunState
from runstream.events.run import RunCreated
from runstream.events.run_config import RunConfig
from runstream.feed import classify, commits_of
from runstream.folding import executor_task_of
from runstream.log.port import Log, RawMessage
from runstream.log.runs import FoundRun, config_of, fold_run, head_of, run_does_not_exist
from runstream.log.tail import executions_of
from runstream.skips import Skips
from runstream.subjects import Address, is_decision

_CONFIGS = 512


@dataclass(frozen=True, slots=True)
class RunMessages:
    """The messages of a run, in order."""

    found: FoundRun
    """The run as its first commit made it."""
    executions: Mapping[str, str]
    """The names of its tasks by the ids of the executor tasks that their attempts have or may get."""
    messages: list[RawMessage]
    """Those of the run and of its executor tasks, and all decisions to skip commits of the partition."""


@dataclass(slots=True)
class RunReader:
    """Reads of single runs from the log."""

    log: Log
    _configs: LRUCache[tuple[int, int, str], RunConfig] = field(default_factory=lambda: LRUCache(_CONFIGS))
    """Run configs, which never change, by epoch, partition and hash."""

    async def run(self, address: Address) -> RunMessages:
        """Return the messages of a run. Raises NotExistError, also for a run whose creation is skipped."""
        subjects, partition = self.log.subjects, address.partition
        messages = await self.log.messages(partition, [subjects.of(address), subjects.skips(partition)])
        first = next(iter(commits_of(classify(without_decisions(messages)[:1], set(), skips_in(messages)))), None)
        created = next(iter(first.commit.events), None) if first is not None else None
        if first is None or not isinstance(created, RunCreated):
            raise run_does_not_exist(address.id)
        config = await self._config(partition, created.run_config)
        run = fold_run(address, created, config, [first])
        found = FoundRun(address, run, config, head_of([first]))
        executions = executions_of(found)
        messages += await self._of_executor_tasks(partition, executions)
        messages.sort(key=lambda message: message.position.sequence)
        return RunMessages(found, executions, messages)

    async def kept(self, partition: int, run: RunState, skips: Skips) -> dict[str, ExecutorTask]:
        """Return the executor tasks of tasks kept from earlier runs, which ended before this run began."""
        ids = [task.executor_task_id for task in run.tasks.values() if task.kept and task.executor_task_id]
        histories: dict[str, list[StoredCommit]] = {}
        for stored in commits_of(classify(await self._messages_of(partition, ids), set(), skips)):
            histories.setdefault(stored.commit.address.id, []).append(stored)
        found = {key: executor_task_of(history) for key, history in histories.items()}
        return {key: task for key, task in found.items() if task is not None}

    async def _of_executor_tasks(self, partition: int, executions: Mapping[str, str]) -> list[RawMessage]:
        attempts: dict[str, list[str]] = {}
        for key, task in executions.items():
            attempts.setdefault(task, []).append(key)
        found: list[RawMessage] = []
        while attempts:
            batch = await self._messages_of(partition, [keys[0] for keys in attempts.values()])
            found += batch
            begun = set(map(id_of, batch))
            attempts = {task: keys[1:] for task, keys in attempts.items() if keys[0] in begun and keys[1:]}
        return found

    async def _messages_of(self, partition: int, ids: Iterable[str]) -> list[RawMessage]:
        subjects = [self.log.subjects.guard(Address(partition, "task", key)) for key in ids]
        return await self.log.messages(partition, subjects) if subjects else []

    async def _config(self, partition: int, digest: str) -> RunConfig:
        key = (self.log.epoch, partition, digest)
        config = self._configs.get(key)
        if config is None:
            config = self._configs[key] = await config_of(self.log, partition, digest)
        return config


def skips_in(messages: Iterable[RawMessage]) -> Skips:
    """Return the decisions to skip among these messages."""
    return Skips.of(decisions_in(messages))


def decisions_in(messages: Iterable[RawMessage]) -> list[StoredCommit]:
    """Return the readable commits with decisions to skip among these messages."""
    return commits_of(classify([message for message in messages if is_decision(message.subject)], set(), Skips()))


def id_of(message: RawMessage) -> str:
    """Return the id of the aggregate that a message is of, or whose commit it decides to skip."""
    return message.subject.rpartition(".")[2]


def without_decisions(messages: Iterable[RawMessage]) -> list[RawMessage]:
    """Return the messages of the run and of its executor tasks."""
    return [message for message in messages if not is_decision(message.subject)]

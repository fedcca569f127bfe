"""The place of an aggregate's commits in the log: its partition and its subject.

    <namespace>.<service>.<epoch>.<partition>.<kind>.<id>
    <namespace>.<service>.<epoch>.<partition>.task.<executor id>.<id>   an executor task
    <namespace>.<service>.<epoch>.<partition>.webhook.<project id>.<id> a webhook of a project's git host
    <namespace>.<service>.<epoch>.<partition>.skip.<…>                  decisions to skip commits of the subject `…`
    <namespace>.<service>.<epoch>.<partition>.lost.<sequence>           a commit that NATS has lost; no aggregate

The executor's id in the subject of its tasks lets the server filter for it, and the project's in that of its webhooks.
The partition is computed from
the group root, so that everything of one project, or of one user's direct runs, is in one order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

from msgspec import Struct

from runstream.errors import BadRequestError

RunsKind = Literal["run", "runconfig", "task", "executor", "webhook"]
ConfigKind = Literal["user", "org", "projectgroup", "project", "secret", "variable", "remotesource"]
AggregateKind = Literal[RunsKind, ConfigKind, "skip"]
CONFIG_KINDS: tuple[ConfigKind, ...] = get_args(ConfigKind)
KINDS: tuple[AggregateKind, ...] = (*get_args(RunsKind), *CONFIG_KINDS, "skip")
MAX_PARTITIONS = 256


def partition_of(root: str, partitions: int) -> int:
    """Return the partition (0 to partitions - 1) of a group root or an executor's id."""
    digest = hashlib.blake2b(root.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions


def group_root(group: str) -> str:
    """Return the first two elements of a run's group: `/project/<id>` or `/user/<id>`.

    Raises BadRequestError for a group that is not absolute or has fewer than two elements (rule group-1).
    """
    elements = group.strip("/").split("/")
    if not group.startswith("/") or len(elements) < 2 or "" in elements:
        raise BadRequestError(
            f"run group {group[:200]!r} is not valid",
            code="invalidRunGroup",
            hint="a group is an absolute path of at least two elements, such as /project/web/branch/main",
        )
    return f"/{elements[0]}/{elements[1]}"


class Address(Struct, frozen=True, gc=False):
    """The address of an aggregate: its partition, kind and id."""

    partition: int
    kind: AggregateKind
    id: str
    executor_id: str = ""
    """Set only in the address of an executor task."""

    @property
    def aggregate(self) -> str:
        """The aggregate's name without its partition: `run/<id>`."""
        return f"{self.kind}/{self.id}"


def webhook_address(project_id: str, webhook_id: str, partitions: int) -> Address:
    """Return the address of a webhook: beside the runs of its project."""
    return Address(partition_of(f"/project/{project_id}", partitions), "webhook", f"{project_id}.{webhook_id}")


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects and stream names of one service of one deployment in one epoch."""

    namespace: str
    service: str
    epoch: int

    def prefix(self, partition: int) -> str:
        """Return the common prefix of a partition's subjects, without the last dot."""
        return f"{self.namespace}.{self.service}.{self.epoch}.{partition}"

    def stream(self, partition: int) -> str:
        """Return the name of a partition's stream."""
        return f"{self.namespace}_{self.service}_{self.epoch}_{partition}"

    def questions(self, partition: int) -> str:
        """Return the subject for questions to a partition's scheduler, which is not part of the log."""
        return f"{self.namespace}.ask.{self.service}.{self.epoch}.{partition}"

    def progress(self, consumer: int | Literal["archive"]) -> str:
        """Return the subject for questions about the progress of a projection or the archive, which is not part of the
        log."""
        return f"{self.namespace}.progress.{self.service}.{self.epoch}.{consumer}"

    def notices(self) -> str:
        """Return the subject on which schedulers broadcast their pending tasks, which is not part of the log."""
        return f"{self.namespace}.turns.{self.service}.{self.epoch}"

    def of(self, address: Address) -> str:
        """Return the literal subject of an aggregate."""
        return f"{self.prefix(address.partition)}.{self._tail(address, address.executor_id)}"

    def guard(self, address: Address) -> str:
        """Return the subject that must be empty for a *first* commit.

        For an executor task it spans all executors, so that one task can be assigned only once.
        """
        return f"{self.prefix(address.partition)}.{self._tail(address, '*')}"

    def skips(self, partition: int) -> str:
        """Return the filter for all decisions to skip commits of a partition."""
        return f"{self.prefix(partition)}.skip.>"

    def skips_of(self, address: Address) -> str:
        """Return the filter for the decisions to skip an aggregate's commits; of an executor task, at any executor."""
        return f"{self.prefix(address.partition)}.skip.{self._tail(address, '*')}"

    def lost(self, partition: int, sequence: int) -> str:
        """Return the subject that readers give to a message that the stream has lost."""
        return f"{self.prefix(partition)}.lost.{sequence}"

    def webhooks(self, partition: int, project_id: str = "*") -> str:
        """Return the filter for the webhooks of a project, or of all projects of a partition."""
        return f"{self.prefix(partition)}.webhook.{project_id}.*"

    def tasks_of(self, partition: int, executor_id: str) -> str:
        """Return the filter for all tasks of one executor in a partition."""
        return f"{self.prefix(partition)}.task.{executor_id}.*"

    @staticmethod
    def _tail(address: Address, executor: str) -> str:
        return f"task.{executor}.{address.id}" if address.kind == "task" else f"{address.kind}.{address.id}"


def parse_subject(subject: str) -> Address:
    """Parse a subject of the log. Raises BadRequestError for any other subject."""
    tokens = subject.split(".")
    kind = next((k for k in KINDS if len(tokens) > 4 and tokens[4] == k), None)
    if kind == "skip" and tokens[3].isdigit() and len(tokens) > 5:
        return Address(partition=int(tokens[3]), kind=kind, id=".".join(tokens[5:]))
    if kind is None or not tokens[3].isdigit() or len(tokens) != (7 if kind in ("task", "webhook") else 6):
        raise BadRequestError(f"subject {subject!r} is not one of the log", code="invalidSubject")
    if kind == "webhook":
        return Address(partition=int(tokens[3]), kind=kind, id=f"{tokens[5]}.{tokens[6]}")
    return Address(partition=int(tokens[3]), kind=kind, id=tokens[-1], executor_id=tokens[5] if kind == "task" else "")


def is_lost(subject: str) -> bool:
    """Return whether a message with this subject stands for one that the stream has lost."""
    return subject.split(".", 5)[4:5] == ["lost"]


def is_decision(subject: str) -> bool:
    """Return whether a message with this subject decides to skip a commit."""
    return subject.split(".", 5)[4:5] == ["skip"]


def aggregate_of(subject: str) -> str:
    """Return the aggregate of a subject; the subject itself if it is not an aggregate's."""
    try:
        return parse_subject(subject).aggregate
    except BadRequestError:
        return subject


def skip_address(partition: int, subject: str) -> Address:
    """Return the subject of the decisions to skip commits of this subject."""
    return Address(partition, "skip", subject.split(".", 4)[-1])


@dataclass(frozen=True, slots=True)
class StepLogKey:
    """The log of a step of a run's task."""

    partition: int
    """The run's partition in the log."""
    run_id: str
    task: str
    """The task's name."""
    stored_id: str
    """Identifies the stored object; a run that keeps a task of an earlier run shares its logs."""
    executor_task_id: str
    """Identifies the live log; empty for a task that was kept and never ran."""
    step: int | None
    """None is the setup step, -N is service N of the pod."""

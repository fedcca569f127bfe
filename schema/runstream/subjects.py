"""Where an aggregate's commits are in the log: its partition and its one literal subject.

    <namespace>.<service>.<epoch>.<partition>.<kind>.<id>
    <namespace>.<service>.<epoch>.<partition>.task.<executor id>.<id>      an executor task
    <namespace>.<service>.<epoch>.<partition>.skip.<…>      which commits of the subject `…` are skipped

The executor's id in the subject of its tasks lets the server filter for it. The partition is computed from
the group root, so that everything of one project, or of one user's direct runs, is in one order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from runstream.errors import BadRequestError

AggregateKind = Literal["run", "runconfig", "task", "executor", "skip"]
KINDS: tuple[AggregateKind, ...] = ("run", "runconfig", "task", "executor", "skip")
MAX_PARTITIONS = 256


def partition_of(root: str, partitions: int) -> int:
    """The partition (0 to partitions - 1) of a group root or of an executor's id."""
    digest = hashlib.blake2b(root.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions


def group_root(group: str) -> str:
    """The first two elements of a run's group: `/project/<id>` or `/user/<id>`.

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
    """Which aggregate: its partition, kind and id."""

    partition: int
    kind: AggregateKind
    id: str
    executor_id: str = ""
    """Only in the address of an executor task."""

    @property
    def aggregate(self) -> str:
        """The aggregate's name without its place in the log: `run/<id>`."""
        return f"{self.kind}/{self.id}"


@dataclass(frozen=True, slots=True)
class Subjects:
    """The names that one service of one deployment uses in one epoch."""

    namespace: str
    service: str
    epoch: int

    def prefix(self, partition: int) -> str:
        """What all subjects of a partition begin with, without the last dot."""
        return f"{self.namespace}.{self.service}.{self.epoch}.{partition}"

    def stream(self, partition: int) -> str:
        """The name of a partition's stream."""
        return f"{self.namespace}_{self.service}_{self.epoch}_{partition}"

    def questions(self, partition: int) -> str:
        """Where the scheduler of a partition is asked; no part of the log."""
        return f"{self.namespace}.ask.{self.service}.{self.epoch}.{partition}"

    def progress(self, consumer: int | Literal["archive"]) -> str:
        """Where the projection of a partition, or the archive, is asked how it gets on; no part of the log."""
        return f"{self.namespace}.progress.{self.service}.{self.epoch}.{consumer}"

    def notices(self) -> str:
        """Where schedulers tell each other who waits; no part of the log."""
        return f"{self.namespace}.turns.{self.service}.{self.epoch}"

    def of(self, address: Address) -> str:
        """The literal subject of an aggregate."""
        return f"{self.prefix(address.partition)}.{self._tail(address, address.executor_id)}"

    def guard(self, address: Address) -> str:
        """The subject over which a *first* commit expects to find nothing.

        For an executor task it spans all executors: one task can be assigned only once, whoever assigns it.
        """
        return f"{self.prefix(address.partition)}.{self._tail(address, '*')}"

    def skips(self, partition: int) -> str:
        """The filter for all decisions of a partition that commits are skipped."""
        return f"{self.prefix(partition)}.skip.>"

    def skips_of(self, address: Address) -> str:
        """The filter for the decisions about an aggregate; about an executor task, whatever its executor."""
        return f"{self.prefix(address.partition)}.skip.{self._tail(address, '*')}"

    def tasks_of(self, partition: int, executor_id: str) -> str:
        """The filter for all tasks of one executor in a partition."""
        return f"{self.prefix(partition)}.task.{executor_id}.*"

    @staticmethod
    def _tail(address: Address, executor: str) -> str:
        return f"task.{executor}.{address.id}" if address.kind == "task" else f"{address.kind}.{address.id}"


def parse_subject(subject: str) -> Address:
    """The address that a subject of the log stands for. Raises BadRequestError for any other subject."""
    tokens = subject.split(".")
    kind = next((k for k in KINDS if len(tokens) > 4 and tokens[4] == k), None)
    if kind == "skip" and tokens[3].isdigit() and len(tokens) > 5:
        return Address(partition=int(tokens[3]), kind=kind, id=".".join(tokens[5:]))
    if kind is None or not tokens[3].isdigit() or len(tokens) != (7 if kind == "task" else 6):
        raise BadRequestError(f"subject {subject!r} is not one of the log", code="invalidSubject")
    return Address(partition=int(tokens[3]), kind=kind, id=tokens[-1], executor_id=tokens[5] if kind == "task" else "")


def aggregate_of(subject: str) -> str:
    """The aggregate that a subject stands for; the subject itself when it is not one of ours."""
    try:
        return parse_subject(subject).aggregate
    except BadRequestError:
        return subject


def skip_address(partition: int, subject: str) -> Address:
    """Where it is decided which commits of this subject of the log are skipped."""
    return Address(partition, "skip", subject.split(".", 4)[-1])


@dataclass(frozen=True, slots=True)
class StepLogKey:
    """Which log of which task of a run."""

    partition: int
    """Of the run, in the log."""
    run_id: str
    task: str
    """The task's name."""
    stored_id: str
    """Names the stored object: a run that keeps a task of an earlier one shares its logs."""
    executor_task_id: str
    """Names the live log; empty for a task that was kept and never ran."""
    step: int | None
    """None is the setup step."""

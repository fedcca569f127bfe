"""The objects that a log refers to: what `ExecutorTaskLogStored` and `ExecutorTaskArchiveStored` say is stored.

What the log says is lost is never expected. Memory holds a hash for each object, and an id for each executor task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from runstream.codec import decode
from runstream.counting import counted
from runstream.errors import BadRequestError, InternalError
from runstream.events.executor_task import ExecutorTaskArchiveStored, ExecutorTaskAssigned, ExecutorTaskLogStored
from runstream.ids import attempt_id
from runstream.log.port import RawMessage
from runstream.objects import paths
from runstream.snapshots.manifest import ObjectKind

_NAMED = 5


class Referenced:
    """Gathers what commits refer to, and compares it with what was written."""

    def __init__(self, kinds: Collection[ObjectKind]) -> None:
        self._kinds = kinds
        self._stored_ids: dict[str, str] = {}
        self._expected: dict[bytes, tuple[str, str, int | None]] = {}

    def take(self, messages: Iterable[RawMessage]) -> None:
        """Take in commits of a partition, in their order."""
        if not self._kinds:
            return
        for message in messages:
            if ".task." in message.subject:
                self._take(message)

    def _take(self, message: RawMessage) -> None:
        try:
            commit = decode(message).commit
        except BadRequestError:
            return  # what cannot be read refers to nothing
        task = commit.address.id
        for event in commit.events:
            match event:
                case ExecutorTaskAssigned(run_task_id=run_task, attempt=attempt):
                    self._stored_ids[task] = attempt_id(run_task, attempt)
                case ExecutorTaskLogStored(step=step) if "logs" in self._kinds:
                    self._expect("logs", task, step)
                case ExecutorTaskArchiveStored(step=step) if "archives" in self._kinds:
                    self._expect("archives", task, step)

    def _expect(self, kind: str, task: str, step: int | None) -> None:
        if (stored := self._stored_ids.get(task)) is not None:
            self._expected[_hash(_path(kind, stored, step))] = (kind, stored, step)

    def found(self, path: str) -> None:
        """An object was written."""
        self._expected.pop(_hash(path), None)

    def require_all(self) -> None:
        """Raises InternalError that names objects that were not found."""
        if not self._expected:
            return
        missing = sorted(_path(*each) for each in self._expected.values())
        more = f", and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise InternalError(
            f"the object storage lacks {counted(len(missing), 'object')} that the log refers to: "
            f"{', '.join(missing[:_NAMED])}{more}",
            code="objectsMissing",
            details={"missing": missing[:1000]},
            hint="is it the right object storage? export without --with, or bring them back from a backup",
        )


def _path(kind: str, stored: str, step: int | None) -> str:
    return paths.archive(stored, step) if kind == "archives" and step is not None else paths.step_log(stored, step)


def _hash(path: str) -> bytes:
    return hashlib.blake2b(path.encode(), digest_size=16).digest()

"""Commits of the log that are never applied, because somebody decided so: `CommitSkipped`.

A skipped commit is named by what it says, so that an import that moves it changes nothing. Whoever folds a log knows
its decisions beforehand, and reads a skipped commit as one without events: it changes no state, but it keeps its place,
and gives its aggregate the version that was decided. So every fold gives the same, whether it can read the
commit or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from runstream.codec import ID_HEADER, Message
from runstream.commits import Commit, StoredCommit
from runstream.errors import BadRequestError
from runstream.events.skip import CommitSkipped
from runstream.glance import body_of
from runstream.subjects import Address, Subjects, aggregate_of, parse_subject, skip_address


@dataclass(slots=True)
class Skips:
    """The decisions that are known of a log, or of a part of it."""

    _decided: dict[str, dict[str, CommitSkipped]] = field(default_factory=dict)
    """For each aggregate (`run/<id>`) what was decided, by the hash of the commit.

    What is no aggregate of ours stands under its subject behind the partition.
    """

    @classmethod
    def of(cls, commits: Iterable[StoredCommit]) -> Skips:
        """Those that these commits decide."""
        skips = cls()
        for stored in commits:
            skips.take(stored)
        return skips

    def take(self, stored: StoredCommit) -> None:
        """Learn of what a commit decides, if it decides something."""
        for event in stored.commit.events:
            if isinstance(event, CommitSkipped):
                about = _about(f"-.-.-.{stored.commit.address.partition}.{stored.commit.address.id}")
                self._decided.setdefault(about, {})[event.sha256] = event

    def merge(self, others: Skips) -> None:
        """Learn of what others know."""
        for about, decided in others._decided.items():
            self._decided.setdefault(about, {}).update(decided)

    def find(self, message: Message) -> StoredCommit | None:
        """The message as a commit without events, if it is one that is skipped."""
        if not self._decided:
            return None
        decided = self._decided.get(_about(message.subject))
        event = decided.get(hash_of(message)) if decided else None
        return None if event is None else _without_events(message, event.version_after)

    def begun(self, aggregate: str) -> int:
        """Which version an aggregate has of which nothing was applied: that of the commits skipped at its beginning."""
        steps = [(event.version_before, event.version_after) for event in self._decided.get(aggregate, {}).values()]
        version = 0
        for before, after in sorted(steps):
            version = after if before == version else version
        return version


def hash_of(message: Message) -> str:
    """What stands for what a commit says: the same wherever it is in a log."""
    return hashlib.sha256(message.subject.split(".", 4)[-1].encode() + b"\n" + body_of(message)).hexdigest()


def skipped_aggregate(subjects: Subjects, address: Address) -> str:
    """The aggregate whose commits the decisions at this address are about, as it is called where it is parked."""
    return aggregate_of(f"{subjects.prefix(address.partition)}.{address.id}")


def version_after(before: int, following: int | None) -> int:
    """The version that an aggregate has after a skipped commit, when it had `before`.

    The commit behind it, if there is one that says its version (`following`), decides: it has to fit. Otherwise the
    skipped commit counts as one.
    """
    return following - 1 if following is not None and following > before else before + 1


def _about(subject: str) -> str:
    """The aggregate that a subject of the log stands for, or what follows its partition where it is not one of ours."""
    try:
        return parse_subject(subject).aggregate
    except BadRequestError:
        return subject.split(".", 4)[-1]


def _without_events(message: Message, version: int) -> StoredCommit:
    try:
        address = parse_subject(message.subject)
    except BadRequestError:  # there is no such aggregate, so nothing is to be changed but the position
        address = skip_address(message.position.partition, message.subject)
    commit_id = message.headers.get(ID_HEADER, "") if message.headers else ""
    commit = Commit(commit_id, address, version, message.stored_at, actor="", cause="", events=())
    return StoredCommit(commit, message.position, message.stored_at)

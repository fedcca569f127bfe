"""Rounds of appends: the runs' own events first, then the commits that depend on them.

A round takes all decisions that are ready, because the log stores commits that come together with one write to disk.
Nothing here changes the decider's state: an `RoundOutcome` says what to change. A log that cannot be reached costs a
round, never a decision: decisions are made again from the same state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import structlog
from msgspec.structs import replace

from runstream.commits import NewCommit
from runstream.errors import InternalError
from runstream.log.port import AppendConflictError, Log
from runstream.scheduler.decisions import Decider, Decision
from runstream.telemetry import span_from

logger = structlog.get_logger(__name__)

FollowUps = Callable[[Sequence[Decision]], list[list[NewCommit]]]
"""Returns, for each decision whose events are in the log, the commits that depend on them."""


@dataclass(slots=True)
class RoundOutcome:
    """The outcome of a round of decisions."""

    done: list[tuple[Decision, int]] = field(default_factory=list)
    """Accepted decisions, each with the last sequence of its commits; 0 when it had none."""
    accepted: list[tuple[NewCommit, int]] = field(default_factory=list)
    """Follow-ups and losses in the log, with their sequences."""
    refused: list[NewCommit] = field(default_factory=list)
    """Follow-ups and losses where another writer won, and follow-ups that may not have reached the log."""
    postponed: list[Decision] = field(default_factory=list)
    """Decisions to make again, because the log could not be reached."""
    postponed_losses: list[NewCommit] = field(default_factory=list)
    appended: int = 0
    """Number of decisions that the log answered."""

    @property
    def reachable(self) -> bool:
        """False if the log could not be reached."""
        return not self.postponed and not self.postponed_losses

    def note(self, commit: NewCommit, sequence: int) -> None:
        """Add a commit's sequence; 0 if another writer won."""
        if sequence:
            self.accepted.append((commit, sequence))
        else:
            self.refused.append(commit)

    def merge(self, other: RoundOutcome) -> None:
        """Add the outcome of other decisions."""
        self.done += other.done
        self.accepted += other.accepted
        self.refused += other.refused
        self.postponed += other.postponed
        self.appended += other.appended

    def settle(self, decider: Decider) -> None:
        """Apply the outcome to the decider."""
        for commit in self.refused:
            decider.refused(commit)
        for commit, sequence in self.accepted:
            decider.accepted(commit, sequence)
        for decision, sequence in self.done:
            decider.done(decision, sequence)
        for decision in self.postponed:
            decider.failed(decision)
        for commit in self.postponed_losses:
            decider.still_lost(commit)


async def append_decisions(log: Log, decisions: Sequence[Decision], follow_ups: FollowUps) -> RoundOutcome:
    """Append the decisions and their follow-ups."""
    outcome = RoundOutcome()
    try:
        with ExitStack() as spans:
            own = await _append_own(log, [_traced(decision, spans) for decision in decisions], outcome)
            await _append_follow_ups(log, own, follow_ups, outcome)
    except InternalError as error:
        logger.warning("Decisions wait for the log", action="decisions_postponed", error=str(error))
        outcome.postponed = list(decisions)
    except Exception:
        if len(decisions) > 1:
            # One commit that the log does not take, such as one that is too large, fails the call for all of them.
            outcome = RoundOutcome()
            for decision in decisions:
                outcome.merge(await append_decisions(log, [decision], follow_ups))
            return outcome
        for decision in decisions:  # not postponed: it would fail again; the run's next commit decides it again
            logger.exception("A run's decision cannot be appended", action="run_undecided", run=decision.run_id)
            outcome.done.append((decision, 0))
    else:
        outcome.appended = len(decisions)
    return outcome


async def append_losses(log: Log, commits: Sequence[NewCommit]) -> RoundOutcome:
    """Append the commits that declare executors and tasks lost."""
    outcome = RoundOutcome()
    try:
        sequences = await _append(log, commits)
    except InternalError as error:
        logger.warning("Losses wait for the log", action="losses_postponed", error=str(error))
        outcome.postponed_losses += commits
        return outcome
    for commit, sequence in zip(commits, sequences, strict=True):
        outcome.note(commit, sequence)
        logger.warning(
            "Declared lost: the executor is gone",
            action="executor_gone",
            aggregate=commit.address.aggregate,
            executor=commit.address.executor_id or commit.address.id,
        )
    return outcome


async def _append(log: Log, commits: Sequence[NewCommit]) -> list[int]:
    """Append the commits; return each sequence, or 0 where another writer won."""
    if not commits:
        return []
    answers = await log.append_all(commits)
    return [0 if isinstance(answer, AppendConflictError) else answer.sequence for answer in answers]


def _traced(decision: Decision, spans: ExitStack) -> Decision:
    """Return the decision with a span of its run's trace, which lasts as long as the round."""
    span = spans.enter_context(span_from(decision.trace, "schedule run", {"run": decision.run_id}))
    return replace(decision, trace=span.traceparent)


async def _append_own(log: Log, decisions: Sequence[Decision], outcome: RoundOutcome) -> list[tuple[Decision, int]]:
    """Append each decision's own commit; return those that were accepted, with the sequence (0 without a commit)."""
    commits = [decision.commit for decision in decisions if decision.commit is not None]
    sequences = iter(await _append(log, commits))
    accepted = []
    for decision in sorted(decisions, key=lambda decision: decision.commit is not None):
        sequence = next(sequences) if decision.commit is not None else 0
        if decision.commit is not None and not sequence:
            # Another writer has changed the run: its commit is on its way here, and the run is decided again with it.
            outcome.done.append((decision, 0))
        else:
            accepted.append((decision, sequence))
    return accepted


async def _append_follow_ups(
    log: Log, own: Sequence[tuple[Decision, int]], follow_ups: FollowUps, outcome: RoundOutcome
) -> None:
    # Asked for only now: an assignment that precedes the events it rests on in the log could start a task of a run that
    # another scheduler has just cancelled.
    commits_of = follow_ups([decision for decision, _ in own])
    commits = [commit for commits in commits_of for commit in commits]
    try:
        sequences = iter(await _append(log, commits))
    except InternalError:
        # Unknown whether they are in the log. Their slots are free again until the feed brings back those that are.
        outcome.refused += commits
        raise
    for (decision, last), following in zip(own, commits_of, strict=True):
        for commit in following:
            sequence = next(sequences)
            outcome.note(commit, sequence)
            last = max(last, sequence)
        outcome.done.append((decision, last))

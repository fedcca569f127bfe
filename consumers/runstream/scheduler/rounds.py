"""How decisions get into the log: the runs' own events first, then what rests on them.

One round takes all decisions that are ready together, so that they are appended together. A log that cannot
be reached costs a round, never a decision: it is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime

import structlog

from runstream.commits import NewCommit, Position
from runstream.errors import InternalError
from runstream.log.port import AppendConflictError, Log
from runstream.scheduler.deciding import Decider, Decision
from runstream.telemetry import span_from
from runstream.telemetry.metrics import DECIDED_RUNS

logger = structlog.get_logger(__name__)


async def append_decisions(
    log: Log, decider: Decider, decisions: Sequence[Decision], clock: Callable[[], datetime]
) -> bool:
    """Append the decisions; False when the log could not be reached and they have to be made again."""
    try:
        with ExitStack() as spans:
            traced = [_traced(decision, spans) for decision in decisions]
            sequences = await _append_own(log, decider, traced)
            accepted = [(decision, sequence) for decision, sequence in sequences if sequence is not None]
            await _append_rest(log, decider, accepted, clock())
    except InternalError as error:
        logger.warning("The log cannot be reached", action="decisions_postponed", error=str(error))
        for decision in decisions:
            decider.failed(decision)
        return False
    except Exception:
        if len(decisions) > 1:  # one by one: only what fails is left
            return all([await append_decisions(log, decider, [decision], clock) for decision in decisions])
        for decision in decisions:  # no decision of it can be a commit; the next commit of the run tries again
            decider.done(decision, 0)
            logger.exception("A run's decision cannot be appended", action="run_undecided", run=decision.run_id)
        return True
    DECIDED_RUNS.add(len(decisions), str(decider.fold.partition))
    return True


def _traced(decision: Decision, spans: ExitStack) -> Decision:
    """The decision inside a span of its run's trace, which lasts as long as the round."""
    span = spans.enter_context(span_from(decision.trace, "schedule run", {"run": decision.run_id}))
    return replace(decision, trace=span.traceparent)


async def _append_own(log: Log, decider: Decider, decisions: Sequence[Decision]) -> list[tuple[Decision, int | None]]:
    """Each decision with the sequence of its own commit (0 without one); None when it was refused."""
    with_commit = [decision for decision in decisions if decision.commit is not None]
    answers = await log.append_all([d.commit for d in with_commit if d.commit is not None])
    sequences: list[tuple[Decision, int | None]] = [(d, 0) for d in decisions if d.commit is None]
    for decision, answer in zip(with_commit, answers, strict=True):
        if isinstance(answer, AppendConflictError):
            decider.done(decision, 0)
            sequences.append((decision, None))
        else:
            sequences.append((decision, answer.sequence))
    return sequences


async def _append_rest(log: Log, decider: Decider, accepted: Sequence[tuple[Decision, int]], at: datetime) -> None:
    follow_ups = decider.follow_ups([decision for decision, _ in accepted], at)
    commits = [commit for follow_up in follow_ups for commit in follow_up]
    answers = iter(await append_tolerant(log, decider, commits))
    for (decision, own), follow_up in zip(accepted, follow_ups, strict=True):
        sequences = [next(answers) for _ in follow_up]
        decider.done(decision, max([own, *sequences]))


async def append_tolerant(log: Log, decider: Decider, commits: Sequence[NewCommit]) -> list[int]:
    """Append; the sequence of each, 0 for one that somebody else was before."""
    if not commits:
        return []
    try:
        answers = await log.append_all(commits)
    except InternalError:
        for commit in commits:
            decider.refused(commit)
        raise
    return [_sequence(decider, commit, answer) for commit, answer in zip(commits, answers, strict=True)]


def _sequence(decider: Decider, commit: NewCommit, answer: Position | AppendConflictError) -> int:
    if isinstance(answer, AppendConflictError):
        decider.refused(commit)
        return 0
    decider.accepted(commit, answer.sequence)
    return answer.sequence


async def append_losses(log: Log, decider: Decider, at: datetime) -> bool:
    """Declare the tasks of gone executors lost; False when it has to be tried again."""
    commits = list(decider.losses(at))
    try:
        await append_tolerant(log, decider, commits)
    except InternalError as error:
        logger.warning("The log cannot be reached", action="losses_postponed", error=str(error))
        for commit in commits:
            decider.still_lost(commit)
        return False
    for commit in commits:
        logger.warning(
            "Given up: the executor is gone",
            action="executor_gone",
            aggregate=commit.address.aggregate,
            executor=commit.address.executor_id or commit.address.id,
        )
    return True

"""The history of a run: its answer after one commit, then the changes that each further commit makes of it.

Applying the changes up to a commit gives what `GET /runs/{run_id}?at=` answers for the position of that commit. A
commit mostly changes one task, so only the tasks that differ are made into answers and compared: the history of a run
of 2,000 tasks has thousands of commits.

As server-sent events:

    event: run      the answer after the first commit
    event: commit   one commit; `id` is its position, from which a client resumes
    event: end      nothing but retention and deletion follows
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from runstream import api
from runstream.commits import Position
from runstream.database.runs import ReadRun, RunMoment
from runstream.gateway.errors import error_entry
from runstream.gateway.events import next_or_comment, sent_event
from runstream.gateway.reads import ReadHistory
from runstream.gateway.responses import RunHistoryAnswer, run_answer, run_with, task_answer
from runstream.gateway.streaming import SendBytes
from runstream.json_changes import Change, Path, differences
from runstream.subjects import aggregate_of

MAX_COMMITS = 1000
"""Maximum number of commits in a response."""
MAX_BYTES = 8 << 20
"""Size of the commits after which a response ends, in bytes."""
_AT_ONCE = 8
"""Commits replayed before other requests have their turn."""
log = structlog.get_logger()


@dataclass(slots=True)
class AnswerChanges:
    """The answer about a run, moment by moment."""

    _before: ReadRun | None = None
    _run: dict[str, Any] = field(default_factory=dict)
    """The run without its tasks."""
    _tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By the names of the tasks."""

    def of(self, read: ReadRun, changed: str = "") -> tuple[list[Change], list[Path]]:
        """Go on to a moment; return the changes and the removed paths of the answer, none for the first moment.

        `changed` is the name of a task whose executor task may differ, though the run's task is the same.
        """
        record, config, before = read.record, read.config, self._before
        changes: list[Change] = []
        removals: list[Path] = []

        def compare(old: Any, new: Any, *at: str) -> None:
            found = differences(old, new, at)
            changes.extend(found[0])
            removals.extend(found[1])

        run: dict[str, Any] = msgspec.to_builtins(run_with(record.run, config, {}))
        tasks = before.record.run.tasks if before is not None else {}
        if before is not None:
            compare(self._run, run, "run")
        for name, task in record.run.tasks.items():
            if task is tasks.get(name) and name != changed:
                continue
            told: dict[str, Any] = msgspec.to_builtins(task_answer(record.run, task, config, record.executor_tasks))
            if before is not None:
                compare(self._tasks[name], told, "run", "tasks", task.id)
            self._tasks[name] = told
        self._before, self._run = read, run
        return changes, removals


@dataclass(slots=True)
class Causes:
    """The commits of a history by their ids, which name them as causes of later ones."""

    _numbers: dict[str, int] = field(default_factory=dict)

    def add(self, moment: RunMoment) -> None:
        """Add a commit, which later ones may name."""
        if moment.commit is None:
            return
        commit = moment.commit.commit
        self._numbers[commit.id] = moment.number
        if commit.address.kind == "run":
            # A scheduler that has taken over does not know the id of the last commit.
            self._numbers[f"{commit.address.id}@{commit.version}"] = moment.number

    def of(self, moment: RunMoment) -> tuple[str, int | None]:
        """Return the kind of a commit's cause, and the number of the commit that caused it."""
        if moment.commit is None:
            return "", None
        cause, number = moment.commit.commit.cause, self._numbers.get(moment.commit.commit.cause)
        if number is not None:
            return "commit", number
        if not cause:
            return ("request" if moment.commit.commit.actor.startswith("user:") else ""), None
        return _KINDS.get(cause.partition(":")[0], ""), None


_KINDS = {"lost": "executor_lost", "timeout": "timeout", "retention": "retention"}
"""The kinds of the causes that schedulers name."""


async def history_answer(history: ReadHistory, first: int, count: int, *, with_config: bool = True) -> RunHistoryAnswer:
    """Return up to `count` commits of the history, from the number `first` on, and the run after the first of them."""
    answers, causes, base, last, size = AnswerChanges(), Causes(), None, None, 0
    commits: list[api.RunCommit] = []
    for moment in history.moments():
        last = moment.read
        causes.add(moment)
        if moment.number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        if moment.number < first - 1 or len(commits) == count or size > MAX_BYTES:
            continue
        changes, removals = answers.of(moment.read, moment.task)
        if moment.number < first:
            continue
        base = base or moment.read
        commits.append(_commit(moment, causes.of(moment), changes, removals))
        size += len(moment.raw.data)
    if last is None:
        raise ValueError("the history of a run has at least one commit")
    shown = base or last
    record = shown.record
    following = first + len(commits)
    return RunHistoryAnswer(
        run_answer(record.run, shown.config, record.executor_tasks, with_config=with_config),
        tuple(commits),
        following if following <= history.count else None,
        history.count,
        last.record.run.archived,
    )


async def write_history(
    history: ReadHistory, after: Position | None, send: SendBytes, *, with_config: bool = True
) -> None:
    """Send the history as events: from its beginning, or behind a commit of it; a comment while the run is quiet.

    It ends with the run. A failure ends it with an event `error`.
    """
    try:
        await _write(history, after, send, with_config)
    except Exception as error:
        log.exception("the stream of a run's history failed", action="event_stream_failed")
        await send(sent_event("error", msgspec.json.encode([error_entry(error, detailed=False)])))


async def _write(history: ReadHistory, after: Position | None, send: SendBytes, with_config: bool) -> None:
    first = (history.number_of(after) or 0) + 1 if after is not None else 1
    answers, causes, ended, unsent = AnswerChanges(), Causes(), False, list[bytes]()

    def add(moment: RunMoment) -> None:
        nonlocal ended
        causes.add(moment)
        changes, removals = answers.of(moment.read, moment.task)
        ended = moment.read.record.run.archived
        if moment.number == 1:
            record = moment.read.record
            answer = run_answer(record.run, moment.read.config, record.executor_tasks, with_config=with_config)
            unsent.append(sent_event("run", msgspec.json.encode(answer)))
        commit = _commit(moment, causes.of(moment), changes, removals)
        unsent.append(sent_event("commit", msgspec.json.encode(commit), commit.position))

    async def send_added() -> None:
        sent, unsent[:] = b"".join(unsent), []
        await send(sent)

    for moment in history.moments():
        if moment.number >= first:
            add(moment)
        else:
            causes.add(moment)
        if moment.number == first - 1:
            answers.of(moment.read)
            ended = moment.read.record.run.archived
        if moment.number % _AT_ONCE == 0:
            await send_added()
            await asyncio.sleep(0)
    await send_added()
    async with history.following() as take:
        while not ended:
            for moment in await next_or_comment(take, send):
                add(moment)
            await send_added()
    await send(sent_event("end", b"{}"))


def _commit(
    moment: RunMoment, cause: tuple[str, int | None], changes: list[Change], removals: list[Path]
) -> api.RunCommit:
    stored, raw = moment.commit, moment.raw
    commit = stored.commit if stored is not None else None
    return api.RunCommit(
        number=moment.number,
        position=str(raw.position),
        time=commit.time if commit is not None else raw.stored_at,
        actor=commit.actor if commit is not None else "",
        commit=commit.id if commit is not None else "",
        cause=commit.cause if commit is not None else "",
        cause_kind=cause[0],
        cause_number=cause[1],
        aggregate=commit.address.aggregate if commit is not None else aggregate_of(raw.subject),
        version=commit.version if commit is not None else 0,
        task=moment.task,
        events=tuple(api.RunEvent(type(one).__name__, one) for one in commit.events) if commit is not None else (),
        changes=tuple(changes),
        removals=tuple(removals),
        error=moment.reason,
    )

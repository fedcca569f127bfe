"""`runstream run history` and `run diff`: what each commit changed of a run, and what differs between two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated

import msgspec
from cyclopts import Parameter

from runstream.cli.client_session import with_client
from runstream.cli.finding import BY_NAME, RunName, RunNumber, find_run_id, position_text
from runstream.cli.output import Cell, Column, Output, display_word, print_items, print_json, say
from runstream.client import Client, Difference, DiffSide, RunCommit, RunDiff, TaskTiming
from runstream.names import numbered_name

_KINDS = {"executor_lost": "executor lost"}
_ACTOR = 18
"""Characters of an actor that are shown on a line."""


def run_history(
    run: RunName | None = None,
    /,
    *,
    of: RunNumber = BY_NAME,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    output: Output = "table",
) -> int:
    """Show the commits of a run and of its tasks: what happened when, by whom, and because of which commit.

    Parameters
    ----------
    follow
        Print further commits until the run has ended; with --output json, each on a line.
    """
    name = of.name(run)

    async def work(client: Client) -> None:
        run_id = await find_run_id(client, name)
        if follow:
            begun: datetime | None = None
            async for commit, _ in client.runs.follow(run_id):
                begun = begun or commit.time
                say(msgspec.json.encode(commit).decode() if output == "json" else _line(commit, begun))
            return
        commits = await _commits(client, run_id)
        if output == "json":
            print_json(commits)
        else:
            print_items(commits, _columns(commits[0].time), "the run has no commits")

    return with_client(work, reads_on=follow)


async def _commits(client: Client, run_id: str) -> list[RunCommit]:
    commits: list[RunCommit] = []
    number: int | None = 1
    while number is not None:
        part = await client.runs.history(run_id, first=number)
        commits += part.commits
        number = part.next
    return commits


def _columns(begun: datetime) -> Mapping[Column, Callable[[RunCommit], Cell]]:
    return {
        Column("NUMBER"): lambda commit: str(commit.number),
        Column("TIME"): _time,
        Column("AFTER", drop=1): lambda commit: _since(commit, begun),
        Column("TASK", wraps=True): lambda commit: commit.task or "-",
        Column("EVENTS", wraps=True): _events,
        Column("BY", wraps=True): lambda commit: commit.actor or "-",
        Column("CAUSE"): _cause,
        Column("POSITION", drop=2): lambda commit: commit.position,
    }


def _line(commit: RunCommit, begun: datetime) -> str:
    actor = commit.actor if len(commit.actor) <= _ACTOR else f"{commit.actor[: _ACTOR - 1]}…"
    task = f"{commit.task}: " if commit.task else ""
    return f"{_time(commit)} {_since(commit, begun):>9}  {actor:<{_ACTOR}} {task}{_events(commit)}"


def _time(commit: RunCommit) -> str:
    return commit.time.astimezone().strftime("%H:%M:%S.%f")[:-3]


def _since(commit: RunCommit, begun: datetime) -> str:
    return f"+{(commit.time - begun).total_seconds():.3f}"


def _events(commit: RunCommit) -> str:
    return f"set aside: {commit.error}" if commit.error else ", ".join(event.type for event in commit.events) or "-"


def _cause(commit: RunCommit) -> str:
    if commit.cause_number is not None:
        return f"commit {commit.cause_number}"
    return _KINDS.get(commit.cause_kind, commit.cause_kind) or "-"


def run_diff(
    run: RunName | None = None,
    vs: Annotated[str | None, Parameter(help="The run to compare with: PROJECT/NUMBER, an id, or `latest`.")] = None,
    /,
    *,
    of: RunNumber = BY_NAME,
    at: str = "",
    vs_at: str = "",
    output: Output = "table",
) -> int:
    """Show what differs in a run from another one: source, configuration, environment, outcome and durations.

    Without another run, it is compared with the last successful one before it of the same name and group.

    Parameters
    ----------
    at
        Take the run as of a time such as 2026-11-23T09:30, or as of a position in the log such as 1/0/812.
    vs_at
        Take the other run as of such a moment; without another run, the same one.
    """
    name, *others = of.words(run, vs, most=2)

    async def work(client: Client) -> None:
        run_id = await find_run_id(client, name)
        other = await find_run_id(client, others[0]) if others else run_id if vs_at else ""
        moment, before = (position_text(text) if text else "" for text in (at, vs_at))
        found = await client.runs.diff(run_id, other, at=moment, vs_at=before)
        if output == "json":
            print_json(found)
        else:
            _print_diff(found)

    return with_client(work)


def _print_diff(found: RunDiff) -> None:
    say(f"{_side(found.vs)} -> {_side(found.run)}\n")
    columns: dict[Column, Callable[[Difference], Cell]] = {
        Column("WHAT"): lambda one: one.area,
        Column("TASK", wraps=True): lambda one: one.task or "-",
        Column("FIELD", wraps=True): lambda one: ".".join(map(str, one.path)) or "the task",
        Column("BEFORE", wraps=True): lambda one: "-" if one.kind == "added" else _value(one, one.before),
        Column("AFTER", wraps=True): lambda one: "-" if one.kind == "removed" else _value(one, one.after),
    }
    print_items(found.differences, columns, "nothing differs but times")
    timings: dict[Column, Callable[[TaskTiming], Cell]] = {
        Column("TASK", wraps=True): lambda one: one.task,
        Column("TOOK BEFORE"): lambda one: _took(one.before),
        Column("TOOK AFTER"): lambda one: _took(one.after),
    }
    if found.tasks:
        say("")
        print_items(found.tasks, timings, "")


def _side(side: DiffSide) -> str:
    state = display_word(side.phase.value) if side.result.value == "unknown" else side.result.value
    moment = f", as of {side.at}" if side.at else ""
    return f"{numbered_name(side.group, side.counter, side.id)} ({state}{moment})"


def _value(one: Difference, value: object) -> str:
    if not one.path:
        return "there"
    return value if isinstance(value, str) and value else msgspec.json.encode(value).decode()


def _took(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"

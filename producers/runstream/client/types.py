"""The input types of the client, and results that combine several responses; `runstream.api` has the responses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict, overload

import msgspec
from msgspec import Struct

from runstream.api import ConfigWarning, Run, RunCommit, SkippedRun
from runstream.json_changes import with_changes
from runstream.run_states import RunPhase, RunResult


@dataclass(frozen=True, slots=True)
class CreatedRuns(Sequence[Run]):
    """The runs that were created from a configuration file, in its order, with skipped runs and warnings."""

    runs: tuple[Run, ...]
    skipped: tuple[SkippedRun, ...]
    warnings: tuple[ConfigWarning, ...]

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Run, ...]: ...

    def __getitem__(self, index: int | slice) -> Run | tuple[Run, ...]:
        return self.runs[index]

    def __len__(self) -> int:
        return len(self.runs)


@dataclass(frozen=True, slots=True)
class Event:
    """A domain event."""

    type: str
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Commit:
    """The events that one decision appended to one aggregate."""

    id: str
    aggregate: str
    """Which one: `run/<id>`, `task/<id>`, `executor/<id>` or `runconfig/<hash>`."""
    version: int
    time: datetime
    actor: str
    cause: str
    events: tuple[Event, ...]
    position: str
    """Its own position: epoch/partition/sequence."""
    place: str
    """The position of the whole log behind it, where `tail` continues."""


@dataclass(frozen=True, slots=True)
class RunHistory:
    """A part of the history of a run: what each commit changed of it."""

    answer: Mapping[str, Any]
    """The response of `GET /runs/{run_id}` as of the first of these commits."""
    commits: tuple[RunCommit, ...]
    next: int | None
    """The number of the next commit; None behind the last one."""
    count: int
    """Number of commits that the run has now."""
    ended: bool
    """Whether the run has ended and its logs are stored."""

    def moments(self) -> Iterator[tuple[RunCommit, Run]]:
        """Yield each commit with the run as it left it."""
        answer: Any = self.answer
        for number, commit in enumerate(self.commits):
            if number:
                answer = with_changes(answer, commit.changes, commit.removals)
            yield commit, msgspec.convert(answer["run"], Run)


class LogOptions(TypedDict, total=False):
    """The options of reading a log, as `client.logs.get` explains them."""

    attempt: int | None
    tail: int | None
    since: datetime | None
    timestamps: bool


class RunFilters(TypedDict, total=False):
    """The runs of a list and their order, as `client.runs.page` explains them."""

    groups: Iterable[str]
    phases: Iterable[RunPhase | str]
    results: Iterable[RunResult | str]
    name: str
    text: str
    waiting_approval: bool
    last_run: bool
    ascending: bool


class NewRun(Struct, frozen=True, rename={"tasks": "run_config_tasks"}):
    """A run of resolved tasks."""

    group: str
    """Runs of one group run one at a time; its first two parts are the project, or the user."""
    name: str
    tasks: Mapping[str, Mapping[str, object]]
    """By an id of the caller's choice, which dependencies refer to."""
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
    """The variables of all tasks."""
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)
    setup_errors: Sequence[str] = ()
    """With any, the run is created in phase setuperror, without tasks."""
    cache_group: str = ""
    """Runs of one cache group share caches. Empty: the project, or the user."""
    run_timeout_interval: int = 0
    """The timeout of the run, in nanoseconds; 0 for none."""
    concurrency: str | Mapping[str, object] = "queue"
    """queue, cancel_running, cancel_waiting or skip; or a map of `policy` and `max_waiting`."""
    priority: int = 0
    """-100 to 100; when executors are short, higher goes first."""
    fail_fast: bool = False
    """Whether the first failure keeps further tasks from starting."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """A configuration file, and the variables and secrets that it is resolved with; file contents by file name."""

    config: str
    name: str = "config.yml"
    """config.yml, config.json, config.jsonnet or config.star: determines the format."""
    imports: Mapping[str, str] = field(default_factory=dict)
    """The files that jsonnet may import, by path."""
    variables: Mapping[str, str] = field(default_factory=dict)
    variable_files: Mapping[str, str] = field(default_factory=dict)
    """In YAML or JSON; a later file overrides an earlier one, `variables` override both."""
    secret_files: Mapping[str, str] = field(default_factory=dict, repr=False)
    path: str = ""
    """The path of the file, for messages."""


class Source(Struct, frozen=True):
    """The commit to run; at most one of branch, tag and ref is set."""

    branch: str = ""
    tag: str = ""
    ref: str = ""
    """The full ref, such as refs/pull/1/head."""
    commit_sha: str = ""
    repository_url: str = ""
    message: str = ""
    """The commit's message; with [ci skip] no runs are created."""


NO_SOURCE = Source()
"""For runs without sources."""

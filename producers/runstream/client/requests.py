"""What the service is asked to do, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run of tasks that are resolved already."""

    group: str
    """Runs of one group run one at a time; its first two parts are the project, or the user."""
    name: str
    tasks: Mapping[str, Mapping[str, object]]
    """Each under an id of the caller's choice, by which others depend on it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """For all tasks."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    setup_errors: Sequence[str] = ()
    """With any, it is a run in phase setuperror, which has no tasks."""
    cache_group: str = ""
    """Who shares its caches. Empty: its project, or its user."""
    run_timeout_interval: int = 0
    """In nanoseconds; 0 for none."""
    concurrency: str | Mapping[str, object] = "queue"
    """queue, cancel_running, cancel_waiting or skip; or a map of `policy` and `max_waiting`."""
    priority: int = 0
    """-100 to 100; where executors are short, higher goes first."""
    fail_fast: bool = False
    """Whether the first failure keeps tasks from starting."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """A configuration file and what its variables and secrets are resolved from; texts, files by their names."""

    config: str
    name: str = "config.yml"
    """config.yml, config.json, config.jsonnet or config.star: says the format."""
    imports: Mapping[str, str] = field(default_factory=dict)
    """What jsonnet may import, by path."""
    variables: Mapping[str, str] = field(default_factory=dict)
    variable_files: Mapping[str, str] = field(default_factory=dict)
    """In YAML or JSON; a later one wins, and `variables` before all."""
    secret_files: Mapping[str, str] = field(default_factory=dict, repr=False)
    path: str = ""
    """Where the file stands, for messages."""


@dataclass(frozen=True, slots=True)
class Source:
    """The commit that runs are of: at most one of branch, tag and ref names it."""

    branch: str = ""
    tag: str = ""
    ref: str = ""
    """The full ref, such as refs/pull/1/head."""
    commit_sha: str = ""
    repository_url: str = ""
    message: str = ""
    """Of the commit; one with [ci skip] makes no runs."""


NO_SOURCE = Source()
"""Of runs that have no sources."""

"""The spec of a task, made from its run config, and the environment of its processes.

A spec is made when the executor takes up the task, and is stored nowhere. Run configs are read from the log by their
hash, and some are cached. A log that cannot be reached is retried: a restart of NATS fails no task. For environments
see rules step-8 and step-10.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

import structlog
from cachetools import LRUCache

from runstream.backoff import Backoff, retry
from runstream.domain.executor_task import ExecutorTask
from runstream.errors import InternalError
from runstream.events.run_config import RegistryAuth, RunConfig, RunConfigStored, RunConfigTask, Text
from runstream.executor.process_tree import MARK
from runstream.ids import run_task_id
from runstream.log.port import Log
from runstream.objects.caches import group_of
from runstream.runconfig.graph import ancestors_of
from runstream.sealing import Keyring, OpenedSecrets
from runstream.subjects import Address

_KEPT = 256


@dataclass(frozen=True, slots=True)
class WorkspaceArchive:
    """An archive that an ancestor may have saved in the workspace."""

    task: str
    stored_id: str
    """The id under which the archive is stored: the task's, or that of the attempt or earlier run that saved it."""
    step: int


@dataclass(frozen=True, slots=True)
class GitCredentials:
    """The credentials for the repository; an absent one is empty."""

    username: str = ""
    password: str = ""
    private_key: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """The login at a container registry, as configured."""

    type: str
    """`basic`, or `encodedauth`."""
    username: str = ""
    password: str = field(default="", repr=False)
    auth: str = field(default="", repr=False)
    """base64 of USER:PASSWORD."""


@dataclass(frozen=True, slots=True)
class ExecutorTaskSpec:
    """The instructions for an executor task."""

    task: RunConfigTask
    environment: dict[str, str] = field(repr=False)
    step_environments: tuple[dict[str, str], ...] = field(repr=False)
    """Variables that each step adds to the task's environment."""
    git_credentials: GitCredentials = field(repr=False)
    """Only for the clone step."""
    secrets: frozenset[str] = field(repr=False)
    """All secret texts in these fields."""
    cache_group: str
    """The group of the task's caches."""
    workspace: tuple[WorkspaceArchive, ...]
    """Archives of all ancestors by level and name, those of one ancestor in the order of its steps (rule step-18)."""
    container_environments: tuple[dict[str, str], ...] = field(default=(), repr=False)
    """The variables of each container of the pod."""
    registries: dict[str, Login] = field(default_factory=dict, repr=False)
    """By the names that the configuration gives them."""


class Specs:
    """A factory of specs."""

    def __init__(self, log: Log, keyring: Keyring) -> None:
        """`keyring` opens the secrets of tasks."""
        self._log = log
        self._keyring = keyring
        self._configs: LRUCache[str, RunConfig] = LRUCache(_KEPT)

    async def spec(self, task: ExecutorTask, partition: int) -> ExecutorTaskSpec:
        """Make the spec of an assigned task.

        Raises InternalError when its run config is not in the log, or one of its secrets cannot be opened.
        """
        config = await self._config(task.run_config, partition)
        own = config.tasks.get(task.task)
        if own is None:
            raise InternalError(f"the run config has no task {task.task!r}", code="runConfigIncomplete")
        if own.name != task.task:
            raise InternalError(
                f"task {task.task!r} of the run config has the name {own.name!r}: the run config was forged or damaged",
                code="runConfigInvalid",
            )
        opened = OpenedSecrets(config, own, self._keyring)
        environment = task_environment(
            opened.all(own.environment, "task.environment"),
            opened.all(config.static_environment, "static"),
            opened.all(config.environment, "environment"),
            task.counter,
            task.attempt,
        )
        return ExecutorTaskSpec(
            task=own,
            environment=for_steps(environment, opened.secrets),
            git_credentials=GitCredentials(
                environment.get("RUNSTREAM_GIT_USERNAME", ""),
                environment.get("RUNSTREAM_GIT_PASSWORD", ""),
                environment.get("RUNSTREAM_SSHPRIVKEY", ""),
            ),
            step_environments=tuple(
                opened.all(step.environment or {}, f"task.steps.{at}.environment") for at, step in enumerate(own.steps)
            ),
            container_environments=tuple(
                opened.all(container.environment, f"task.runtime.containers.{at}.environment")
                for at, container in enumerate(own.runtime.containers)
            ),
            registries={
                name: Login(auth.type, **opened.all(_credentials(auth), f"task.docker_registries_auth.{name}"))
                for name, auth in own.docker_registries_auth.items()
            },
            secrets=frozenset(opened.secrets),
            cache_group=group_of(task.group, config.cache_group),
            workspace=workspace_of(config, own, task),
        )

    async def _config(self, content_hash: str, partition: int) -> RunConfig:
        config = self._configs.get(content_hash)
        if config is None:
            address = Address(partition, "runconfig", content_hash)
            stored = await when_reachable(lambda: self._log.last(address))
            event = next(reversed(stored.commit.events), None) if stored is not None else None
            if not isinstance(event, RunConfigStored):
                raise InternalError(f"run config {content_hash} is not in the log", code="runConfigMissing")
            config = self._configs[content_hash] = event.content
        return config


def _credentials(auth: RegistryAuth) -> dict[str, Text]:
    return {"username": auth.username, "password": auth.password, "auth": auth.auth}


def workspace_of(config: RunConfig, own: RunConfigTask, task: ExecutorTask) -> tuple[WorkspaceArchive, ...]:
    """Return the archives that the ancestors of a task may have saved."""
    parents = (config.tasks[name] for name in ancestors_of(config.tasks, own.name))
    return tuple(
        WorkspaceArchive(parent.name, task.workspaces.get(parent.name, run_task_id(task.run_id, parent.name)), index)
        for parent in sorted(parents, key=lambda found: (found.level, found.name))
        for index, step in enumerate(parent.steps)
        if step.type == "save_to_workspace"
    )


_INHERITED = frozenset({"PATH", "LANG", "LANGUAGE", "TZ"})
_INHERITED_PREFIX = "LC_"
_TERMINAL = "xterm-256color"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FALLBACK_LOCALE = "C.UTF-8"


def inherited(environment: Mapping[str, str], patterns: Sequence[str] = (), own: Path | None = None) -> dict[str, str]:
    """Return the variables that a host task inherits from the executor: a short list, and those that match a pattern.

    `own` is the virtual environment that the service runs in; its programs are not on the task's PATH.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name in _INHERITED
        or name.startswith(_INHERITED_PREFIX)
        or any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    folders = [folder for folder in kept.get("PATH", "").split(":") if folder and not _lies_in(folder, own)]
    kept["PATH"] = ":".join(folders) or _DEFAULT_PATH
    if not kept.keys() & {"LANG", "LC_ALL", "LC_CTYPE"}:
        kept["LANG"] = _FALLBACK_LOCALE
    return kept


def own_virtual_environment() -> Path | None:
    """Return the virtual environment of this process; None outside one."""
    return Path(sys.prefix) if sys.prefix != sys.base_prefix else None


def _lies_in(folder: str, own: Path | None) -> bool:
    if own is None:
        return False
    return any(own in (path, *path.parents) for path in (Path(folder), Path(folder).resolve()))


_NOBODY_TYPES = {
    **dict.fromkeys(("PAGER", "GIT_PAGER", "SYSTEMD_PAGER", "MANPAGER"), "cat"),
    **dict.fromkeys(("EDITOR", "VISUAL", "GIT_EDITOR"), "false"),
    "LESS": "-FRXE",
    "GIT_TERMINAL_PROMPT": "0",
}
"""Pagers that do not wait, editors that fail (git then names the option to use instead), no questions by git."""


def for_terminal(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a command with a terminal that never gets input."""
    return {"TERM": _TERMINAL, **_NOBODY_TYPES, **environment}


_CREDENTIALS = ("SSHPRIVKEY", "SSHHOSTKEY", "GIT_USERNAME", "GIT_PASSWORD")
_OF_GIT = frozenset(
    f"{prefix}_{name}" for prefix in ("AGOLA", "RUNSTREAM") for name in ("GIT_USERNAME", "GIT_PASSWORD")
)
_PRIVATE_KEYS = frozenset({"AGOLA_SSHPRIVKEY", "RUNSTREAM_SSHPRIVKEY"})


def task_environment(
    own: Mapping[str, str], static: Mapping[str, str], of_run: Mapping[str, str], counter: int, attempt: int
) -> dict[str, str]:
    """Merge the task's environment: its own variables, then the static ones, the run's, and the counters of run and
    attempt.

    Each AGOLA_ variable also gets a RUNSTREAM_ name, unless that is set. A task may supply git credentials that its
    project lacks, under either name.
    """
    numbers = {"RUN_COUNTER": str(counter), "TASK_ATTEMPT": str(attempt)}
    ours = {f"{prefix}_{name}": number for name, number in numbers.items() for prefix in ("AGOLA", "RUNSTREAM")}
    credentials = {name: own.get(f"AGOLA_{name}") or own.get(f"RUNSTREAM_{name}") for name in _CREDENTIALS}
    given = {
        f"{prefix}_{name}": text for name, text in credentials.items() if text for prefix in ("AGOLA", "RUNSTREAM")
    }
    projects = {name: text for name, text in static.items() if text or name not in given}
    merged = {**own, **given, **projects, **of_run, **ours}
    twins = {f"RUNSTREAM_{name[6:]}": value for name, value in merged.items() if name.startswith("AGOLA_")}
    return {**twins, **merged}


def for_steps(environment: Mapping[str, str], secrets: Container[str]) -> dict[str, str]:
    """Return the task's environment without the git credentials, which only the clone step gets.

    A private key that is not a secret stays: it is a variable like any other.
    """
    return {
        name: "" if name in _PRIVATE_KEYS and text in secrets else text
        for name, text in environment.items()
        if name not in _OF_GIT
    }


def placed(home: str, tmp: str, user: str) -> dict[str, str]:
    """Return the variables for the task's location: its home, temporary folder, user and shell."""
    return {"HOME": home, "TMPDIR": tmp, "USER": user, "LOGNAME": user, "SHELL": "/bin/sh"}


def marked(environment: Mapping[str, str], mark: str) -> dict[str, str]:
    """Add the mark by which the task's processes are found; no variable of the task can replace it."""
    return {**environment, MARK: mark}


T = TypeVar("T")

PATIENCE_SECONDS = 60.0

log = structlog.get_logger()


async def when_reachable(ask: Callable[[], Awaitable[T]], seconds: float = PATIENCE_SECONDS) -> T:
    """Call the log until it can be reached, for at most `seconds`; return its answer. Raises InternalError after
    that."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds

    def note(error: InternalError, delay: float) -> None:
        if error.code != "logUnreachable" or loop.time() + delay > deadline:
            raise error
        log.warning("the log cannot be reached; the task waits for it", action="task_waits_for_log", error=str(error))

    return await retry(ask, InternalError, Backoff(0.1, 2.0), note)

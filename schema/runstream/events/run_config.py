"""The configuration of a run (rule create-4), stored once by the hash of its content.

Tasks are keyed by name, so that equal content has an equal hash; ids belong to runs. A text from a secret is sealed: it
is in plain text only inside the task that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from msgspec import Struct, field

from runstream.events.event import DomainEvent

Condition = Literal["on_success", "on_failure", "on_skipped", "always"]
StepType = Literal["run", "clone", "save_to_workspace", "restore_workspace", "save_cache", "restore_cache"]
DEFAULT_SHELL = "/bin/sh -e"
DEFAULT_WORKING_DIR = "~/project"
RuntimeType = Literal["pod", "host"]
"""Where a task runs: in a pod of containers, or on the executor's machine."""
RetryReason = Literal["failure", "lost", "timeout"]
"""Why an attempt failed: its own failure, a lost executor, or a timeout."""


class Sealed(Struct, frozen=True, gc=False):
    """A secret text, encrypted (AES-256-GCM) before it was appended."""

    key: str
    """Which key opens it."""
    value: str
    """Base64 of nonce, ciphertext and tag, prefixed with "2." if it is bound to its field and task."""

    def __repr__(self) -> str:
        """Show only the key, so that logs never contain the secret, not even encrypted."""
        return f"Sealed(key={self.key!r})"


Text = str | Sealed
"""A text that a task gets in plain text: stored as it is, or sealed."""


def shown_text(text: Text) -> str:
    """Return the text as it is shown outside its task."""
    return text if isinstance(text, str) else "***"


class Depend(Struct, frozen=True, gc=False):
    """A dependency on another task, with the outcomes that meet it."""

    task: str
    conditions: tuple[Condition, ...]
    """Never empty: `on_success` by default."""


class Volume(Struct, frozen=True, gc=False):
    """A mount in a container; tmpfs is the only kind."""

    path: str
    tmpfs_size: int
    """Bytes; 0 for no limit."""


class Resources(Struct, frozen=True, gc=False):
    """The limits of a container."""

    cpu: int = 0
    """Thousandths of a processor; 0 for no limit."""
    memory: int = 0
    """Bytes; 0 for no limit."""


class Container(Struct, frozen=True, gc=False):
    """One container of a pod runtime."""

    image: str
    environment: Mapping[str, Text]
    user: str
    privileged: bool
    entrypoint: str
    volumes: tuple[Volume, ...]
    resources: Resources = Resources()


class Runtime(Struct, frozen=True, gc=False):
    """Where a task runs: in a pod of containers, or on the executor's machine (`host`)."""

    type: RuntimeType
    arch: str
    """Empty for any."""
    containers: tuple[Container, ...]
    """At least one for a pod, none for a host."""
    labels: dict[str, str] = field(default_factory=dict)
    """Labels that the executor must have, with these values."""


class SaveContent(Struct, frozen=True, gc=False):
    """The files of a save step: the paths (globs) below source_dir, stored under dest_dir."""

    source_dir: str
    dest_dir: str
    paths: tuple[str, ...]


class Step(Struct, frozen=True, gc=False):
    """A step of a task. Fields that do not belong to its type are empty."""

    type: StepType
    name: str = ""
    command: str = ""
    environment: Mapping[str, Text] | None = None
    working_dir: str = ""
    shell: str = ""
    tty: bool = True
    depth: int = 0
    """clone: number of commits of history; 0 for all."""
    recurse_submodules: bool = False
    key: str = ""
    keys: tuple[str, ...] = ()
    contents: tuple[SaveContent, ...] = ()
    dest_dir: str = ""
    step_timeout_interval: int = 0
    """Maximum duration in nanoseconds; 0 for no limit of its own."""
    no_output_timeout: int = 0
    """run: maximum time without output, in nanoseconds; 0 for no limit."""


class Retry(Struct, frozen=True, gc=False):
    """The retries of a task."""

    max: int
    """Maximum number of attempts after the first."""
    backoff: int
    """Wait before the second attempt in nanoseconds; doubled for each later one."""
    on: tuple[RetryReason, ...]
    """The reasons of failures that are retried."""


class RegistryAuth(Struct, frozen=True, gc=False):
    """The credentials for a container registry."""

    type: str
    username: Text
    password: Text
    auth: Text


class RunConfigTask(Struct, frozen=True, gc=False):
    """A task of the graph, as resolved when the run was created."""

    name: str
    level: int
    """0 for a task without parents, otherwise one more than its highest parent."""
    depends: tuple[Depend, ...]
    runtime: Runtime
    environment: Mapping[str, Text]
    working_dir: str
    shell: str
    user: str
    steps: tuple[Step, ...]
    ignore_failure: bool
    skip: bool
    needs_approval: bool
    docker_registries_auth: dict[str, RegistryAuth]
    task_timeout_interval: int
    """Nanoseconds; 0 for none."""
    retry: Retry | None = None


GroupPolicy = Literal["queue", "cancel_running", "cancel_waiting", "skip"]
"""How a new run affects the unfinished earlier runs of its name in its group.

`queue` waits behind them. `cancel_waiting` cancels the waiting ones. `cancel_running` also stops the running one.
`skip` cancels the new run if there is an earlier one.
"""


class Concurrency(Struct, frozen=True, gc=False):
    """The concurrency policy of a run towards the others of its name in its group."""

    policy: GroupPolicy
    max_waiting: int
    """Maximum number of waiting runs: a new run is cancelled if this many wait before it; 0 for no limit."""


class RunConfig(Struct, frozen=True, gc=False):
    """The graph of tasks, with the settings of the run."""

    name: str
    tasks: dict[str, RunConfigTask]
    """By name."""
    static_environment: Mapping[str, Text]
    environment: Mapping[str, Text]
    cache_group: str
    """Empty for the group root's id."""
    run_timeout_interval: int = 0
    """The timeout, in nanoseconds from its start without pauses; 0 for none."""
    concurrency: Concurrency = Concurrency("queue", 0)
    priority: int = 0
    """-100 to 100; when executors are busy, higher goes first."""
    fail_fast: bool = False
    """Whether no further task starts after the first failure."""


class RunConfigStored(DomainEvent, frozen=True):
    """A run config was stored; its aggregate's id is its content hash."""

    SCHEMA_VERSION: ClassVar[int] = 2

    content: RunConfig

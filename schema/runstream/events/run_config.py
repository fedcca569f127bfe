"""What a run is to do (rule create-4): stored once, by the hash of its content.

Tasks are keyed by name, so that equal content has an equal hash; ids belong to runs. A text that came from a
secret is sealed: it is in plain only in the task that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from msgspec import Struct, field

from runstream.events.event import Event

Condition = Literal["on_success", "on_failure", "on_skipped", "always"]
StepType = Literal["run", "clone", "save_to_workspace", "restore_workspace", "save_cache", "restore_cache"]
RetryReason = Literal["failure", "lost", "timeout"]
"""What ended an attempt: its own failure, an executor that is gone, or a time-out."""


class Sealed(Struct, frozen=True, gc=False):
    """A secret text, encrypted (AES-256-GCM) before it was appended."""

    key: str
    """Which key opens it."""
    value: str
    """Base64 of nonce, ciphertext and tag; behind "2." where it is bound to its place."""

    def __repr__(self) -> str:
        """The secret is in no log, encrypted or not."""
        return f"Sealed(key={self.key!r})"


Text = str | Sealed
"""A text that a task gets in plain: as it is, or sealed."""


def shown_text(text: Text) -> str:
    """How a text is shown to anybody but its task."""
    return text if isinstance(text, str) else "***"


class Depend(Struct, frozen=True, gc=False):
    """On which task, and in which of its outcomes, a task waits."""

    task: str
    conditions: tuple[Condition, ...]
    """Never empty: `on_success` when nothing was said."""


class Volume(Struct, frozen=True, gc=False):
    """A mount in a container; tmpfs is the only kind."""

    path: str
    tmpfs_size: int
    """Bytes; 0 for no limit."""


class Container(Struct, frozen=True, gc=False):
    """One container of a pod runtime."""

    image: str
    environment: Mapping[str, Text]
    user: str
    privileged: bool
    entrypoint: str
    volumes: tuple[Volume, ...]


class Runtime(Struct, frozen=True, gc=False):
    """Where a task runs: in a pod of containers, or on the executor's machine (`host`)."""

    type: Literal["pod", "host"]
    arch: str
    """Empty for any."""
    containers: tuple[Container, ...]
    """At least one for a pod, none for a host."""
    labels: dict[str, str] = field(default_factory=dict)
    """Labels that its executor must have, with these values."""


class SaveContent(Struct, frozen=True, gc=False):
    """What a save step takes: the paths (globs) below source_dir, kept under dest_dir."""

    source_dir: str
    dest_dir: str
    paths: tuple[str, ...]


class Step(Struct, frozen=True, gc=False):
    """One step of a task. Fields that its type does not have keep their empty value."""

    type: StepType
    name: str = ""
    command: str = ""
    environment: Mapping[str, Text] | None = None
    working_dir: str = ""
    shell: str = ""
    tty: bool = True
    depth: int = 0
    """clone: how many commits of history; 0 for all."""
    recurse_submodules: bool = False
    key: str = ""
    keys: tuple[str, ...] = ()
    contents: tuple[SaveContent, ...] = ()
    dest_dir: str = ""
    step_timeout_interval: int = 0
    """Nanoseconds that it may take; 0 for no limit of its own."""
    no_output_timeout: int = 0
    """run: nanoseconds that it may be silent; 0 for no limit."""


class Retry(Struct, frozen=True, gc=False):
    """When a task is tried again by itself."""

    max: int
    """How many attempts may follow the first."""
    backoff: int
    """Nanoseconds before the second attempt; doubled for each one after it."""
    on: tuple[RetryReason, ...]
    """What an attempt must have ended by."""


class RegistryAuth(Struct, frozen=True, gc=False):
    """How to log in at a container registry."""

    type: str
    username: Text
    password: Text
    auth: Text


class RunConfigTask(Struct, frozen=True, gc=False):
    """One task of the graph, as it was resolved when the run was created."""

    name: str
    level: int
    """0 for a task without parents, else one more than its highest parent."""
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
"""What a new run does about the earlier runs of its name in its group that have not ended.

`queue` waits behind them. `cancel_waiting` takes the place of those that wait. `cancel_running` does that, and
stops the one that runs. `skip` gives way: the new run is cancelled if there is any.
"""


class Concurrency(Struct, frozen=True, gc=False):
    """How a run gets along with the others of its name in its group."""

    policy: GroupPolicy
    max_waiting: int
    """How many may wait at once: a run that finds so many waiting before it is cancelled; 0 for no bound."""


class RunConfig(Struct, frozen=True, gc=False):
    """The graph of tasks and what they have in common."""

    name: str
    tasks: dict[str, RunConfigTask]
    """By name."""
    static_environment: Mapping[str, Text]
    environment: Mapping[str, Text]
    cache_group: str
    """Empty for the group root's id."""
    run_timeout_interval: int = 0
    """Nanoseconds from its start, pauses left out; 0 for none."""
    concurrency: Concurrency = Concurrency("queue", 0)
    priority: int = 0
    """-100 to 100; where executors are short, higher goes first."""
    fail_fast: bool = False
    """Whether the first failure keeps tasks from starting."""


class RunConfigStored(Event, frozen=True):
    """A run config was stored; its aggregate's id is its content hash."""

    SCHEMA_VERSION: ClassVar[int] = 2

    content: RunConfig


RunConfigEvent = RunConfigStored
RUN_CONFIG_EVENTS: tuple[type[Event], ...] = (RunConfigStored,)

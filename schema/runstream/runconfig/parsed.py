"""A configuration as it was written, checked and with its defaults, before a run's ref and variables are known."""

from __future__ import annotations

from dataclasses import dataclass

from runstream.events.run_config import Concurrency, Retry
from runstream.runconfig.depends import DependSpec
from runstream.runconfig.problems import Problem
from runstream.runconfig.runtime import RuntimeSpec
from runstream.runconfig.steps import StepSpec
from runstream.runconfig.values import RegistryAuthSpec, Value
from runstream.runconfig.when import When


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One task of a run."""

    name: str
    runtime: RuntimeSpec
    environment: dict[str, Value]
    working_dir: str
    shell: str
    """Empty for the default."""
    user: str
    steps: tuple[StepSpec, ...]
    depends: tuple[DependSpec, ...]
    ignore_failure: bool
    approval: bool
    when: When | None
    docker_registries_auth: dict[str, RegistryAuthSpec]
    task_timeout_interval: int | None
    """Nanoseconds; None when nothing was said here."""
    no_output_timeout: int | None
    retry: Retry | None


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run of the file."""

    name: str
    tasks: tuple[TaskSpec, ...]
    when: When | None
    docker_registries_auth: dict[str, RegistryAuthSpec]
    task_timeout_interval: int | None
    run_timeout_interval: int | None
    no_output_timeout: int | None
    retry: Retry | None
    concurrency: Concurrency
    priority: int
    fail_fast: bool = False


@dataclass(frozen=True, slots=True)
class ParsedConfig:
    """The whole file. `warnings` say what it has that means nothing."""

    runs: tuple[RunSpec, ...]
    docker_registries_auth: dict[str, RegistryAuthSpec]
    task_timeout_interval: int | None
    run_timeout_interval: int | None = None
    no_output_timeout: int | None = None
    retry: Retry | None = None
    warnings: tuple[Problem, ...] = ()

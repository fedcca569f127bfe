"""The fields of a configuration: a table for each kind of map in a file.

The decoder and the JSON Schema for editors both use these tables, so they have the same fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runstream.events.run_config import StepType

Kind = Literal[
    "text",
    "strict text",
    "flag",
    "count",
    "duration",
    "size",
    "arch",
    "runtime type",
    "step type",
    "environment",
    "registries",
    "value",
    "when",
    "patterns",
    "names",
    "runs",
    "tasks",
    "steps",
    "depends",
    "conditions",
    "runtime",
    "containers",
    "volumes",
    "tmpfs",
    "resources",
    "processors",
    "contents",
    "strict texts",
    "labels",
    "concurrency",
    "policy",
    "bound",
    "priority",
    "limit",
    "retry",
    "retries",
    "reasons",
    "anything",
]
"""The type of a field. A `text` takes a number or a boolean by its spelling, a `strict text` does not."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field: its type, and its purpose in a sentence."""

    kind: Kind
    about: str
    required: bool = False


FieldTable = dict[str, Field]

_WHEN = "the branches, tags and refs it is for"
_REGISTRIES = "how to log in at container registries, by registry"
_TASK_TIMEOUT = "the longest time of a task, from the end of its setup"
_RUN_TIMEOUT = "the longest time of a run from its start, without its pauses"
_NO_OUTPUT = "the longest time of a run step without output"
_RETRY = "how often, and when, a failed task is retried"

TOP: FieldTable = {
    "runs": Field("runs", "the runs, each a graph of tasks", required=True),
    "docker_registries_auth": Field("registries", f"{_REGISTRIES}; for all tasks of all runs"),
    "task_timeout_interval": Field("duration", f"{_TASK_TIMEOUT}; for all tasks of all runs"),
    "run_timeout_interval": Field("limit", f"{_RUN_TIMEOUT}; for all runs"),
    "no_output_timeout": Field("limit", f"{_NO_OUTPUT}; for all tasks of all runs"),
    "retry": Field("retry", f"{_RETRY}; for all tasks of all runs"),
}
RUN: FieldTable = {
    "name": Field("text", "1 to 100 bytes, unique in the file", required=True),
    "tasks": Field("tasks", "its tasks, each of which runs on one executor"),
    "when": Field("when", f"{_WHEN}; for any other the run is not created"),
    "docker_registries_auth": Field("registries", f"{_REGISTRIES}; wins over the top level"),
    "task_timeout_interval": Field("duration", f"{_TASK_TIMEOUT}; wins over the top level"),
    "run_timeout_interval": Field("limit", f"{_RUN_TIMEOUT}; wins over the top level"),
    "no_output_timeout": Field("limit", f"{_NO_OUTPUT}; wins over the top level"),
    "retry": Field("retry", f"{_RETRY}; wins over the top level"),
    "concurrency": Field(
        "concurrency", "how it treats earlier runs of its name in its group; by default it waits for them"
    ),
    "priority": Field("priority", "-100 to 100 (default 0); when executors are short, higher priorities go first"),
    "fail_fast": Field("flag", "after the first failure of a task, only tasks that react to failures start"),
}
CONCURRENCY: FieldTable = {
    "policy": Field("policy", "queue (the default), cancel_waiting, cancel_running or skip"),
    "max_waiting": Field("bound", "the run is cancelled if this many wait already; default: no bound"),
}
TASK: FieldTable = {
    "name": Field("text", "1 to 100 bytes, unique in its run", required=True),
    "runtime": Field("runtime", "where it runs: in a pod of containers, or on the executor's machine", required=True),
    "environment": Field("environment", "environment variables of all its run steps"),
    "working_dir": Field("text", "the directory of its steps; default: ~/project"),
    "shell": Field("text", "the shell of its commands; default: /bin/sh -e"),
    "user": Field("text", "the user of its steps; default: the first container's user"),
    "steps": Field("steps", "its steps, which run in order"),
    "depends": Field("depends", "the tasks that it waits for"),
    "ignore_failure": Field("flag", "its failure counts as a success, for the run and for dependent tasks"),
    "approval": Field("flag", "it waits for an approval"),
    "when": Field("when", f"{_WHEN}; for any other the task is skipped"),
    "docker_registries_auth": Field("registries", f"{_REGISTRIES}; wins over the run"),
    "task_timeout_interval": Field("duration", f"{_TASK_TIMEOUT}; wins over the run"),
    "no_output_timeout": Field("limit", f"{_NO_OUTPUT}; wins over the run"),
    "retry": Field("retry", f"{_RETRY}; wins over the run"),
}
RETRY: FieldTable = {
    "max": Field("retries", "the number of attempts after the first: 0 to 10", required=True),
    "backoff": Field("limit", "the delay before the second attempt, at most 24h; it doubles with each later one"),
    "on": Field("reasons", "the outcomes that are retried: failure, lost, timeout; default: all"),
}
RUNTIME: FieldTable = {
    "type": Field("runtime type", "pod (the default), or host: the executor's own machine"),
    "arch": Field("arch", "the architecture it needs; default: any"),
    "containers": Field("containers", "a pod's containers: steps run in the first, the others share its network"),
    "labels": Field("labels", "labels that the executor must have, with their values"),
}
CONTAINER: FieldTable = {
    "image": Field("text", "the image"),
    "environment": Field("environment", "environment variables of this container only"),
    "user": Field("text", "the user in it; default: the image's"),
    "privileged": Field("flag", "it runs with the privileges of the machine, if the executor allows it"),
    "entrypoint": Field("text", "replaces the image's, split at spaces; in the first container it must keep running"),
    "volumes": Field("volumes", "its volumes"),
    "resources": Field("resources", "its limits"),
    "auth": Field("anything", "a field of earlier versions of the format; it never had an effect"),
}
VOLUME: FieldTable = {
    "path": Field("text", "where it is mounted: absolute, and no other volume's", required=True),
    "tmpfs": Field("tmpfs", "a volume in memory, the only kind", required=True),
}
TMPFS: FieldTable = {"size": Field("size", "its largest size, such as 512Mi; default: no limit")}
RESOURCES: FieldTable = {
    "cpu": Field("processors", "the number of processors, such as 2, 0.5 or 500m; default: no limit"),
    "memory": Field("size", "its largest memory, such as 1Gi; default: no limit"),
}
REGISTRY_AUTH: FieldTable = {
    "type": Field("text", "basic (the default), or encodedauth"),
    "username": Field("value", "for basic"),
    "password": Field("value", "for basic"),
    "auth": Field("value", "for encodedauth: base64 of user:password"),
}
VALUE: FieldTable = {"from_variable": Field("strict text", "the project's variable with the value")}
DEPEND: FieldTable = {
    "task": Field("strict text", "the task to wait for", required=True),
    "conditions": Field(
        "conditions", "the outcomes after which it runs: on_success (the default), on_failure, on_skipped, always"
    ),
}
WHEN: FieldTable = {
    "branch": Field("patterns", "compared with a branch"),
    "tag": Field("patterns", "compared with a tag"),
    "ref": Field("patterns", "compared with every full ref, such as refs/heads/main"),
}
PATTERNS: FieldTable = {
    "include": Field("names", "names that match"),
    "exclude": Field("names", "names that do not match although they are included"),
}
CONTENT: FieldTable = {
    "source_dir": Field("strict text", "the directory of the files"),
    "dest_dir": Field("strict text", "the directory that they are restored to"),
    "paths": Field("strict texts", "patterns below source_dir: **, *, ?, [abc], {a,b}"),
}
STEP_TYPE = Field("step type", "the type of the step", required=True)
STEP: FieldTable = {
    "name": Field("strict text", "its name; default for a run step: its command"),
    "when": Field("when", "checked, but without effect"),
    "step_timeout_interval": Field("limit", "its longest time"),
}
"""The fields of every step."""
STEPS: dict[StepType, FieldTable] = {
    "clone": {
        "depth": Field("count", "commits of history, at least 1; default: all"),
        "recurse_submodules": Field("flag", "clone submodules too"),
    },
    "run": {
        "command": Field("strict text", "the shell command; a step with several lines needs a name", required=True),
        "environment": Field("environment", "environment variables of this step; they win over all others"),
        "working_dir": Field("strict text", "default: the task's"),
        "shell": Field("strict text", "default: the task's"),
        "tty": Field("flag", "whether the command has a terminal; default: true"),
        "no_output_timeout": Field("limit", f"{_NO_OUTPUT}; wins over the task"),
    },
    "save_to_workspace": {
        "contents": Field("contents", "the files for the tasks that depend on this one"),
    },
    "restore_workspace": {
        "dest_dir": Field("strict text", "the directory for files of earlier tasks; default: the working directory"),
    },
    "save_cache": {
        "key": Field("strict text", "a template; files kept under a key are never replaced", required=True),
        "contents": Field("contents", "the files to keep for later runs"),
    },
    "restore_cache": {
        "keys": Field("strict texts", "templates; the first key found is taken", required=True),
        "dest_dir": Field("strict text", "the directory for the files; default: the working directory"),
    },
}

NAMES: frozenset[str] = frozenset(
    name
    for table in (TOP, RUN, CONCURRENCY, TASK, RETRY, RUNTIME, CONTAINER, DEPEND, STEP, *STEPS.values())
    for name in table
)
"""All names of fields."""

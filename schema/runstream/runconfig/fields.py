"""The fields of a configuration, where each may stand: what the decoder knows, and what editors are told.

One table for each kind of map in a file. The decoder takes its known names from here; `json_schema` makes the schema
for editors of the same tables, so neither can know a field that the other does not.
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
"""What may stand in a field. A number or a boolean is its text in a `text`, and a mistake in a `strict text`."""


@dataclass(frozen=True, slots=True)
class Field:
    """What one field takes, and what it is for in a sentence."""

    kind: Kind
    about: str
    required: bool = False


FieldTable = dict[str, Field]

_WHEN = "for which branches, tags and refs it is meant"
_REGISTRIES = "how to log in at container registries, by registry"
_TASK_TIMEOUT = "how long a task may take, from the end of its setup"
_RUN_TIMEOUT = "how long a run may take from its start, without its pauses"
_NO_OUTPUT = "how long a run step may write nothing"
_RETRY = "how often, and when, a task that failed is tried again"

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
    "tasks": Field("tasks", "what is to be done, each on one executor"),
    "when": Field("when", f"{_WHEN}; for another the run is not created"),
    "docker_registries_auth": Field("registries", f"{_REGISTRIES}; wins over the top level"),
    "task_timeout_interval": Field("duration", f"{_TASK_TIMEOUT}; wins over the top level"),
    "run_timeout_interval": Field("limit", f"{_RUN_TIMEOUT}; wins over the top level"),
    "no_output_timeout": Field("limit", f"{_NO_OUTPUT}; wins over the top level"),
    "retry": Field("retry", f"{_RETRY}; wins over the top level"),
    "concurrency": Field(
        "concurrency", "what it does about earlier runs of its name in its group; it waits behind them"
    ),
    "priority": Field("priority", "-100 to 100; where executors are short, higher goes first"),
    "fail_fast": Field("flag", "the first failure of a task keeps those from starting that do not react to failures"),
}
CONCURRENCY: FieldTable = {
    "policy": Field("policy", "queue (the default), cancel_waiting, cancel_running or skip"),
    "max_waiting": Field("bound", "if so many wait already, it is cancelled; no bound when nothing is said"),
}
TASK: FieldTable = {
    "name": Field("text", "1 to 100 bytes, unique in its run", required=True),
    "runtime": Field("runtime", "where it runs: in a pod of containers, or on the executor's machine", required=True),
    "environment": Field("environment", "variables of all its run steps"),
    "working_dir": Field("text", "where its steps begin; ~/project when nothing is said"),
    "shell": Field("text", "what runs its commands; /bin/sh -e when nothing is said"),
    "user": Field("text", "who runs its steps; the first container's user when nothing is said"),
    "steps": Field("steps", "what it does, one after the other"),
    "depends": Field("depends", "the tasks that it waits for"),
    "ignore_failure": Field("flag", "its failure counts as a success, for the run and for the tasks that depend on it"),
    "approval": Field("flag", "it waits until it is approved"),
    "when": Field("when", f"{_WHEN}; for another the task is skipped"),
    "docker_registries_auth": Field("registries", f"{_REGISTRIES}; wins over the run"),
    "task_timeout_interval": Field("duration", f"{_TASK_TIMEOUT}; wins over the run"),
    "no_output_timeout": Field("limit", f"{_NO_OUTPUT}; wins over the run"),
    "retry": Field("retry", f"{_RETRY}; wins over the run"),
}
RETRY: FieldTable = {
    "max": Field("retries", "how many attempts may follow the first: 0 to 10", required=True),
    "backoff": Field("limit", "how long the second attempt waits, at most 24h; each later one twice as long"),
    "on": Field("reasons", "what an attempt must have ended by: failure, lost, timeout; any when nothing is said"),
}
RUNTIME: FieldTable = {
    "type": Field("runtime type", "pod (the default), or host: the executor's own machine"),
    "arch": Field("arch", "the architecture it needs; any when nothing is said"),
    "containers": Field("containers", "a pod's containers: steps run in the first, the others share its network"),
    "labels": Field("labels", "labels that the executor must have, with their values"),
}
CONTAINER: FieldTable = {
    "image": Field("text", "the image"),
    "environment": Field("environment", "variables of this container alone"),
    "user": Field("text", "who runs in it; the image's when nothing is said"),
    "privileged": Field("flag", "it has the rights of the machine, where the executor allows it"),
    "entrypoint": Field("text", "replaces the image's, split at spaces; in the first container it has to keep running"),
    "volumes": Field("volumes", "what is mounted into it"),
    "auth": Field("anything", "stands in files of earlier versions of the format; it never had an effect"),
}
VOLUME: FieldTable = {
    "path": Field("text", "where it is mounted"),
    "tmpfs": Field("tmpfs", "it is kept in memory; the only kind of volume", required=True),
}
TMPFS: FieldTable = {"size": Field("size", "how much it may hold, such as 512Mi; no limit when nothing is said")}
REGISTRY_AUTH: FieldTable = {
    "type": Field("text", "basic (the default), or encodedauth"),
    "username": Field("value", "for basic"),
    "password": Field("value", "for basic"),
    "auth": Field("value", "for encodedauth: base64 of user:password"),
}
VALUE: FieldTable = {"from_variable": Field("strict text", "the variable of the project that has the value")}
DEPEND: FieldTable = {
    "task": Field("strict text", "the task that is waited for", required=True),
    "conditions": Field(
        "conditions", "the outcomes after which it runs: on_success (the default), on_failure, on_skipped, always"
    ),
}
WHEN: FieldTable = {
    "branch": Field("patterns", "looked at for branches"),
    "tag": Field("patterns", "looked at for tags"),
    "ref": Field("patterns", "the full ref, such as refs/heads/main; looked at always"),
}
PATTERNS: FieldTable = {
    "include": Field("names", "names that are meant"),
    "exclude": Field("names", "names that are not, although they are included"),
}
CONTENT: FieldTable = {
    "source_dir": Field("strict text", "where the files are"),
    "dest_dir": Field("strict text", "where they are put when they are restored"),
    "paths": Field("strict texts", "patterns below source_dir: **, *, ?, [abc], {a,b}"),
}
STEP_TYPE = Field("step type", "what the step does", required=True)
STEP: FieldTable = {
    "name": Field("strict text", "what it is called; for a run step its command when nothing is said"),
    "when": Field("when", "is checked and has no effect"),
    "step_timeout_interval": Field("limit", "how long it may take"),
}
"""What every step may have."""
STEPS: dict[StepType, FieldTable] = {
    "clone": {
        "depth": Field("count", "how many commits of history, at least 1; all when nothing is said"),
        "recurse_submodules": Field("flag", "clone submodules too"),
    },
    "run": {
        "command": Field("strict text", "what the shell runs; of several lines, the step needs a name", required=True),
        "environment": Field("environment", "wins over every other environment"),
        "working_dir": Field("strict text", "the task's when nothing is said"),
        "shell": Field("strict text", "the task's when nothing is said"),
        "tty": Field("flag", "whether the command has a terminal; true when nothing is said"),
        "no_output_timeout": Field("limit", f"{_NO_OUTPUT}; wins over the task"),
    },
    "save_to_workspace": {
        "contents": Field("contents", "what is handed over to the tasks that depend on this one"),
    },
    "restore_workspace": {
        "dest_dir": Field("strict text", "where what earlier tasks handed over is put; the working directory"),
    },
    "save_cache": {
        "key": Field("strict text", "a template; what is kept under a key is never replaced", required=True),
        "contents": Field("contents", "what is kept for later runs"),
    },
    "restore_cache": {
        "keys": Field("strict texts", "templates; the first key that is found is taken", required=True),
        "dest_dir": Field("strict text", "where it is put; the working directory"),
    },
}

NAMES: frozenset[str] = frozenset(
    name
    for table in (TOP, RUN, CONCURRENCY, TASK, RETRY, RUNTIME, CONTAINER, DEPEND, STEP, *STEPS.values())
    for name in table
)
"""Names of fields, wherever they may stand."""

"""Which environment a task's processes get (domain b.5, d.4).

From the executor's own environment only what a machine's programs need to work is handed on: never its tokens
and URLs. A later layer wins over an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping

from runstream.events.run_config import RunConfig, RunConfigTask, Text
from runstream.executor.process_tree import MARK
from runstream.executor.task_folder import TaskFolder

_INHERITED = frozenset(
    {
        *("PATH", "LANG", "LANGUAGE", "TZ", "TERM", "USER", "LOGNAME", "SHELL"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
        *("GIT_SSL_CAINFO", "NIX_SSL_CERT_FILE"),
    }
)
_INHERITED_PREFIXES = ("LC_", "PIP_", "UV_")
"""Where packages come from is a property of the machine."""


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What a host task gets of the executor's environment."""
    return {
        name: value for name, value in environment.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }


def task_environment(config: RunConfig, task: RunConfigTask, counter: int, attempt: int) -> dict[str, Text]:
    """The task's environment: its own, then the static one, the run's, and the numbers of the run and of the attempt.

    Each name that begins with AGOLA_ is also given as RUNSTREAM_, unless that is set itself.
    """
    numbers = {"RUN_COUNTER": str(counter), "TASK_ATTEMPT": str(attempt)}
    ours = {f"{prefix}_{name}": number for name, number in numbers.items() for prefix in ("AGOLA", "RUNSTREAM")}
    merged: dict[str, Text] = {**task.environment, **config.static_environment, **config.environment, **ours}
    twins = {f"RUNSTREAM_{name[6:]}": value for name, value in merged.items() if name.startswith("AGOLA_")}
    return {**twins, **merged}


def placed(folder: TaskFolder, sandboxed: bool) -> dict[str, str]:
    """What belongs to the task's place on this machine."""
    tmp = "/tmp" if sandboxed else str(folder.tmp)  # noqa: S108
    return {"HOME": str(folder.home), "TMPDIR": tmp}


def marked(environment: Mapping[str, str], mark: str) -> dict[str, str]:
    """The environment with the mark by which the task's processes are found; nothing can replace it."""
    return {**environment, MARK: mark}

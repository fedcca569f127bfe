"""The paths of logs, archives and caches in the object storage (rule storage-4). `run_task` is a run task's id."""

from __future__ import annotations

from runstream.errors import BadRequestError

LOGS = "logs"
ARCHIVES = "workspacearchives"
CACHES = "caches"


def step_log(run_task: str, step: int | None) -> str:
    """Return the path of a step's log; None is the setup step, and -N service N of the pod."""
    name = "setup.log" if step is None else f"services/{-step}.log" if step < 0 else f"steps/{step}.log"
    return f"{LOGS}/{run_task}/data/{name}"


def log_index(run_task: str, step: int | None) -> str:
    """Return the path of the index beside a step's log; it may be missing."""
    return f"{step_log(run_task, step).removesuffix('.log')}.index"


def log_reference(run_task: str, run_id: str) -> str:
    """Return the path of the empty object by which a run refers to the task's logs."""
    return f"{LOGS}/{run_task}/runs/{run_id}"


def archive(run_task: str, step: int) -> str:
    """Return the path of the workspace archive of a save_to_workspace step."""
    return f"{ARCHIVES}/{run_task}/data/{step}.tar"


def archive_reference(run_task: str, run_id: str) -> str:
    """Return the path of the empty object by which a run refers to the task's archives."""
    return f"{ARCHIVES}/{run_task}/runs/{run_id}"


def cache(group: str, key: str) -> str:
    """Return the path of the cache with this key in this group, both escaped."""
    return f"{CACHES}/{group}/{key}.tar"


def run_task_id_from_path(path: str) -> str:
    """Return the run task of a path below the workspace archives. Raises BadRequestError for another path."""
    elements = path.split("/")
    if len(elements) < 2 or elements[0] != ARCHIVES or not elements[1]:
        raise BadRequestError(f"{path[:200]!r} is not the path of a workspace archive", code="invalidObjectPath")
    return elements[1]

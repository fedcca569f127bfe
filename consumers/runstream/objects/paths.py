"""Where in the object storage logs, archives and caches are (rule storage-4). `run_task` is the run task's id."""

from __future__ import annotations

from runstream.errors import BadRequestError

LOGS = "logs"
ARCHIVES = "workspacearchives"
CACHES = "caches"


def step_log(run_task: str, step: int | None) -> str:
    """The log of a step; None is the setup step."""
    name = "setup.log" if step is None else f"steps/{step}.log"
    return f"{LOGS}/{run_task}/data/{name}"


def log_reference(run_task: str, run_id: str) -> str:
    """The empty object that says that a run refers to the task's logs."""
    return f"{LOGS}/{run_task}/runs/{run_id}"


def archive(run_task: str, step: int) -> str:
    """The workspace archive that a save_to_workspace step made."""
    return f"{ARCHIVES}/{run_task}/data/{step}.tar"


def archive_reference(run_task: str, run_id: str) -> str:
    """The empty object that says that a run refers to the task's archives."""
    return f"{ARCHIVES}/{run_task}/runs/{run_id}"


def cache(key: str) -> str:
    """The cache with this full key, escaped already."""
    return f"{CACHES}/{key}.tar"


def run_task_id_from_path(path: str) -> str:
    """The run task that a path below the workspace archives belongs to. Raises BadRequestError for another path."""
    elements = path.split("/")
    if len(elements) < 2 or elements[0] != ARCHIVES or not elements[1]:
        raise BadRequestError(f"{path[:200]!r} is not the path of a workspace archive", code="invalidObjectPath")
    return elements[1]

"""What a step is given."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from runstream.domain.executor_task import ExecutorTask
from runstream.events.run_config import Step
from runstream.executor.drivers.port import Pod
from runstream.executor.spec import ExecutorTaskSpec
from runstream.executor.step_log import StepLog
from runstream.executor.task_folder import TaskFolder

DEFAULT_SHELL = "/bin/sh -e"
DEFAULT_WORKING_DIR = "~/project"


@dataclass(frozen=True, slots=True)
class StepContext:
    """One step of one task that is running."""

    index: int
    step: Step
    task: ExecutorTask
    partition: int
    spec: ExecutorTaskSpec
    pod: Pod
    folder: TaskFolder
    log: StepLog
    stopped: threading.Event
    """Set when the task is to end."""

    @property
    def working_dir(self) -> str:
        """The task's working directory as it was configured."""
        return self.spec.task.working_dir or DEFAULT_WORKING_DIR

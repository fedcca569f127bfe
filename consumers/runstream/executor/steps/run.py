"""The context of a step, and the `run` step: its command is a script that a shell executes (rules step-6 and
step-7)."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from runstream.domain.executor_task import ExecutorTask
from runstream.events.run_config import DEFAULT_SHELL, DEFAULT_WORKING_DIR, Step
from runstream.executor.drivers.port import Exec, Pod
from runstream.executor.spec import ExecutorTaskSpec
from runstream.executor.step_log import StepLog
from runstream.executor.workdir import TaskFolder


@dataclass(frozen=True, slots=True)
class StepContext:
    """A running step of a task."""

    index: int
    step: Step
    task: ExecutorTask
    partition: int
    spec: ExecutorTaskSpec
    pod: Pod
    folder: TaskFolder
    log: StepLog
    stopped: threading.Event
    """Set when the task must end."""

    @property
    def working_dir(self) -> str:
        """The task's configured working directory."""
        return self.spec.task.working_dir or DEFAULT_WORKING_DIR


async def run(context: StepContext) -> int:
    """Run the command; return its exit status."""
    step, task = context.step, context.spec.task
    shell = step.shell or task.shell or DEFAULT_SHELL
    arguments = [part for part in shell.split(" ") if part]
    if step.command:
        arguments.append(await context.pod.write_script(step.command))
    folder = step.working_dir or context.working_dir
    command = Exec(tuple(arguments), folder, context.spec.step_environments[context.index], tty=step.tty)
    return await context.pod.exec(command, context.log.write)

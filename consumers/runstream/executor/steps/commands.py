"""`run`: the command is a script, executed by a shell (rules step-6 and step-7)."""

from __future__ import annotations

from runstream.executor.drivers.port import Exec
from runstream.executor.steps.context import DEFAULT_SHELL, StepContext


async def run(context: StepContext) -> int:
    """Execute the command; its exit status."""
    step, task = context.step, context.spec.task
    shell = step.shell or task.shell or DEFAULT_SHELL
    arguments = [part for part in shell.split(" ") if part]
    if step.command:
        arguments.append(await context.pod.write_script(step.command))
    folder = step.working_dir or context.working_dir
    command = Exec(tuple(arguments), folder, context.spec.step_environments[context.index], tty=step.tty)
    return await context.pod.exec(command, context.log.write)

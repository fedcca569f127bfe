"""`runstream executor`: who runs tasks."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from runstream.cli.output import Output, print_json, print_table, say, styled
from runstream.cli.running import with_client
from runstream.client import Client, Executor


def list_executors(*, output: Output = "table") -> int:
    """List the executors that were not deleted.

    Parameters
    ----------
    output
        How to print them.
    """

    async def work(client: Client) -> None:
        executors = await client.executors.list()
        if output == "json":
            print_json(executors)
        else:
            columns = ("ID", "STATE", "TASKS", "ARCHS", "RUNS", "LABELS", "VERSION")
            print_table(columns, map(_row, executors), "there are no executors")

    return with_client(work)


def delete_executor(executor: str, /) -> int:
    """Forget an executor; tasks that it still has fail once it is found to be gone.

    Parameters
    ----------
    executor
        Its id.
    """

    async def work(client: Client) -> None:
        await client.executors.delete(executor)
        say(f"executor {executor} is deleted")

    return with_client(work)


def _row(executor: Executor) -> tuple[str | Text, ...]:
    limit = str(executor.active_tasks_limit) if executor.active_tasks_limit else "no limit"
    return (
        executor.executor_id,
        styled(executor.state),
        f"{executor.active_tasks} of {limit}",
        ",".join(executor.archs),
        ",".join(what_runs(executor)),
        ",".join(f"{name}={value}" for name, value in sorted(executor.labels.items())),
        executor.version,
    )


def what_runs(executor: Executor) -> Iterator[str]:
    """Yield what kinds of tasks an executor takes."""
    if executor.allow_host:
        yield "host" if executor.sandbox in ("", "sandboxed") else "host WITHOUT a sandbox"
    if executor.allow_pod:
        yield "pod, privileged" if executor.allow_privileged_containers else "pod"

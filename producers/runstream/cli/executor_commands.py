"""`runstream executor`: list, drain and remove executors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated

from cyclopts import Parameter

from runstream.cli.client_session import with_client
from runstream.cli.connection import program_command
from runstream.cli.output import Cell, Column, Output, print_items, print_json, say, styled, timestamp, warn
from runstream.client import Client, Executor
from runstream.client.operations import Executors
from runstream.errors import BadRequestError

SKEW_SECONDS = 2.0
"""Clock skew above which a note is printed."""
_UNREACHABLE = "unreachable"
"""Prefix of `engine` while it cannot be used."""
ExecutorId = Annotated[str, Parameter(help="Its id, or a prefix of it.")]
_COLUMNS: dict[Column, Callable[[Executor], Cell]] = {
    Column("ID"): lambda one: one.executor_id,
    Column("STATE"): lambda one: styled(one.state),
    Column("TASKS"): lambda one: f"{one.active_tasks} of {one.active_tasks_limit or 'no limit'}",
    Column("LAST SEEN", drop=5): lambda one: timestamp(one.last_seen),
    Column("ARCHS", drop=3): lambda one: ",".join(one.archs),
    Column("RUNS", wraps=True, drop=1): lambda one: ",".join(accepted_kinds(one)),
    Column("LABELS", wraps=True, drop=2): lambda one: ",".join(
        f"{name}={one.labels[name]}" for name in sorted(one.labels)
    ),
    Column("VERSION", drop=4): lambda one: one.version,
}


def list_executors(*, output: Output = "table") -> int:
    """List executors."""

    async def work(client: Client) -> None:
        executors = await client.executors.list()
        if output == "json":
            print_json(executors)
        else:
            print_items(executors, _COLUMNS, "there are no executors")
            for executor in executors:
                for note in executor_notes(executor):
                    warn(f"executor {executor.executor_id}: {note}")

    return with_client(work)


def drain_executor(executor: ExecutorId, /) -> int:
    """Give an executor no new tasks; running ones continue to their end. `executor list` says when it is drained."""
    undrain = f"{program_command()} executor undrain"
    return _act(executor, Executors.drain, lambda found: f"gets no new tasks; `{undrain} {found}` ends the drain")


def undrain_executor(executor: ExecutorId, /) -> int:
    """Give a drained executor new tasks again."""
    return _act(executor, Executors.undrain, lambda _: "gets new tasks again")


def delete_executor(executor: ExecutorId, /) -> int:
    """Remove an executor; its unfinished tasks fail once it is found to be gone."""
    return _act(executor, Executors.delete, lambda _: "is removed")


def _act(executor: str, act: Callable[[Executors, str], Awaitable[None]], outcome: Callable[[str], str]) -> int:
    """Act on the executor, then print the outcome."""

    async def work(client: Client) -> None:
        found = await find_executor(client, executor)
        await act(client.executors, found)
        say(f"executor {found} {outcome(found)}")

    return with_client(work)


async def find_executor(client: Client, text: str) -> str:
    """Return the id of the executor with an id, or with the beginning of one. Raises BadRequestError, ClientError."""
    found = [each.executor_id for each in await client.executors.list() if each.executor_id.startswith(text)]
    if len(found) > 1 and text not in found:
        raise BadRequestError(
            f"{text[:80]!r} begins {len(found)} ids of executors",
            code="invalidExecutor",
            hint=f"name one of {', '.join(found[:5])}",
        )
    return found[0] if len(found) == 1 else text


def executor_notes(executor: Executor) -> Iterator[str]:
    """Yield what is wrong with an executor, for people."""
    if executor.full:
        yield f"it takes no tasks: {executor.full}"
    if executor.engine.startswith(_UNREACHABLE):
        yield f"it takes no tasks with containers: its engine is {executor.engine}"
    if abs(executor.clock_skew) > SKEW_SECONDS:
        side = "ahead of" if executor.clock_skew > 0 else "behind"
        yield f"its clock is {abs(executor.clock_skew):.0f} s {side} the log's server; synchronize its clock (NTP)"


def accepted_kinds(executor: Executor) -> Iterator[str]:
    """Yield the kinds of tasks that an executor accepts."""
    if executor.allow_host:
        yield "host" if executor.sandbox in ("", "sandboxed") else "host WITHOUT a sandbox"
    elif executor.sandbox.startswith("refused"):
        yield f"no host tasks ({executor.sandbox})"
    if executor.allow_pod:
        away = " (engine: unreachable)" if executor.engine.startswith(_UNREACHABLE) else ""
        yield f"{'pod, privileged' if executor.allow_privileged_containers else 'pod'}{away}"

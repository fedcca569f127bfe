"""`runstream maintenance`: enable, disable, status, forget."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import socket
from collections.abc import Callable, Sequence
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from runstream.cli.client_session import with_client
from runstream.cli.connection import program_command
from runstream.cli.finding import run_name
from runstream.cli.output import Cell, Column, Output, print_items, print_json, say, styled, timestamp, warn
from runstream.client import Client, ClientError, Instance, Maintenance
from runstream.counting import counted, listed

_NAMED = 5
"""Maximum number of running tasks that are named."""
_ALL = "all"
_SERVICES = ("runs", "config")
_RUNS = 10
"""Maximum number of runs whose tasks are read before maintenance begins."""
Service = Annotated[str, Parameter(help="The service to address: runs, or config (users, projects, secrets).")]
Services = Annotated[
    str, Parameter(help="The service to address: runs, config (users, projects, secrets), or all of them: all.")
]
Condition = Callable[[Maintenance], bool]
_COLUMNS: dict[Column, Callable[[Instance], Cell]] = {
    Column("COMPONENTS", wraps=True): lambda one: ", ".join(one.components),
    Column("STATE", wraps=True): lambda one: Text.assemble(styled(one.state), _detail(one)),
    Column("SINCE", drop=1): lambda one: timestamp(one.since),
    Column("HOST", wraps=True): lambda one: one.host,
    Column("PID"): lambda one: str(one.pid),
    Column("VERSION", drop=2): lambda one: one.version,
    Column("POSITIONS", drop=3): lambda one: " ".join(f"{number}:{at}" for number, at in sorted(one.positions.items())),
    Column("ID", drop=4): lambda one: one.id,
}


def enable(
    *, service: Services = "runs", wait: bool = False, deadline: str = "", reason: str = "", output: Output = "table"
) -> int:
    """Enable maintenance.

    Parameters
    ----------
    wait
        Wait until every process is parked.
    deadline
        Stop tasks that still run after this time, such as 10m; otherwise they are allowed to finish.
    reason
        Reason, shown with every refused request.
    """

    async def work(client: Client) -> int:
        running = await _running_tasks(client) if wait else []
        statuses = [
            await client.maintenance.enable(one, by=_user(), reason=reason, deadline=deadline)
            for one in await _to_change(client, service, requested=False)
        ]
        try:
            return await _finish(client, statuses, (lambda now: now.parked) if wait else None, output, service)
        except asyncio.CancelledError:
            warn(f"maintenance stays enabled: `{program_command()} maintenance disable` ends it")
            if running:
                warn(f"tasks that were running when it began: {listed(running, _NAMED)}")
                warn(f"`{program_command()} maintenance enable --deadline 10m` stops those that take longer")
            raise

    return with_client(work)


def disable(*, service: Services = "runs", wait: bool = False, reason: str = "", output: Output = "table") -> int:
    """Disable maintenance.

    Parameters
    ----------
    wait
        Wait until every process has resumed work.
    reason
        Reason, recorded with the change.
    """

    async def work(client: Client) -> int:
        statuses = [
            await client.maintenance.disable(one, by=_user(), reason=reason)
            for one in await _to_change(client, service, requested=True)
        ]
        return await _finish(client, statuses, (lambda now: now.resumed) if wait else None, output, service)

    return with_client(work)


def status(*, service: Services = "runs", wait: bool = False, output: Output = "table") -> int:
    """Show the status.

    Parameters
    ----------
    wait
        Wait until every process has reached the requested state: parked, or working.
    """

    async def work(client: Client) -> int:
        statuses = [await client.maintenance.status(one) for one in _named(service)]
        return await _finish(client, statuses, _is_settled if wait else None, output, service)

    return with_client(work)


def forget(instance: str, /, *, service: Service = "runs") -> int:
    """Forget a lost process.

    Parameters
    ----------
    instance
        Id of the process, as `maintenance status` shows it.
    """

    async def work(client: Client) -> None:
        await client.maintenance.forget(instance, service)
        say(f"process {instance} is forgotten")

    return with_client(work)


async def _running_tasks(client: Client) -> list[str]:
    """Return the names of running tasks of the latest runs, while the service still answers."""
    found: list[str] = []
    with contextlib.suppress(ClientError):
        for run in (await client.runs.page(phases=["running"], limit=_RUNS)).runs:
            tasks = (await client.runs.get(run.id)).tasks.values()
            found += [f"{task.name} of {run_name(run)}" for task in tasks if task.status == "running"]
    return found


def _named(service: str) -> Sequence[str]:
    return _SERVICES if service == _ALL else (service,)


async def _to_change(client: Client, service: str, *, requested: bool) -> Sequence[str]:
    """Return the services to change; of all services, those that another mode is requested of."""
    if service != _ALL:
        return (service,)
    found = [one for one in _SERVICES if (await client.maintenance.status(one)).requested is requested]
    return found or _SERVICES  # nothing to change is refused as it is of one service


async def _finish(
    client: Client, statuses: Sequence[Maintenance], until: Condition | None, output: Output, service: str
) -> int:
    """Wait for the condition, then print each status; return 1 when another request changed the mode meanwhile."""
    ended = [await _waited(client, status, until, output) for status in statuses]
    if output == "json":
        print_json(ended if service == _ALL else ended[0])
    else:
        for status in ended:
            _print(status)
    return int([one.requested for one in ended] != [one.requested for one in statuses])


async def _waited(client: Client, status: Maintenance, until: Condition | None, output: Output) -> Maintenance:
    """Wait until the condition holds or the mode is changed by another request; return the last status."""
    show = _ProgressPrinter(output, waits=until is not None).show
    enabled = status.requested
    show(status)
    while until is not None and not until(status) and status.requested is enabled:
        status = await client.maintenance.status(status.service, unlike=status.tag)
        show(status)
    return status


class _ProgressPrinter:
    """A printer of progress during a wait: of processes that are waited for, and of changes. Silent for JSON."""

    def __init__(self, output: Output, *, waits: bool) -> None:
        self._quiet = output == "json"
        self._waits = waits
        self._shown: dict[str, str] = {}

    def show(self, status: Maintenance) -> None:
        """Print a line for each process that is waited for, or whose state has changed."""
        for instance in status.instances:
            word = instance.state + _detail(instance)
            before = self._shown.get(instance.id)
            self._shown[instance.id] = word
            changed = before != word if before is not None else self._waits and bool(_detail(instance))
            if not self._quiet and changed:
                say(f"{_name(instance)}: {word}")


def _print(status: Maintenance) -> None:
    say(_headline(status))
    print_items(status.instances, _COLUMNS, "there are no processes")


def _headline(status: Maintenance) -> str:
    if not status.requested:
        return f"{status.service}: not in maintenance"
    words = [f"{status.service}: maintenance since {timestamp(status.since)}"]
    words += [f"by {status.by}"] if status.by else []
    words += [f"tasks may run until {timestamp(status.deadline)}"] if status.deadline else []
    words += [f"reason: {status.reason}"] if status.reason else []
    left = sum(not one.parked for one in status.instances)
    words.append("all processes are parked" if not left else f"not parked: {left} of {len(status.instances)}")
    return "; ".join(words)


def _detail(instance: Instance) -> str:
    if instance.state == "lost":
        return f", was {instance.last_state}" if instance.last_state else ""
    waits = [
        counted(part.under_way, _unit(name))
        for name, part in instance.parts.items()
        if part.doing == "draining" and part.under_way
    ]
    return f" ({', '.join(waits)} to end)" if waits else ""


def _unit(part: str) -> str:
    return {"executor": "task", "gateway": "request"}.get(part, f"piece of work of the {part}")


def _name(instance: Instance) -> str:
    return f"{'+'.join(instance.components)} (process {instance.pid} on {instance.host})"


def _is_settled(status: Maintenance) -> bool:
    return status.parked if status.requested else status.resumed


def _user() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"  # no such user on this machine, as in a container
    return f"{user}@{socket.gethostname()}"

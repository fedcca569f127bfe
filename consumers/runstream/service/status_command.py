"""`runstream status`: whether the service is running, where, since when, and what it is doing."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from runstream.cli.client_session import service_errors
from runstream.cli.connection import find_service, global_options, with_program
from runstream.cli.output import Output, duration, print_json, say, timestamp
from runstream.client import Client, ClientError, ConnectionFailedError, Stall
from runstream.client.client import ServiceAddress
from runstream.service.data_dir import holder

_COUNTED = 40
"""Bound of counted runs in one phase: one page."""


@dataclass(frozen=True, slots=True)
class _Line:
    what: str
    found: str


def status_command(*, output: Output = "table") -> int:
    """Show whether the service is running, where, since when, and what it is doing.

    The exit code is 0 when it is running and ready, 1 when it is not.
    """
    with service_errors():
        running, lines = asyncio.run(_status())
    if output == "json":
        print_json({"running": running, **{line.what: line.found for line in lines}})
    else:
        width = max(len(line.what) for line in lines)
        for line in lines:
            say(f"{line.what:{width}}  {line.found}")
    return int(not running)


async def _status() -> tuple[bool, list[_Line]]:
    options = global_options()
    try:
        service = find_service(options, os.environ)
    except ClientError as error:
        if error.code != "noService":
            raise
        return False, list(_without_file(Path(str(error.details.get("data_dir", "")))))
    async with Client(service.url, token=service.token, detailed_errors=options.detailed_errors) as client:
        try:
            readiness = await client.readiness()
        except ConnectionFailedError:
            if service.data_dir is None:
                raise
            return False, list(_unreachable(service, service.data_dir))
        lines = [*_whereabouts(service), *await _of_api(client)]
    broken = [f"{name}: {found}" for name, found in sorted(readiness.checks.items()) if found != "ok"]
    state = "running" if readiness.ready else f"running, but not ready: {'; '.join(broken)}"
    return readiness.ready, [_Line("service", state), *lines, *_of_stalls(readiness.stalls)]


def _of_stalls(stalls: Sequence[Stall]) -> Iterator[_Line]:
    """Yield two lines for each stalled consumer of the log."""
    for stall in stalls:
        state = "has parked commits" if stall.kind == "parked" else "stands still"
        found = f"{state} at {stall.position} since {timestamp(stall.since)} ({stall.commits} waiting): {stall.why}"
        yield _Line(f"{stall.component} {stall.partition}", found)
        yield _Line("  what to do", with_program(stall.todo))


def _without_file(data_dir: Path) -> Iterator[_Line]:
    """Yield the lines for a data directory without an announced gateway."""
    pid = holder(data_dir)
    if pid is None:
        yield _Line("service", "not running")
        yield _Line("start it", with_program("runstream serve"))
    else:
        yield _Line("service", f"process {pid} is starting, stopping, or has no gateway")
    yield _Line("data", str(data_dir))


def _unreachable(service: ServiceAddress, data_dir: Path) -> Iterator[_Line]:
    """Yield the lines for an announced gateway that does not answer: killed, starting or stopping."""
    pid = holder(data_dir)
    if pid is None:
        yield _Line("service", f"not running: process {service.pid} ended without stopping")
        yield _Line("start it", with_program("runstream serve (it goes on where it was)"))
    else:
        yield _Line("service", f"process {pid} does not answer at {service.url}")
    yield _Line("data", str(data_dir))


def _whereabouts(service: ServiceAddress) -> Iterator[_Line]:
    yield _Line("url", service.url)
    if service.data_dir is None:
        return
    yield _Line("data", str(service.data_dir))
    if psutil.pid_exists(service.pid):
        since = datetime.fromtimestamp(psutil.Process(service.pid).create_time(), UTC)
        yield _Line("process", f"{service.pid}, since {timestamp(since)} ({duration(since, None)})")


async def _of_api(client: Client) -> list[_Line]:
    """Return the lines from the API, which in maintenance answers little else than its status."""
    mode = await client.maintenance.status()
    if mode.requested:
        reason = f": {mode.reason}" if mode.reason else ""
        return [_Line("maintenance", f"enabled since {timestamp(mode.since)}{reason}")]
    states = Counter(executor.state for executor in await client.executors.list())
    counts = [(phase, await _count(client, phase)) for phase in ("running", "queued")]
    return [
        _Line("version", (await client.version()).version),
        _Line("executors", ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"),
        _Line("runs", ", ".join(f"{count} {phase}" for phase, count in counts)),
    ]


async def _count(client: Client, phase: str) -> str:
    page = await client.runs.page(phases=[phase], limit=_COUNTED)
    more = page.next_start is not None
    return f"{len(page.runs)}{'+' if more else ''}"

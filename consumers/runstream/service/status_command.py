"""`runstream status`: whether the service is running, where, since when, and what it is doing."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psutil

from runstream.cli.client_session import service_errors
from runstream.cli.connection import find_service, global_options, with_program
from runstream.cli.output import Output, duration, print_json, say, timestamp
from runstream.client import Client, ClientError, ConnectionFailedError, Stall
from runstream.client.client import ServiceAddress
from runstream.service.data_dir import holder

_COUNTED = 40
"""Bound of counted runs in one phase: one page."""


class _StatusLine(NamedTuple):
    what: str
    found: str


def status_command(*, output: Output = "table") -> int:
    """Show whether the service is running, where, since when, and what it is doing.

    The exit code is 0 when it is running and ready, 1 when it is not.
    """
    with service_errors():
        running, lines = asyncio.run(_status())
    if output == "json":
        print_json({"running": running, **dict(lines)})
    else:
        width = max(len(line.what) for line in lines)
        for line in lines:
            say(f"{line.what:{width}}  {line.found}")
    return int(not running)


async def _status() -> tuple[bool, list[_StatusLine]]:
    options = global_options()
    try:
        service = find_service(options, os.environ)
    except ClientError as error:
        if error.code != "noService":
            raise
        return False, _not_reached(Path(str(error.details.get("data_dir", ""))))
    async with Client(service.url, token=service.token, detailed_errors=options.detailed_errors) as client:
        try:
            readiness = await client.readiness()
        except ConnectionFailedError:
            if service.data_dir is None:
                raise
            return False, _not_reached(service.data_dir, service)
        lines = [*_location(service), *await _of_api(client)]
    broken = [f"{name}: {found}" for name, found in sorted(readiness.checks.items()) if found != "ok"]
    state = "running" if readiness.ready else f"running, but not ready: {'; '.join(broken)}"
    return readiness.ready, [_StatusLine("service", state), *lines, *_of_stalls(readiness.stalls)]


def _of_stalls(stalls: Sequence[Stall]) -> Iterator[_StatusLine]:
    """Yield two lines for each stalled consumer of the log."""
    for stall in stalls:
        state = "has parked commits" if stall.kind == "parked" else "stands still"
        found = f"{state} at {stall.position} since {timestamp(stall.since)} ({stall.commits} waiting): {stall.why}"
        where = stall.partition if stall.service == "runs" else stall.service
        yield _StatusLine(f"{stall.component} {where}", found)
        yield _StatusLine("  what to do", with_program(stall.todo))


def _not_reached(data_dir: Path, service: ServiceAddress | None = None) -> list[_StatusLine]:
    """Return the lines for a data directory whose announced gateway, if it has one, does not answer."""
    pid = holder(data_dir)
    if pid is not None:
        answers = f"does not answer at {service.url}" if service else "is starting, stopping, or has no gateway"
        return [_StatusLine("service", f"process {pid} {answers}"), _StatusLine("data", str(data_dir))]
    ended = f": process {service.pid} ended without stopping" if service else ""
    start = with_program(f"runstream serve{' (it goes on where it was)' if service else ''}")
    return [
        _StatusLine("service", f"not running{ended}"),
        _StatusLine("start it", start),
        _StatusLine("data", str(data_dir)),
    ]


def _location(service: ServiceAddress) -> Iterator[_StatusLine]:
    yield _StatusLine("url", service.url)
    if service.data_dir is None:
        return
    yield _StatusLine("data", str(service.data_dir))
    if psutil.pid_exists(service.pid):
        since = datetime.fromtimestamp(psutil.Process(service.pid).create_time(), UTC)
        yield _StatusLine("process", f"{service.pid}, since {timestamp(since)} ({duration(since, None)})")


async def _of_api(client: Client) -> list[_StatusLine]:
    """Return the lines from the API, which in maintenance answers little else than its status."""
    mode = await client.maintenance.status()
    if mode.requested:
        reason = f": {mode.reason}" if mode.reason else ""
        return [_StatusLine("maintenance", f"enabled since {timestamp(mode.since)}{reason}")]
    states = Counter(executor.state for executor in await client.executors.list())
    counts = [(phase, await _count(client, phase)) for phase in ("running", "queued")]
    return [
        _StatusLine("version", (await client.version()).version),
        _StatusLine("executors", ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"),
        _StatusLine("runs", ", ".join(f"{count} {phase}" for phase, count in counts)),
    ]


async def _count(client: Client, phase: str) -> str:
    page = await client.runs.page(phases=[phase], limit=_COUNTED)
    more = page.next_start is not None
    return f"{len(page.runs)}{'+' if more else ''}"

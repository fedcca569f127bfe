"""What NATS is and does: version, durability, limits, its clock.

How a server syncs to disk can only be asked in its system account; the embedded server has a user there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client

from runstream.counting import counted
from runstream.domain.executor import SKEW_SECONDS
from runstream.errors import InternalError
from runstream.jetstream.api import StoreUse, request, store_use
from runstream.jetstream.connection import nats_connection
from runstream.leases import ExecutorSightings, LeaseBucket
from runstream.service.doctor.finding import Finding, judged
from runstream.service.doctor.log import log_streams
from runstream.settings import Settings

OLDEST = (2, 14)
SMALLEST_PAYLOAD = 1 << 20
_REQUEST_SECONDS = 3.0
_CLOCK_SECONDS = 1.0
_NEARLY_FULL = 0.1
"""Of the limit."""
_ALWAYS = "set `sync_interval: always` in the jetstream block of the server's configuration"


async def nats_server(settings: Settings, admin_url: str | None, folder: Path | None) -> AsyncIterator[Finding]:
    """Return what was found at the NATS of the settings.

    `admin_url` is a user of its system account, where there is one; `folder` is that of an embedded server.
    """
    async with nats_connection(settings.nats_url, "runstream doctor", 5.0) as client:
        yield _version(client)
        yield _payload(client)
        async for finding in _durability(settings, admin_url, folder):
            yield finding
        yield await _limits(client, folder)
        yield await _clock(client)
        async for finding in _executor_clocks(client, settings.namespace):
            yield finding
        async for finding in log_streams(client, settings):
            yield finding


def _version(client: Client) -> Finding:
    version = client.connected_server_version
    return judged(
        "NATS version",
        f"{version.major}.{version.minor}.{version.patch}",
        good=(version.major, version.minor) >= OLDEST,
        todo="install nats-server 2.14 or later: atomic batches and message schedules are needed",
    )


def _payload(client: Client) -> Finding:
    return judged(
        "NATS max_payload",
        f"{client.max_payload >> 10} KiB",
        good=client.max_payload >= SMALLEST_PAYLOAD,
        todo="set `max_payload: 8MB` in the server's configuration: large run configs are refused",
        otherwise="warning",
    )


async def _durability(settings: Settings, admin_url: str | None, folder: Path | None) -> AsyncIterator[Finding]:
    what = "NATS sync to disk"
    if admin_url is None:
        yield Finding(what, "unknown", "only the server's system account can tell", f"{_ALWAYS}; see --nats-admin-url")
        return
    async with nats_connection(admin_url, "runstream doctor", 5.0) as client:
        for server, data in await _all_servers(client):
            config = data.get("config", {})
            always = bool(config.get("sync_always"))
            seconds = config.get("sync_interval", 0) / 1e9
            yield judged(
                what,
                f"{server}: always" if always else f"{server}: every {seconds:.0f} s",
                good=always,
                todo=f"{_ALWAYS}: else a power cut loses what was acknowledged",
                otherwise="problem" if settings.replicas == 1 else "warning",
            )
            yield _server_store(server, data, folder)


async def _all_servers(client: Client) -> list[tuple[str, Mapping[str, Any]]]:
    """What every server says of its JetStream, by name: the answers that come until half a second is silent."""
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    await client.publish("$SYS.REQ.SERVER.PING.JSZ", b'{"config":true}', reply=inbox)
    found: list[tuple[str, Mapping[str, Any]]] = []
    try:
        while True:
            answer = orjson.loads((await answers.next_msg(timeout=0.5)).data)
            found.append((answer["server"]["name"], answer.get("data", {})))
    except nats.errors.TimeoutError:
        return found
    finally:
        await answers.unsubscribe()


async def _limits(client: Client, folder: Path | None) -> Finding:
    account = await request(client, "INFO")
    store = await store_use(client, folder)
    streams, consumers = counted(account["streams"], "stream"), counted(account["consumers"], "consumer")
    return judged(
        "NATS storage",
        f"{store}; {streams}, {consumers}",
        good=not _nearly_full(store),
        todo="free space on its disk, or raise the account's max_file_store: a full store takes no commit any more",
    )


def _server_store(server: str, data: Mapping[str, Any], folder: Path | None) -> Finding:
    used, limit = int(data.get("storage", 0)), int(data.get("config", {}).get("max_storage", 0))
    free = None if folder is None else shutil.disk_usage(folder).free
    store = StoreUse(used, limit if limit > 0 else None, free)
    again = "it is restarted by itself then" if folder is not None else "then restart it: it refuses writes until then"
    return judged(
        "NATS store",
        f"{server}: {store}",
        good=not _nearly_full(store),
        todo=f"free space on its disk or raise max_file_store; {again}",
    )


def _nearly_full(store: StoreUse) -> bool:
    """Return whether less is left than a tenth of the limit."""
    return store.full or (store.limit is not None and (store.left or 0) < _NEARLY_FULL * store.limit)


async def _clock(client: Client) -> Finding:
    asked = time.time()
    try:
        answer = await client.request("$SYS.REQ.USER.INFO", b"", timeout=_REQUEST_SECONDS)
    except nats.errors.Error:
        return Finding("NATS clock", "unknown", "the server does not tell its time", "keep all clocks set by NTP")
    middle = (asked + time.time()) / 2
    theirs = datetime.fromisoformat(orjson.loads(answer.data)["server"]["time"]).timestamp()
    return clock("NATS clock", theirs - middle)


async def _executor_clocks(client: Client, namespace: str) -> AsyncIterator[Finding]:
    """Compare the clock of each living executor with the server's, as its lease shows it."""
    try:
        seen = await ExecutorSightings(LeaseBucket(client, f"{namespace}_executors", 0)).seen()
    except InternalError:
        return  # no executor was ever here
    for executor_id, sighting in sorted(seen.items()):
        if abs(sighting.skew) > SKEW_SECONDS:
            yield Finding(
                f"clock of executor {executor_id}",
                "warning",
                f"{sighting.skew:+.1f} s from the log's server",
                "set its clock by NTP: its times in runs are wrong",
            )


def clock(what: str, seconds: float) -> Finding:
    """Compare a server's clock with this machine's."""
    close = abs(seconds) <= _CLOCK_SECONDS
    return judged(
        what,
        "in sync" if close else f"{seconds:+.3f} s from this machine's",
        good=close,
        todo="set the clocks by NTP: times in runs and time-outs come from different machines",
        otherwise="warning",
    )

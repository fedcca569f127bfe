"""Whether every stream of the log is there, has a leader and its replicas, and can be read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client

from runstream.counting import counted
from runstream.errors import RunstreamError
from runstream.jetstream.api import request
from runstream.log import streams
from runstream.service.doctor.finding import Finding, judged
from runstream.settings import Settings
from runstream.subjects import Subjects

SAMPLES = 16
"""Messages of a stream that are read, from its first to its last; `runstream fsck` reads all of them."""
_REQUEST_SECONDS = 3.0


@dataclass(slots=True)
class _Streams:
    """What was found, by name of the stream."""

    messages: int = 0
    few: list[str] = field(default_factory=list)
    """Those with fewer replicas than the settings say."""
    away: list[str] = field(default_factory=list)
    """Replicas that do not follow their leader."""
    compressed: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Those that cannot be read, each with the reason."""


async def log_streams(client: Client, settings: Settings) -> AsyncIterator[Finding]:
    """Findings on the streams of the epoch that is served."""
    description = await streams.described(client, settings.namespace, "runs")
    if description is None:
        yield Finding("log", "ok", f"none yet in namespace {settings.namespace!r}; the first `serve` makes it")
        return
    subjects = Subjects(settings.namespace, "runs", description.epoch)
    found = _Streams()
    for partition in range(description.partitions):
        try:
            await _look_at(client, subjects.stream(partition), settings.replicas, found)
        except (RunstreamError, nats.errors.Error) as error:
            found.broken.append(f"{subjects.stream(partition)} ({str(error) or type(error).__name__})")
    partitions = description.partitions
    yield Finding(
        "log",
        "ok",
        f"epoch {description.epoch}, {counted(partitions, 'partition')}, {counted(found.messages, 'commit')}",
    )
    yield _replicas(found, partitions, settings.replicas)
    yield judged(
        "log compression",
        ", ".join(found.compressed) or "none",
        good=not found.compressed,
        todo="start `runstream serve` of this version: it turns compression off. Killed nodes left compressed streams "
        "unreadable",
        otherwise="warning",
    )
    yield judged(
        "log readable",
        "; ".join(found.broken) or f"{SAMPLES} commits of every stream were read",
        good=not found.broken,
        todo="restart the server that leads the stream; if it stays so, remove this replica's peer "
        "(nats stream cluster peer-remove), or restore the log from its archive",
    )


async def _look_at(client: Client, stream: str, replicas: int, found: _Streams) -> None:
    info = await request(client, f"STREAM.INFO.{stream}", seconds=_REQUEST_SECONDS)
    config, state = info["config"], info["state"]
    found.messages += state["messages"]
    if streams.compressed(config):
        found.compressed.append(stream)
    if config["num_replicas"] < replicas:
        found.few.append(stream)
    found.away += [f"{stream} on {name}" for name in _away(info.get("cluster") or {})]
    for sequence in _samples(state["first_seq"], state["last_seq"]):
        # The leader answers the first, any replica the second.
        await request(client, f"STREAM.MSG.GET.{stream}", {"seq": sequence}, seconds=_REQUEST_SECONDS)
        body = orjson.dumps({"seq": sequence})
        answer = await client.request(f"$JS.API.DIRECT.GET.{stream}", body, timeout=_REQUEST_SECONDS)
        if (answer.headers or {}).get("Status"):
            found.broken.append(f"{stream} (a replica has no message {sequence})")
            return


def _away(cluster: Mapping[str, Any]) -> list[str]:
    """The replicas that are offline or behind."""
    return [peer["name"] for peer in cluster.get("replicas") or () if peer.get("offline") or not peer.get("current")]


def _samples(first: int, last: int) -> list[int]:
    """Sequences spread evenly from the first to the last; none of an empty stream."""
    if last < first or last == 0:
        return []
    return sorted({first + (last - first) * at // (SAMPLES - 1) for at in range(SAMPLES)})


def _replicas(found: _Streams, partitions: int, wanted: int) -> Finding:
    if found.few:
        return Finding(
            "log replicas",
            "problem",
            f"{len(found.few)} of {counted(partitions, 'stream')} with fewer than {wanted}",
            f"raise them: nats stream edit {found.few[0]} --replicas {wanted}",
        )
    return judged(
        "log replicas",
        f"away or behind: {', '.join(found.away)}" if found.away else f"each stream has {counted(wanted, 'replica')}",
        good=not found.away,
        todo="start the servers that are away; a replica that is behind catches up by itself",
        otherwise="warning",
    )

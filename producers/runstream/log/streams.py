"""The streams of a log, and its description: epoch, partitions, format.

The description is a key of the KV bucket `<namespace>_control`, which holds a key for each fact about the whole
deployment. It is written after the streams exist, so a described log is complete. A missing stream of a described log
is an error, and never made again silently.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from runstream.counting import counted
from runstream.errors import BadRequestError, InternalError, NotExistError
from runstream.jetstream.api import (
    STREAM_DIFFERS,
    STREAM_NOT_FOUND,
    WRONG_SEQUENCE,
    ApiError,
    bucket_config,
    ensure_stream,
    last_message,
    publish,
    request,
)
from runstream.lifecycle import wait_for_event
from runstream.subjects import MAX_PARTITIONS, Subjects


@dataclass(frozen=True, slots=True)
class ControlEntry:
    """The value of a key in the control bucket."""

    data: bytes
    """Empty for a key that is not set."""
    sequence: int
    """The sequence that a change is based on; 0 for a key that was never set."""


async def read_key(nc: Client, namespace: str, key: str) -> ControlEntry:
    """Read a key; an empty entry when the key or the bucket does not exist. Raises UnavailableError."""
    bucket = f"{namespace}_control"
    try:
        found = await last_message(nc, f"KV_{bucket}", f"$KV.{bucket}.{key}")
    except ApiError as error:
        if error.number == STREAM_NOT_FOUND:
            return ControlEntry(b"", 0)
        raise
    return ControlEntry(found.data, found.sequence) if found is not None else ControlEntry(b"", 0)


async def write_key(nc: Client, namespace: str, key: str, data: bytes, *, after: int | None = None) -> bool:
    """Set a key of an existing bucket; with `after`, return False if the key has changed since that sequence.

    Raises UnavailableError.
    """
    headers = {} if after is None else {"Nats-Expected-Last-Subject-Sequence": str(after)}
    try:
        await publish(nc, f"$KV.{namespace}_control.{key}", data, headers)
    except ApiError as error:
        if error.number in WRONG_SEQUENCE:
            return False
        raise
    return True


FORMAT = 1
"""The format of subjects, bodies and headers (docs/formats/log.md)."""
_DELETE_SECONDS = 30.0
_NAMESPACE = re.compile(r"[A-Za-z0-9-]{1,40}")
_SETTINGS: dict[str, object] = {
    "retention": "limits",
    "storage": "file",
    "discard": "new",
    "deny_delete": True,
    "deny_purge": True,
    "allow_atomic": True,
    "allow_direct": True,
}
_UNCOMPRESSED = "none"
"""The codec compresses large bodies. With s2, three replicas and repeatedly killed nodes, nats-server 2.15.1 left
blocks that it could no longer read, and a partition that stalled for good."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LogDescription:
    """The properties of a whole log."""

    epoch: int
    partitions: int
    format: int


def require_namespace(namespace: str) -> str:
    """Return a namespace that is valid in subjects and names of streams. Raises BadRequestError."""
    if not _NAMESPACE.fullmatch(namespace):
        raise BadRequestError(
            f"namespace {namespace[:80]!r} is not valid",
            code="invalidNamespace",
            hint="use 1 to 40 letters, digits and '-'",
        )
    return namespace


async def described(nc: Client, namespace: str, service: str) -> LogDescription | None:
    """Return the log's description; None when there is no log. Raises BadRequestError for a foreign one."""
    return _description(namespace, await read_key(nc, require_namespace(namespace), service))


async def create(nc: Client, subjects: Subjects, partitions: int, replicas: int) -> LogDescription:
    """Make the streams, then the description; one that another process wrote meanwhile wins."""
    await create_streams(nc, subjects, partitions, replicas)
    return await describe(nc, subjects, partitions)


async def create_streams(nc: Client, subjects: Subjects, partitions: int, replicas: int) -> None:
    """Make the control bucket and the missing streams of an epoch, which no process reads yet."""
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise BadRequestError(
            f"partitions must be 1 to {MAX_PARTITIONS} (got {partitions})",
            code="invalidPartitions",
            hint=f"use 1 to {MAX_PARTITIONS}",
        )
    await create_control_bucket(nc, subjects.namespace, replicas)
    for partition in range(partitions):
        await _create_stream(nc, subjects, partition, partitions, replicas)


async def describe(
    nc: Client, subjects: Subjects, partitions: int, *, instead: LogDescription | None = None
) -> LogDescription:
    """Write the description, from which on the log is used; return the description that holds.

    A description that another process wrote meanwhile wins, unless it is the one to replace (`instead`).
    """
    found = await read_key(nc, subjects.namespace, subjects.service)
    before = _description(subjects.namespace, found)
    description = LogDescription(subjects.epoch, partitions, FORMAT)
    if before is not None and (before == description or before != instead):
        return before
    data = orjson.dumps(description, option=orjson.OPT_SORT_KEYS)
    await write_key(nc, subjects.namespace, subjects.service, data, after=found.sequence)
    return await described(nc, subjects.namespace, subjects.service) or description


async def withdraw(nc: Client, namespace: str, service: str) -> None:
    """Clear the description, so that no process starts to use the log until it is described again."""
    if (await read_key(nc, namespace, service)).data:
        await write_key(nc, namespace, service, b"")


async def ends(nc: Client, subjects: Subjects, partitions: int) -> tuple[int | None, ...]:
    """Return the last sequence of each stream of an epoch; None where there is no stream."""
    return tuple([await _end(nc, subjects.stream(partition)) for partition in range(partitions)])


async def delete_stream(nc: Client, subjects: Subjects, partition: int) -> None:
    """Delete a stream and its messages, if it exists."""
    try:
        await request(nc, f"STREAM.DELETE.{subjects.stream(partition)}", seconds=_DELETE_SECONDS)
    except ApiError as error:
        if error.number != STREAM_NOT_FOUND:
            raise


def _description(namespace: str, entry: ControlEntry) -> LogDescription | None:
    if not entry.data:
        return None
    try:
        return msgspec.convert(orjson.loads(entry.data), LogDescription)
    except (orjson.JSONDecodeError, msgspec.ValidationError) as error:
        raise _foreign(namespace, f"its description cannot be read: {error}") from error


async def _end(nc: Client, stream: str) -> int | None:
    info = await _info(nc, stream)
    return None if info is None else info["state"]["last_seq"]


async def _info(nc: Client, stream: str) -> dict[str, Any] | None:
    """Return the answer of STREAM.INFO; None where there is no stream."""
    try:
        return await request(nc, f"STREAM.INFO.{stream}")
    except ApiError as error:
        if error.number == STREAM_NOT_FOUND:
            return None
        raise


async def create_control_bucket(nc: Client, namespace: str, replicas: int) -> None:
    """Make the control bucket, if it does not exist."""
    await ensure_stream(nc, bucket_config(f"{namespace}_control", replicas))


async def check(nc: Client, subjects: Subjects, description: LogDescription, partitions: int | None) -> None:
    """Check that this release can use the log. Raises BadRequestError, NotExistError, InternalError."""
    if description.format > FORMAT:
        raise BadRequestError(
            f"the log {subjects.namespace!r} has format {description.format}, this Runstream knows up to {FORMAT}",
            code="newerLog",
            hint="use the Runstream that wrote it, or a later one",
        )
    if partitions is not None and partitions != description.partitions:
        raise BadRequestError(
            f"the log {subjects.namespace!r} has {counted(description.partitions, 'partition')}, not {partitions}",
            code="otherPartitions",
            details={"partitions": description.partitions, "asked": partitions},
            hint=f"set partitions to {description.partitions}; another number takes an export and an import",
        )
    for partition in range(description.partitions):
        await _check_stream(nc, subjects, partition, description.partitions)


async def uncompress(nc: Client, subjects: Subjects, partitions: int) -> None:
    """Turn off the compression of streams that an earlier version made; stored messages stay readable.

    A stream whose server refuses is logged and used as it is. Raises UnavailableError.
    """
    for partition in range(partitions):
        name = subjects.stream(partition)
        config = (await request(nc, f"STREAM.INFO.{name}"))["config"]
        if not compressed(config):
            continue
        try:
            await request(nc, f"STREAM.UPDATE.{name}", {**config, "compression": _UNCOMPRESSED}, seconds=15.0)
        except ApiError as error:
            log.warning(
                "compression of a stream cannot be turned off",
                action="stream_compressed",
                stream=name,
                why=error.message,
            )
        else:
            log.info("turned compression of a stream off", action="stream_uncompressed", stream=name)


def compressed(config: Mapping[str, object]) -> bool:
    """Return whether a stream of this configuration compresses what it stores."""
    return config.get("compression", _UNCOMPRESSED) != _UNCOMPRESSED


async def _create_stream(nc: Client, subjects: Subjects, partition: int, partitions: int, replicas: int) -> None:
    name = subjects.stream(partition)
    config: dict[str, object] = {
        "name": name,
        "subjects": [f"{subjects.prefix(partition)}.>"],
        "num_replicas": replicas,
        "metadata": _metadata(subjects, partitions),
        "compression": _UNCOMPRESSED,
        **_SETTINGS,
    }
    try:
        answer = await request(nc, f"STREAM.CREATE.{name}", config, seconds=15.0)
    except ApiError as error:
        if error.number == STREAM_DIFFERS:
            await _check_stream(nc, subjects, partition, partitions)
            return
        raise
    _require_settings(name, answer["config"])


async def _check_stream(nc: Client, subjects: Subjects, partition: int, partitions: int) -> None:
    name = subjects.stream(partition)
    info = await _info(nc, name)
    if info is None:
        raise NotExistError(
            f"the log {subjects.namespace!r} has a description, but its stream {name} is missing",
            code="logIncomplete",
            hint="restore the data of NATS, or the log from its data status; a missing stream is never made again",
        )
    config = info["config"]
    found = {key: value for key, value in config.get("metadata", {}).items() if not key.startswith("_nats")}
    if found != _metadata(subjects, partitions) or config["subjects"] != [f"{subjects.prefix(partition)}.>"]:
        raise _foreign(subjects.namespace, f"stream {name} says {found or 'nothing'} about itself")
    _require_settings(name, config)


def _require_settings(name: str, config: dict[str, object]) -> None:
    wrong = sorted(key for key, value in _SETTINGS.items() if config.get(key) != value)
    if wrong:
        raise InternalError(
            f"stream {name} lacks {', '.join(wrong)}",
            code="weakStream",
            hint="Runstream needs nats-server 2.14 or later and unchanged streams; see `runstream doctor`",
        )


def _metadata(subjects: Subjects, partitions: int) -> dict[str, str]:
    return {"epoch": str(subjects.epoch), "partitions": str(partitions), "format": str(FORMAT)}


def _foreign(namespace: str, why: str) -> BadRequestError:
    return BadRequestError(
        f"{namespace!r} is not a log of this Runstream: {why}",
        code="foreignLog",
        hint="choose another namespace, or the settings with which the log was made",
    )


WAIT_SECONDS = 120.0
_LOOK_SECONDS = 1.0


async def wait_for_log(nc: Client, namespace: str, service: str = "runs", *, seconds: float = WAIT_SECONDS) -> bool:
    """Wait until there is a log to open; return False when there is none after `seconds`."""
    bucket_changed = asyncio.Event()

    async def on_change(_: Msg) -> None:
        bucket_changed.set()

    # A value for the bucket is a message like any other, even before the bucket exists.
    subscription = await nc.subscribe(f"$KV.{namespace}_control.{service}", cb=on_change)
    try:
        await nc.flush()
        async with asyncio.timeout(seconds):
            if await described(nc, namespace, service) is None:
                log.info(
                    "there is no log yet; waiting for one",
                    action="log_awaited",
                    namespace=namespace,
                )
            while await described(nc, namespace, service) is None:
                # The message may arrive before it is stored, so look again without one, too.
                await wait_for_event(bucket_changed, _LOOK_SECONDS)
                bucket_changed.clear()
        return True
    except TimeoutError:
        return False
    finally:
        await subscription.unsubscribe()

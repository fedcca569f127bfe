"""The streams of a log and what is written down about it: epoch, partitions, format.

The description is a key of a KV bucket and is written after the streams were made: a log that is described is
whole. A described log whose stream is missing is never silently made anew.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from runstream.bounded import heard
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
from runstream.subjects import MAX_PARTITIONS, Subjects


@dataclass(frozen=True, slots=True)
class ControlEntry:
    """What a key says."""

    data: bytes
    """Empty when it says nothing."""
    sequence: int
    """What a change is based on; 0 when nothing was ever said."""


async def read_key(nc: Client, namespace: str, key: str) -> ControlEntry:
    """What the key says now; nothing, too, when there is no bucket. Raises UnavailableError."""
    bucket = f"{namespace}_control"
    try:
        found = await last_message(nc, f"KV_{bucket}", f"$KV.{bucket}.{key}")
    except ApiError as error:
        if error.number == STREAM_NOT_FOUND:
            return ControlEntry(b"", 0)
        raise
    return ControlEntry(found.data, found.sequence) if found is not None else ControlEntry(b"", 0)


async def write_key(nc: Client, namespace: str, key: str, data: bytes, *, after: int | None = None) -> bool:
    """Say something; with `after` only if the key has not changed since that sequence; else False.

    The bucket has to be there. Raises UnavailableError.
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
"""Of subjects, bodies and headers, as `docs/formats/log.md` says."""
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
"""Large bodies are compressed by us. With s2, three replicas and nodes killed again and again, nats-server 2.15.1 left
blocks that it could not read any more, and a partition that stood still for good."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LogDescription:
    """What holds for the whole log."""

    epoch: int
    partitions: int
    format: int


def require_namespace(namespace: str) -> str:
    """The namespace, if it can be the first token of subjects and begin names of streams. Raises BadRequestError."""
    if not _NAMESPACE.fullmatch(namespace):
        raise BadRequestError(
            f"namespace {namespace[:80]!r} is not valid",
            code="invalidNamespace",
            hint="use 1 to 40 letters, digits and '-'",
        )
    return namespace


async def described(nc: Client, namespace: str, service: str) -> LogDescription | None:
    """The log's description; None when no log was made here. Raises BadRequestError for one that is not ours."""
    return _description(namespace, await read_key(nc, require_namespace(namespace), service))


async def create(nc: Client, subjects: Subjects, partitions: int, replicas: int) -> LogDescription:
    """Make the streams and then the description; what another process made in the meantime holds."""
    await create_streams(nc, subjects, partitions, replicas)
    return await describe(nc, subjects, partitions)


async def create_streams(nc: Client, subjects: Subjects, partitions: int, replicas: int) -> None:
    """Make the control bucket and all streams of an epoch; those that are there stay. Nobody reads them yet."""
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
    """Say that this is the log and that it is whole: from now on it is used. Gives what holds.

    What somebody else has said meanwhile holds, unless it is what this is to be said `instead` of.
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
    """Say that there is no log: nobody begins to use it until it is described again."""
    if (await read_key(nc, namespace, service)).data:
        await write_key(nc, namespace, service, b"")


async def ends(nc: Client, subjects: Subjects, partitions: int) -> tuple[int | None, ...]:
    """The last sequence in each stream of an epoch; None where there is no stream."""
    return tuple([await _end(nc, subjects.stream(partition)) for partition in range(partitions)])


async def delete_stream(nc: Client, subjects: Subjects, partition: int) -> None:
    """Delete a stream with all that is in it; one that is missing is deleted already."""
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
    try:
        state = (await request(nc, f"STREAM.INFO.{stream}"))["state"]
    except ApiError as error:
        if error.number == STREAM_NOT_FOUND:
            return None
        raise
    end: int = state["last_seq"]
    return end


async def create_control_bucket(nc: Client, namespace: str, replicas: int) -> None:
    """Make the KV bucket that holds what is true for the whole deployment; one that is there stays."""
    await ensure_stream(nc, bucket_config(f"{namespace}_control", replicas))


async def check(nc: Client, subjects: Subjects, description: LogDescription, partitions: int | None) -> None:
    """Make sure that this is a log that we can use. Raises BadRequestError or NotExistError that says what to do."""
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
    """Turn compression off where an earlier version made a stream with it; what is stored stays readable.

    A server that refuses is named in the log of this process: the stream is used as it is. Raises UnavailableError.
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
    try:
        config = (await request(nc, f"STREAM.INFO.{name}"))["config"]
    except ApiError as error:
        if error.number != STREAM_NOT_FOUND:
            raise
        raise NotExistError(
            f"the log {subjects.namespace!r} is described, but its stream {name} is missing",
            code="logIncomplete",
            hint="restore NATS's data, or the log from its data status; nothing is made anew in its place",
        ) from error
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
            hint="Runstream needs nats-server 2.14 or later and streams that nobody changed; ask `runstream doctor`",
        )


def _metadata(subjects: Subjects, partitions: int) -> dict[str, str]:
    return {"epoch": str(subjects.epoch), "partitions": str(partitions), "format": str(FORMAT)}


def _foreign(namespace: str, why: str) -> BadRequestError:
    return BadRequestError(
        f"{namespace!r} is not a log of this Runstream: {why}",
        code="foreignLog",
        hint="choose another namespace, or the settings that the log was made with",
    )


WAIT_SECONDS = 120.0
_LOOK_SECONDS = 1.0


async def wait_for_log(nc: Client, namespace: str, service: str = "runs", *, seconds: float = WAIT_SECONDS) -> bool:
    """Wait until there is a log that can be opened; False when there is none after these seconds."""
    said = asyncio.Event()

    async def on_change(_: Msg) -> None:
        said.set()

    # What is stored in the bucket is a message like any other, also before the bucket is there.
    subscription = await nc.subscribe(f"$KV.{namespace}_control.{service}", cb=on_change)
    try:
        await nc.flush()
        async with asyncio.timeout(seconds):
            if await described(nc, namespace, service) is None:
                log.info("there is no log yet; waiting for who makes it", action="log_awaited", namespace=namespace)
            while await described(nc, namespace, service) is None:
                # Who listens may hear of it before it is stored: so look again without having heard anything.
                await heard(said, _LOOK_SECONDS)
                said.clear()
        return True
    except TimeoutError:
        return False
    finally:
        await subscription.unsubscribe()

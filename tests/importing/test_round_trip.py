"""Export, import, export again: the same events byte for byte, of every type, compressed or not, readable or not."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from backports import zstd

from runstream.codec import COMPRESS_FROM_BYTES, ENCODING_HEADER, plain_body
from runstream.commits import Position
from runstream.errors import BadRequestError
from runstream.events.registry import types_of
from runstream.log.port import Log, RawMessage
from runstream.projections.parked import ParkedCommit
from runstream.snapshots.export import ParkedAt
from runstream.subjects import Subjects
from tests.log.memory import MemoryLog
from tests.servers import Servers
from tests.snapshots.files import memory_log, parts, written
from tests.snapshots.golden_log import golden_log
from tests.snapshots.make_golden import parked_in

from .rig import Rig, rig

UNREADABLE = (b"{", b"", b"\xff\x00\r\n", b"[1]", b'{"a":\n1}', b"null", '{"ä":"\\u00e4"}'.encode())
Said = tuple[int, str, bytes, dict[str, str]]
_STORED_AT = re.compile(rb'"stored_at":"[^"]*",')
"""When NATS stored it: what an import gives anew, beside the epoch."""


async def said(log: Log) -> list[list[Said]]:
    """What a log says, by partition: sequence, subject, body and headers, as they are on the wire, but decompressed."""
    found: list[list[Said]] = []
    for partition in range(log.partitions):
        messages: list[RawMessage] = []
        async with log.read(partition, 0) as reader:
            while len(messages) < await log.end(partition):
                messages += await reader.next_batch()
        found.append([_said(message) for message in messages])
    return found


def _said(message: RawMessage) -> Said:
    try:
        body = plain_body(message)
    except BadRequestError:
        body = message.data
    ours = {name: text for name, text in message.headers.items() if not name.startswith("Nats-")}
    return message.position.sequence, message.subject.split(".", 4)[-1], body, ours


def lines(path: Path) -> dict[int, list[bytes]]:
    """The lines of a snapshot by partition, without the server's time."""
    found: dict[int, list[bytes]] = {}
    for name, content in sorted(parts(path).items()):
        if name.startswith("segments/"):
            text = zstd.decompress(content)
            found.setdefault(int(name.split("/")[1]), []).extend(_STORED_AT.sub(b"", text).splitlines())
    return found


async def round_trip(around: Rig, log: MemoryLog, folder: Path, parked: ParkedAt) -> tuple[Path, Path]:
    """A snapshot of the log, and one of what was made of it by an import."""
    await written(folder / "first", log, parked=parked)
    await around.run_import(folder / "first")
    async with around.log() as imported:
        assert imported.epoch == 2
        assert await said(imported) == await said(log)
    return folder / "first", await around.export(folder / "second")


async def test_every_type_of_event(servers: Servers, tmp_path: Path) -> None:
    log = golden_log()
    async with rig(servers, log.partitions) as around:
        first, second = await round_trip(around, log, tmp_path, parked_in(log))
    before, after = lines(first), lines(second)
    assert before == after
    read = [json.loads(line) for part in before.values() for line in part]
    types = {event["type"] for line in read if "commit" in line for event in line["commit"].get("events", ())}
    assert types >= types_of("runs").keys()
    assert any("unreadable" in line for line in read)
    compressed = [one for part in await said(log) for one in part if len(one[2]) > COMPRESS_FROM_BYTES]
    assert compressed
    assert {one[3][ENCODING_HEADER] for one in compressed} == {"zstd"}


@pytest.mark.parametrize("seed", range(3))
async def test_a_long_history_with_unreadable_commits_survives_the_round_trip(
    seed: int, servers: Servers, tmp_path: Path
) -> None:
    async with rig(servers, 1) as around:
        log = memory_log(seed)
        first_of_them = await log.end(0) + 1
        for body in UNREADABLE:
            log.put(0, "shop.runs.1.0.run.x", body)
        log.put(0, "shop.runs.1.0.run.x", b"no zstd at all", {ENCODING_HEADER: "zstd"})
        position = Position(1, 0, first_of_them)
        parked = ParkedCommit(position, "shop.runs.1.0.run.x", "run/x", "no JSON", datetime.now(UTC))

        async def parked_at(_: Subjects, __: tuple[int, ...]) -> list[ParkedCommit]:
            return [parked]

        first, second = await round_trip(around, log, tmp_path, parked_at)
    assert lines(first) == lines(second)

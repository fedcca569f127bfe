"""Snapshot files for tests: exported from a log in memory, taken apart, changed, and put together again."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from backports import zstd
from benchmarks.generate import GeneratedLog

from runstream.commits import LogPosition
from runstream.config.store import ConfigFollower, ConfigStore
from runstream.domain.config.decisions.users import decide_create_user
from runstream.ids import derived_id
from runstream.log.port import ReadableLog
from runstream.objects import ObjectStorage
from runstream.snapshots import manifest as m
from runstream.snapshots import segments
from runstream.snapshots.container import END, header, padding
from runstream.snapshots.export import FurtherLog, ParkedAt, Resumed, export, plan_all
from runstream.snapshots.manifest import Manifest, ObjectKind, SnapshotHeader
from runstream.snapshots.objects import object_writer
from runstream.snapshots.segments import SegmentDraft
from runstream.snapshots.signing import SigningKey
from runstream.snapshots.verify import VerifyReport, verify
from tests.log.memory import MemoryLog
from tests.snapshots.messages import SUBJECTS, foreign, played_messages

CREATED = datetime(2026, 11, 23, 2, 16, 40, tzinfo=UTC)
Lines = dict[int, list[dict[str, Any]]]
"""The lines of each partition."""


def memory_log(seed: int = 1, *more: bytes) -> MemoryLog:
    """Return a log of one partition with a long history, followed by unreadable bodies."""
    log = MemoryLog("shop", partitions=1)
    for message in played_messages(seed):
        log.put(0, message.subject, message.data, message.headers)
    for body in more:
        log.put(0, foreign(0, body).subject, body)
    return log


def generated(runs: int = 24, partitions: int = 3) -> GeneratedLog:
    """A log of several partitions, with subjects as a played one has them."""
    return GeneratedLog(runs, partitions, SUBJECTS)


async def written(
    path: Path,
    log: ReadableLog | None = None,
    *,
    until: LogPosition | datetime | None = None,
    key: SigningKey | None = None,
    objects: ObjectStorage | None = None,
    kinds: Sequence[ObjectKind] = (),
    parked: ParkedAt | None = None,
    resumed: Resumed | None = None,
    also: ReadableLog | None = None,
) -> Manifest:
    """Export to a new file; or to the end of one that is resumed."""
    source = log or generated()
    further: Sequence[FurtherLog] = ()
    if resumed is not None:
        planned = resumed.header
    else:
        logs = [source] if also is None else [source, also]
        planned, further = await plan_all(logs, CREATED, until, kinds)
    with path.open("ab" if resumed is not None else "wb") as file:

        async def send(content: bytes) -> None:
            file.write(content)

        writer = object_writer(objects, planned.objects) if objects is not None else None
        return await export(
            source, send, planned, further=further, key=key, objects=writer, parked=parked, resumed=resumed
        )


async def users_log(*names: str) -> MemoryLog:
    """A log of the config service with these users."""
    log = MemoryLog(SUBJECTS.namespace, "config", partitions=1)
    store = ConfigStore(log)
    async with ConfigFollower(store).serving():
        for name in names:
            user, group = derived_id("user", name), derived_id("group", name)
            await store.change(
                lambda state, name=name, user=user, group=group: decide_create_user(  # type: ignore[misc]
                    state, user_id=user, root_group_id=group, name=name
                ),
                actor="admin",
            )
    return log


def write(path: Path, log: ReadableLog | None = None, **options: Any) -> Manifest:
    """The same, for tests that are not coroutines."""
    return uvloop.run(written(path, log, **options))


def parts(path: Path) -> dict[str, bytes]:
    """The files of a snapshot by name."""
    with tarfile.open(path, "r:") as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """A tar of these files, as an export writes it."""
    with path.open("wb") as file:
        for name, content in files.items():
            file.write(header(name, len(content), CREATED) + content + padding(len(content)))
        file.write(END)
    return path


def described_anew(files: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    """The files, with a manifest (changed so) and an end that fit; not signed."""
    manifest = json.loads(files[m.MANIFEST])
    manifest |= {
        "texts": {name: hashlib.sha256(files[name]).hexdigest() for name in m.TEXTS},
        "public_key": "",
        **changes,
    }
    content = json.dumps(manifest).encode()
    return {**{k: v for k, v in files.items() if k != m.SIGNATURE}, m.MANIFEST: content, m.END: m.end_of(content)}


def rewritten(path: Path, change: Callable[[Lines], object], **changes: Any) -> VerifyReport:
    """What is found when its lines are changed and everything else is made to fit."""
    files = parts(path)
    head = m.read_header(files[m.SNAPSHOT])
    lines: Lines = {partition: [] for partition in range(head.partitions)}
    for name in sorted(name for name in files if name.startswith("segments/")):
        lines[int(name.split("/")[1])] += map(json.loads, zstd.decompress(files[name]).splitlines())
    change(lines)
    return verify(_sealed(path.with_suffix(".changed"), files, head, lines, changes))


def _sealed(path: Path, files: dict[str, bytes], head: SnapshotHeader, lines: Lines, changes: dict[str, Any]) -> Path:
    made: dict[str, bytes] = {}
    descriptions = []
    for partition, found in lines.items():
        draft = SegmentDraft(head.epoch, partition)
        for sequence, line in enumerate(found, 1):
            text = json.dumps({**line, "sequence": sequence}, sort_keys=True).encode() + b"\n"
            commit = line["commit"]
            types = [event["type"] for event in commit["events"]] if isinstance(commit, dict) else None
            draft.keep(text, sequence, types)
        if found:
            segment = draft.compress("")
            made[segment.description.name] = segment.data
            descriptions.append(segment.description)
    ends = tuple(len(found) for found in lines.values())
    text = m.to_json(replace(head, ends=ends))
    manifest = replace(
        m.read_manifest(files[m.MANIFEST]),
        positions=ends,
        commits=sum(ends),
        events=m.events_by_type(tuple(descriptions)),
        unreadable=sum(found.unreadable for found in descriptions),
        segments=tuple(descriptions),
    )
    texts = {m.README: files[m.README], m.EVENT_TYPES: files[m.EVENT_TYPES], m.SNAPSHOT: text}
    return pack(path, described_anew({**texts, **made, m.MANIFEST: m.to_json(manifest), m.END: b""}, **changes))


def gzip_bomb() -> bytes:
    """A zstd frame of some kilobytes that holds 4 GiB."""
    compressor = zstd.ZstdCompressor()
    chunk = bytes(16 << 20)
    out = io.BytesIO()
    for _ in range(256):
        out.write(compressor.compress(chunk))
    out.write(compressor.flush())
    return out.getvalue()


def small_segments(monkeypatch: Any, commits: int = 20) -> None:
    """Let segments be small, so that there are many."""
    init = segments.SegmentWriter.__init__

    def small(self: Any, epoch: int, partition: int) -> None:
        init(self, epoch, partition, max_commits=commits)

    monkeypatch.setattr(segments.SegmentWriter, "__init__", small)

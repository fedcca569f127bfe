"""What an earlier version wrote is imported, folded, compared, rebuilt and exported by this one.

An added field is what 0.1.0 and later differ by. A renamed field and a split event are played: the log holds events as
a version that never was wrote them, and upcasters that are there for the test alone read them.
"""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from runstream.objects import ObjectStorage
from runstream.snapshots.reading import open_snapshot
from runstream.snapshots.verify import verify
from runstream.upcasters import UPCASTERS, EventData
from tests.log.memory import MemoryLog
from tests.servers import Servers
from tests.snapshots.files import written
from tests.snapshots.make_golden import GOLDEN
from tests.snapshots.messages import played_messages

from .rig import compared, rig

KEPT = sorted(GOLDEN.glob("*.tar"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
async def test_every_kept_snapshot_is_imported(
    path: Path, servers: Servers, storage: ObjectStorage, tmp_path: Path
) -> None:
    with open_snapshot(path) as snapshot:
        manifest, partitions, config = snapshot.manifest, snapshot.header.partitions, snapshot.also
    async with rig(servers, partitions) as around:
        done = await around.run_import(path, storage)
        assert (done.commits, done.parked) == (manifest.commits, len(manifest.parked))
        assert await around.differences() == []
        await around.rebuild()
        assert await around.differences() == []
        # What was written stays as it was written: upcasting is reading.
        others = ["only the first has the log of config"] if config else []
        assert compared(path, await around.export(tmp_path / "again")).differences == others


def renamed(event: EventData) -> list[EventData]:
    """A field has another name."""
    return [{"type": "RunNumbered", "version": 1, "counter": event["number"], "sequence": event["sequence"]}]


def split(event: EventData) -> list[EventData]:
    """What was one event is two."""
    return [
        {"type": "RunResultSet", "version": 1, "result": event["result"]},
        {"type": "RunFinished", "version": 1},
    ]


def as_an_earlier_version_wrote(body: bytes) -> bytes:
    """The body with its events as that version had them."""
    content = orjson.loads(body)
    events: list[EventData] = []
    for event in content["events"]:
        if event["type"] == "RunNumbered":
            number = event.pop("counter")
            events.append({**event, "version": 0, "number": number})
        elif event["type"] == "RunFinished" and events and events[-1]["type"] == "RunResultSet":
            events.append({"type": "RunEnded", "version": 1, "result": events.pop()["result"]})
        else:
            events.append(event)
    return orjson.dumps({**content, "events": events}, option=orjson.OPT_SORT_KEYS)


async def test_a_renamed_field_and_a_split_event(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog("shop", partitions=1)
    for message in played_messages():
        log.put(0, message.subject, as_an_earlier_version_wrote(message.data), message.headers)
    await written(tmp_path / "old", log)
    assert not verify(tmp_path / "old").good
    monkeypatch.setitem(UPCASTERS, ("RunNumbered", 0), renamed)
    monkeypatch.setitem(UPCASTERS, ("RunEnded", 1), split)
    assert verify(tmp_path / "old").good
    async with rig(servers, 1) as around:
        assert (await around.run_import(tmp_path / "old")).parked == 0
        assert await around.differences() == []
        again = await around.export(tmp_path / "again")
        assert compared(tmp_path / "old", again).differences == []
        with open_snapshot(again) as snapshot:
            assert {"RunEnded", "RunNumbered"} <= snapshot.manifest.events.keys()

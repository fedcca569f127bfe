from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace

import pytest
from backports import zstd

from runstream.codec import COMPRESS_FROM_BYTES, ENCODING_HEADER, ID_HEADER, decode
from runstream.snapshots.errors import SnapshotError
from runstream.snapshots.segments import (
    LIMIT_BYTES,
    Segment,
    SegmentDescription,
    SegmentDraft,
    SegmentWriter,
    check_chain,
    merged,
    read_segment,
    wire_form,
)
from tests.snapshots.messages import SUBJECTS, foreign, played_messages

MESSAGES = played_messages()


def segments(limit: int = 7) -> list[Segment]:
    writer = SegmentWriter(1, 0, max_commits=limit)
    found: list[Segment] = []
    for message in MESSAGES:
        writer.add(message)
        if writer.full:
            found.append(writer.take().compress(found[-1].description.sha256 if found else ""))
    if not writer.empty:
        found.append(writer.take().compress(found[-1].description.sha256 if found else ""))
    return found


def one(*messages: object) -> Segment:
    draft = SegmentDraft(1, 0)
    for message in messages or MESSAGES[:5]:
        draft.add(message)  # type: ignore[arg-type]
    return draft.compress("")


def read(segment: Segment) -> list[object]:
    return list(read_segment(segment.description, segment.data, SUBJECTS))


def resealed(segment: Segment, content: bytes, **changes: object) -> Segment:
    """A segment whose hashes are right, whatever its lines are."""
    data = zstd.compress(content)
    description = replace(
        segment.description,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        file_bytes=len(data),
        file_sha256=hashlib.sha256(data).hexdigest(),
    )
    return Segment(replace(description, **changes), data)  # type: ignore[arg-type]


def test_what_was_written_is_read() -> None:
    found = [message for segment in segments() for message in read_segment(segment.description, segment.data, SUBJECTS)]
    assert [(m.subject, m.position, m.data, m.stored_at) for m in found] == [
        (m.subject, m.position, m.data, m.stored_at) for m in MESSAGES
    ]
    assert [decode(message) for message in found] == [decode(message) for message in MESSAGES]


def test_a_description_says_what_is_in_it() -> None:
    descriptions = [segment.description for segment in segments()]
    assert check_chain(descriptions, 1, 1) == (len(MESSAGES),)
    counted = sum((Counter(description.events) for description in descriptions), Counter[str]())
    assert counted == Counter(type(event).__name__ for message in MESSAGES for event in decode(message).commit.events)
    assert descriptions[0].name == "segments/000/000000000001-000000000007.jsonl.zst"


def test_lines_are_json_with_sorted_keys() -> None:
    for line in zstd.decompress(one().data).splitlines():
        assert list(json.loads(line)) == ["commit", "sequence", "stored_at", "subject"]
        assert line == json.dumps(json.loads(line), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (b"not JSON", {}),
        (b'{"a":1}trailing', {}),
        (b"[1]", {}),
        (b'{"a":\n1}', {}),
        (b"\xff\x00", {ENCODING_HEADER: "zstd"}),
        (b"{}", {ENCODING_HEADER: "rot13"}),
        (b"[" * 2000 + b"]" * 2000, {}),
        (b"", {}),
    ],
)
def test_unreadable_commits_are_kept_unchanged(data: bytes, headers: dict[str, str]) -> None:
    segment = one(foreign(1, data, {**headers, "Nats-Expected-Last-Sequence": "0"}))
    (message,) = read_segment(segment.description, segment.data, SUBJECTS)
    assert (message.data, message.headers) == (data, headers)
    assert segment.description.unreadable == 1
    line = zstd.decompress(segment.data)
    assert list(json.loads(line)) == sorted(json.loads(line))


def test_events_that_are_none_are_counted_without_believing_them() -> None:
    segment = one(
        foreign(1, b'{"events":[{"type":"A b"},1,{"type":"' + b"x" * 100 + b'"},{}]}'), foreign(2, b'{"events":1}')
    )
    assert segment.description.events == {"(not a type)": 4}


def test_compressed_bodies_are_plain_in_a_segment_and_compressed_in_a_log() -> None:
    body = b'{"events":[],"x":"' + b"y" * COMPRESS_FROM_BYTES + b'"}'
    segment = one(foreign(1, zstd.compress(body), {ENCODING_HEADER: "zstd", "traceparent": "00-1"}))
    (message,) = read_segment(segment.description, segment.data, SUBJECTS)
    assert message.data == body
    data, headers = wire_form(message, "id")
    assert headers == {ID_HEADER: "id", ENCODING_HEADER: "zstd", "traceparent": "00-1"}
    assert zstd.decompress(data) == body
    assert wire_form(MESSAGES[0], "id")[0] == MESSAGES[0].data


def test_a_gap_is_not_written() -> None:
    with pytest.raises(ValueError, match="3 does not follow 1"):
        one(MESSAGES[0], MESSAGES[2])


def test_every_byte_counts() -> None:
    segment = one()
    for at in range(len(segment.data)):
        data = bytearray(segment.data)
        data[at] ^= 1
        with pytest.raises(SnapshotError, match=r"segments/000/000000000001-000000000005.jsonl.zst: it was changed"):
            read(Segment(segment.description, bytes(data)))
        with pytest.raises(SnapshotError, match="it was changed"):
            read(Segment(segment.description, segment.data[:at]))


def test_lines_that_do_not_say_what_the_description_does() -> None:
    segment = one()
    content = zstd.decompress(segment.data)
    first, second, *_ = content.splitlines(keepends=True)
    for lines_, problem in (
        (content[:-1], "last line has no end"),
        (b"".join(content.splitlines(keepends=True)[:-1]), "it has 4 commits, and should have 5"),
        (second + first, "line 1: it has sequence 2 where 1 is next"),
        (first + first, "line 2: it has sequence 1 where 2 is next"),
        (first, "it has 1 commit, and should have 5"),
        (first + b"{}\n", "line 2: it is not a line"),
        (first + b"\n", "line 2: it is not a line"),
        (first.replace(b'"sequence":1', b'"sequence":1e400'), "line 1"),
        (first.replace(b'"sequence":1', b'"sequence":-1'), "line 1"),
        (first.replace(b'"sequence":1', b'"more":1,"sequence":1'), "line 1"),
        (first.replace(b'"sequence":1', b'"sequence":1,"unreadable":"eA=="'), "either commit or unreadable"),
        (b'{"sequence":1,"stored_at":"2026-01-01T00:00:00Z","subject":"run.x","unreadable":"=x"}\n', "not base64"),
        (b'{"commit":' + b"[" * 9999 + b"]" * 9999 + b',"sequence":1}\n', "line 1"),
        (b"{" + b"\xff" * 10 + b"}\n", "line 1"),
        (b'{"commit":{"x":[' + b"0," * 1_000_000 + b'0]},"sequence":1}\n', "more than 1000000 values"),
    ):
        with pytest.raises(SnapshotError, match=problem):
            read(resealed(segment, lines_))
    with pytest.raises(SnapshotError, match="SHA-256 of its lines"):
        read(resealed(segment, content, sha256="0" * 64))


def test_a_bomb_is_stopped_at_what_it_announces() -> None:
    segment = one()
    bomb = resealed(segment, b"x" * (200 << 20))
    assert len(bomb.data) < 1 << 20
    with pytest.raises(SnapshotError, match="more than the 100 bytes that it announces"):
        read(Segment(replace(bomb.description, bytes=100), bomb.data))
    with pytest.raises(SnapshotError, match="a line is longer than"):
        read(bomb)
    with pytest.raises(SnapshotError, match="announces more than 256 MiB"):
        read(Segment(replace(bomb.description, bytes=LIMIT_BYTES + 1), bomb.data))


def test_a_frame_that_wants_much_memory_is_refused() -> None:
    segment = one()
    content = zstd.decompress(segment.data)
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 27}
    compressor = zstd.ZstdCompressor(options=options)
    data = compressor.compress(content) + compressor.flush()
    changed = replace(segment.description, file_bytes=len(data), file_sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(SnapshotError, match="not a zstd frame that can be read"):
        read(Segment(changed, data))
    for data in (b"", b"\x28\xb5\x2f\xfd", segment.data * 2):
        changed = replace(segment.description, file_bytes=len(data), file_sha256=hashlib.sha256(data).hexdigest())
        with pytest.raises(SnapshotError, match="cut short or followed by more"):
            read(Segment(changed, data))


def test_the_chain() -> None:
    chain: list[SegmentDescription] = [segment.description for segment in segments()]
    assert len(chain) > 4
    for wrong, part in (
        ([*chain[:2], *chain[3:]], chain[3]),
        ([chain[1], chain[0], *chain[2:]], chain[1]),
        ([chain[0], chain[0]], chain[0]),
        (chain[1:], chain[1]),
        ([chain[0], replace(chain[1], previous="0" * 64)], chain[1]),
        ([replace(chain[0], commits=3)], chain[0]),
        ([replace(chain[0], epoch=2)], replace(chain[0], epoch=2)),
        ([replace(chain[0], partition=1)], replace(chain[0], partition=1)),
    ):
        with pytest.raises(SnapshotError) as caught:
            check_chain(wrong, 1, 1)
        assert caught.value.part == part.name


def test_segments_that_are_merged_are_the_one_that_might_have_been_written() -> None:
    parts = segments()
    whole = one(*MESSAGES)
    assert merged(parts) == whole
    behind = merged(parts[1:]).description
    assert (behind.previous, behind.first, behind.last) == (parts[0].description.sha256, 8, len(MESSAGES))
    damaged = Segment(parts[1].description, parts[1].data[:-1])
    with pytest.raises(SnapshotError, match="it was changed"):
        merged([parts[0], damaged])

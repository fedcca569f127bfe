from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from runstream.commits import LogPosition
from runstream.log.port import RawMessage
from runstream.snapshots.compare import Comparison, compare
from runstream.snapshots.reading import open_snapshot
from tests.log.memory import MemoryLog
from tests.snapshots.files import generated, memory_log, write
from tests.snapshots.messages import played_messages


def compared(first: Path, second: Path) -> Comparison:
    with open_snapshot(first) as one, open_snapshot(second) as other:
        return compare(one, other)


def log_of(messages: list[RawMessage], partitions: int = 1, namespace: str = "other") -> MemoryLog:
    """The same commits in another log: other times at the server, perhaps other partitions."""
    log = MemoryLog(namespace, partitions=partitions)
    for message in messages:
        tail = message.subject.split(".", 4)[-1]
        partition = hash(tail) % partitions
        log.put(partition, f"{log.subjects.prefix(partition)}.{tail}", message.data, message.headers)
    return log


def test_the_same_log_is_equal(tmp_path: Path) -> None:
    write(tmp_path / "a", memory_log())
    write(tmp_path / "b", log_of(played_messages()))
    found = compared(tmp_path / "a", tmp_path / "b")
    assert found.equal
    assert found.same == len(played_messages())


def test_one_that_goes_on(tmp_path: Path) -> None:
    log = generated()
    write(tmp_path / "a", log)
    write(tmp_path / "b", log, until=LogPosition(1, (3, 35, 0)))
    found = compared(tmp_path / "a", tmp_path / "b")
    assert (found.same, found.only) == (38, (50 - 3 + 51, 0))
    assert found.differences == [
        "partition 0: the first has 47 commits more",
        "partition 2: the first has 51 commits more",
    ]
    assert compared(tmp_path / "b", tmp_path / "a").only == (0, 98)


def test_a_commit_that_differs(tmp_path: Path) -> None:
    messages = played_messages()
    messages[7] = replace(messages[7], data=messages[7].data.replace(b'"id":"', b'"id":"f'))
    write(tmp_path / "a", memory_log())
    write(tmp_path / "b", log_of(messages))
    found = compared(tmp_path / "a", tmp_path / "b")
    assert found.only == (1, 1)
    assert found.differences[0].startswith("partition 0, commit 8: ")


def test_other_partitions(tmp_path: Path) -> None:
    messages = played_messages()
    write(tmp_path / "a", memory_log())
    write(tmp_path / "b", log_of(messages, 3))
    assert compared(tmp_path / "a", tmp_path / "b").equal
    write(tmp_path / "c", log_of(messages[:-2], 3))
    found = compared(tmp_path / "a", tmp_path / "c")
    assert found.only == (2, 0)
    assert found.differences[0].startswith("only the first has a commit of ")

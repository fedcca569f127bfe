"""What is written is canonical and stays readable; what cannot be read is refused with its place."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from typing import Literal, Union, get_args, get_origin

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import asdict, fields, replace

from runstream import codec
from runstream.commits import Head, NewCommit, Position, StoredCommit
from runstream.errors import BadRequestError
from runstream.events.event import DomainEvent
from runstream.events.executor_task import ExecutorTaskPhase, ExecutorTaskStepFinished
from runstream.events.registry import EVENT_TYPES
from runstream.events.run import RunCreated, RunNumbered, RunStarted, RunTaskRetried
from runstream.subjects import Address, Subjects
from runstream.upcasters import UPCASTERS, EventData

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

GOLDEN = Path(__file__).with_name("golden")
SUBJECTS = Subjects("demo", "runs", 1)
AT = Position(1, 0, 7)
NOW = datetime(2026, 11, 23, 2, 16, 40, 715517, tzinfo=UTC)
RUN = Address(0, "run", "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11")


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    subject: str
    data: bytes
    headers: Mapping[str, str]
    position: Position = AT
    stored_at: datetime = NOW


def sample(hint: object, name: str) -> object:
    """A value of this type that depends on nothing else."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return sample(arguments[0], name)
    if origin is Literal:
        return arguments[0]
    if origin is tuple:
        return (sample(arguments[0], name),)
    if origin in (dict, Mapping):
        return {f"{name}-key": sample(arguments[1], name)}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return list(hint)[-1]
    if isinstance(hint, type) and issubclass(hint, Struct):
        return hint(**{f.name: sample(f.type, f.name) for f in fields(hint)})
    return {str: f"the {name}", int: 42, bool: True, datetime: NOW}[hint]  # type: ignore[index]


def commit_of(event: DomainEvent) -> NewCommit:
    return Head().next_commit(RUN, [event], time=NOW, actor="user:ada", cause="why")


def message_of(commit: NewCommit) -> Message:
    body, headers = codec.encode(commit)
    return Message(SUBJECTS.of(commit.address), body, headers)


def read(commit: NewCommit) -> StoredCommit:
    return codec.decode(message_of(commit))


def message(**changes: object) -> Message:
    body = orjson.loads(codec.encode(Head().next_commit(RUN, [RunNumbered(1, 2)], time=NOW, actor="a", cause="c"))[0])
    return Message(SUBJECTS.of(RUN), orjson.dumps(body | changes), {})


@pytest.mark.parametrize("event_type", EVENT_TYPES.values(), ids=lambda t: t.__name__)
def test_every_event_is_written_as_its_golden_file_says(event_type: type[DomainEvent]) -> None:
    event = sample(event_type, "")
    assert isinstance(event, DomainEvent)
    written, _ = codec.encode(commit_of(event))
    file = GOLDEN / f"{event_type.__name__}.{event_type.SCHEMA_VERSION}.json"
    if not file.exists():
        file.write_text(json.dumps(orjson.loads(written), indent=2) + "\n")
        pytest.fail(f"{file.name} did not exist; it was written: look at it and commit it")
    assert orjson.loads(written) == orjson.loads(file.read_bytes())
    assert read(commit_of(event)).commit.events == (event,)


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.json")), ids=lambda f: f.stem)
def test_every_golden_file_stays_readable(file: Path) -> None:
    stored = codec.decode(Message(SUBJECTS.of(RUN), file.read_bytes(), {}))
    assert all(type(event).__name__ in EVENT_TYPES for event in stored.commit.events)


def test_a_commit_comes_back_as_it_was() -> None:
    new = replace(commit_of(RunNumbered(3, 4)), trace="00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01")
    stored = read(new)
    assert (stored.commit.id, stored.commit.address, stored.commit.version) == (new.id, new.address, 1)
    assert (stored.commit.time, stored.commit.actor, stored.commit.cause) == (NOW, "user:ada", "why")
    assert stored.commit.trace == new.trace
    assert stored.position == Position(1, 0, 7)


def test_what_is_written_is_canonical() -> None:
    body, headers = codec.encode(commit_of(RunNumbered(1, 2)))
    assert body == orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
    assert headers.keys() == {"Nats-Msg-Id"}


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
EVENTS = st.one_of(
    st.builds(RunCreated, TEXTS, TEXTS, TEXTS, st.dictionaries(TEXTS, TEXTS), st.tuples(TEXTS), TEXTS),
    st.builds(RunNumbered, st.integers(1 - 2**63, 2**63 - 1), st.integers(1 - 2**63, 2**63 - 1)),
    st.builds(RunTaskRetried, TEXTS, st.integers(0, 9), st.sampled_from(["failure", "lost"]), TIMES),
    st.builds(ExecutorTaskStepFinished, st.integers(0, 9), TIMES, st.sampled_from(ExecutorTaskPhase), st.none()),
)


@given(st.lists(EVENTS, min_size=1, max_size=3), TIMES)
def test_whatever_is_written_is_canonical_and_comes_back(events: list[DomainEvent], time: datetime) -> None:
    commit = Head().next_commit(RUN, events, time=time, actor="user:ada")
    written, _ = codec.encode(commit)
    data = {"id": commit.id, "aggregate": RUN.aggregate, "version": 1, "time": time, "actor": "user:ada", "cause": ""}
    said = [{"type": type(one).__name__, "version": one.SCHEMA_VERSION, **asdict(one)} for one in events]
    assert written == orjson.dumps(data | {"events": said}, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z)
    assert codec.decode(Message(SUBJECTS.of(RUN), written, {})).commit.events == tuple(events)


@pytest.mark.parametrize("event_type", EVENT_TYPES.values(), ids=lambda t: t.__name__)
def test_reading_in_one_pass_gives_what_reading_step_by_step_gives(event_type: type[DomainEvent]) -> None:
    event = sample(event_type, "")
    assert isinstance(event, DomainEvent)
    written, headers = codec.encode(commit_of(event))
    older = orjson.loads(written)
    older["events"] = [{"type": "Before", "version": 1}, *older["events"]]
    stored = codec.decode(
        Message(SUBJECTS.of(RUN), orjson.dumps(older), headers), {**UPCASTERS, ("Before", 1): lambda _: []}
    )
    assert stored == codec.decode(Message(SUBJECTS.of(RUN), written, headers))


def test_an_upcaster_that_finds_something_else_than_it_reads_refuses_the_commit() -> None:
    old = message(events=[{"type": "RunConfigStored", "version": 1, "content": "none"}])
    with pytest.raises(BadRequestError, match=r"RunConfigStored is not as its version says: TypeError.*events\[0\]"):
        codec.decode(old)


def test_a_large_body_is_compressed() -> None:
    event = RunCreated("n", "/project/x", "h", {"a": "b" * codec.COMPRESS_FROM_BYTES}, (), "")
    body, headers = codec.encode(commit_of(event))
    assert headers["Runstream-Encoding"] == "zstd"
    assert len(body) < 1000
    assert codec.decode(Message(SUBJECTS.of(RUN), body, headers)).commit.events == (event,)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"nonsense", "corrupt"),
        (zstd.compress(b"{}")[:-2], "cut short"),
        (zstd.compress(b"{}") + b"more", "followed by more"),
        (zstd.compress(b" " * (codec.MAX_BODY_BYTES + 1)), "larger than 64 MiB"),
    ],
    ids=["corrupt", "short", "long", "bomb"],
)
def test_a_bad_compressed_body_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        codec.decode(Message(SUBJECTS.of(RUN), body, {"Runstream-Encoding": "zstd"}))


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(BadRequestError, match="encoded as 'rot13'"):
        codec.decode(Message(SUBJECTS.of(RUN), b"{}", {"Runstream-Encoding": "rot13"}))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (message(time="2026-11-23T02:16:40"), r"at `\$\.time`"),
        (message(version=0), r"at `\$\.version`"),
        (message(events=[]), r"at `\$\.events`"),
        (message(more=1), "unknown field `more`"),
        (message(aggregate="run/another"), "its aggregate 'run/another' is not that of its subject"),
        (message(events=[{"a": 1}]), r"no type and version - at `\$\.events\[0\]`"),
        (message(events=[{"type": "RunEaten", "version": 1}]), "Unknown event type 'RunEaten'"),
        (message(events=[{"type": ["x"], "version": 1}]), "Unknown event type"),
        (message(events=[{"type": "RunStarted", "version": 9}]), "it is newer"),
        (message(events=[{"type": "RunStarted", "version": 0}]), "which this version cannot read"),
        (message(events=[{"type": "RunStarted", "version": 1, "x": 1}]), "unknown field `x`"),
        (
            message(events=[{"type": "RunNumbered", "version": 1, "counter": "1", "sequence": 2}]),
            r"events\[0\]\.counter`",
        ),
        (message(events=[{"type": "ExecutorTaskStarted", "version": 1, "at": "2026-11-23T02:16:40"}]), r"\[0\]\.at`"),
        (Message(SUBJECTS.of(RUN), b"{", {}), "not JSON"),
        (Message(SUBJECTS.of(RUN), b"[" * 100_000, {}), "not JSON"),
        (Message("demo.runs.1.0.cow.1", b"{}", {}), "is not one of the log"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(bad: Message, says: str) -> None:
    with pytest.raises(BadRequestError, match=says) as caught:
        codec.decode(bad)
    assert f"the message at 1:0:7 of {bad.subject} cannot be read" in caught.value.message
    assert caught.value.code == "unreadableCommit"


@pytest.mark.parametrize("time", [datetime(2026, 1, 1), NOW.astimezone(timezone(timedelta(hours=2)))])  # noqa: DTZ001
def test_a_time_that_is_not_in_utc_is_not_written(time: datetime) -> None:
    with pytest.raises(BadRequestError, match="is not in UTC"):
        codec.encode(replace(commit_of(RunStarted()), time=time))


def test_an_earlier_version_is_read_through_its_upcasters_one_step_each() -> None:
    def renamed(event: EventData) -> list[EventData]:
        return [{"type": "RunNumbered", "version": 0, "number": event["n"]}]

    def split(event: EventData) -> list[EventData]:
        return [
            {"type": "RunNumbered", "version": 1, "counter": event["number"], "sequence": 5},
            {"type": "RunStarted", "version": 1},
        ]

    old = message(events=[{"type": "RunCounted", "version": 1, "n": 3}, {"type": "RunStarted", "version": 1}])
    steps = {("RunCounted", 1): renamed, ("RunNumbered", 0): split}
    assert codec.decode(old, steps).commit.events == (RunNumbered(3, 5), RunStarted(), RunStarted())


def test_no_upcaster_reads_what_is_current() -> None:
    assert not {(name, cls.SCHEMA_VERSION) for name, cls in EVENT_TYPES.items()} & UPCASTERS.keys()

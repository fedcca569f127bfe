"""A skipped commit is recognised by its content, wherever it is, and has no effect any more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream import codec
from runstream.commits import Head, Position, StoredCommit
from runstream.events.run import RunStarted
from runstream.events.skip import CommitSkipped
from runstream.skips import Skips, hash_of, skipped_aggregate, version_after
from runstream.subjects import Address, Subjects, parse_subject, skip_address

from .test_codec import NOW, RUN, SUBJECTS, Message

GARBAGE = Message(SUBJECTS.of(RUN), b"\xff moo", {})


def decision(message: Message, before: int, after: int) -> StoredCommit:
    address = skip_address(0, message.subject)
    event = CommitSkipped(hash_of(message), before, after, "1/0/7", "why")
    commit = Head().next_commit(address, [event], time=NOW, actor="user:ada")
    body, headers = codec.encode(commit)
    return codec.decode(Message(SUBJECTS.of(address), body, headers))


def test_a_skipped_commit_has_no_events_and_the_version_that_was_decided() -> None:
    skips = Skips.of([decision(GARBAGE, 3, 4)])
    found = skips.find(GARBAGE)
    assert found is not None
    assert (found.commit.address, found.commit.version, found.commit.events) == (RUN, 4, ())
    assert found.position == GARBAGE.position
    assert skips.find(replace(GARBAGE, data=b"other")) is None
    assert skips.find(replace(GARBAGE, subject=GARBAGE.subject + "1")) is None
    assert Skips().find(GARBAGE) is None


@pytest.mark.parametrize("tail", ["run.r1", "task.e1.t1", "executor.e1", "runconfig.c", "cow.moo.x", "skip.run.r1"])
def test_it_is_the_same_commit_in_another_epoch_partition_or_namespace(tail: str) -> None:
    there = Message(f"demo.runs.1.0.{tail}", b"moo", {}, Position(1, 0, 7))
    elsewhere = Message(f"other.runs.9.3.{tail}", b"moo", {}, Position(9, 3, 1))
    skips = Skips()
    skips.merge(Skips.of([decision(there, 0, 1)]))
    found = skips.find(elsewhere)
    assert found is not None
    assert found.position == elsewhere.position
    address = skip_address(3, elsewhere.subject)
    assert parse_subject(Subjects("other", "runs", 9).of(address)) == address


def test_a_body_is_the_same_compressed_or_not() -> None:
    commit = Head().next_commit(RUN, [RunStarted()], time=NOW, actor="a" * codec.COMPRESS_FROM_BYTES)
    body, headers = codec.encode(commit)
    assert headers["Runstream-Encoding"] == "zstd"
    message = Message(SUBJECTS.of(RUN), body, headers)
    assert hash_of(message) == hash_of(Message(message.subject, codec.plain_body(message), {}))
    assert hash_of(replace(message, data=b"no zstd"))


def test_a_decision_is_about_an_aggregate_as_it_is_called_where_it_is_parked() -> None:
    for address, aggregate in ((RUN, RUN.aggregate), (Address(1, "task", "t", "e"), "task/t")):
        assert skipped_aggregate(SUBJECTS, skip_address(address.partition, SUBJECTS.of(address))) == aggregate
    assert skipped_aggregate(SUBJECTS, skip_address(2, "demo.runs.1.2.cow.moo")) == "demo.runs.1.2.cow.moo"


def test_an_aggregate_whose_first_commits_are_skipped_begins_after_them() -> None:
    messages = [replace(GARBAGE, data=bytes([number])) for number in range(4)]
    steps = [(4, 5), (1, 2), (0, 1), (0, 0)]
    skips = Skips.of(decision(message, *step) for message, step in zip(messages, steps, strict=True))
    assert skips.begun(RUN.aggregate) == 2
    assert skips.begun("run/another") == 0
    assert Skips.of([decision(messages[0], 1, 1)]).begun(RUN.aggregate) == 0


@given(st.integers(0, 1000), st.none() | st.integers(-5, 1005))
def test_what_follows_fits_if_it_can(before: int, following: int | None) -> None:
    version = version_after(before, following)
    assert version >= before
    if following is not None and following > before:
        assert following == version + 1
    else:
        assert version == before + 1

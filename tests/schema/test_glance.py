"""The aggregate, version and time that a message names can be read from any message."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream import codec
from runstream.commits import Head
from runstream.events.run import RunStarted
from runstream.glance import body_of, id_of, time_of, version_of

from .test_codec import NOW, RUN, SUBJECTS, Message

COMMIT = Head().next_commit(RUN, [RunStarted()], time=NOW, actor="user:ada")
DEEP = b"[" * 100_000 + b"]" * 100_000


def message(body: bytes) -> Message:
    return Message(SUBJECTS.of(RUN), body, {})


def test_a_commit_says_it_all() -> None:
    written = Message(SUBJECTS.of(RUN), *codec.encode(COMMIT))
    assert (id_of(written), version_of(written), time_of(written)) == (COMMIT.id, 1, NOW)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff moo",
        b"null",
        b"[]",
        b'{"id":"\xff","version":"\xff","time":"\xff"}',
        b'{"id":7,"version":"7","time":7}',
        b'{"deep":%b,"id":"a","version":1,"time":"2026-01-01T00:00:00Z"}' % DEEP,
        b'{"time":"2026-01-01T00:00:00"}',
    ],
    ids=lambda body: body[:30],
)
def test_what_is_no_commit_says_nothing(body: bytes) -> None:
    assert (id_of(message(body)), version_of(message(body)), time_of(message(body))) == (None, None, None)


@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(lambda value: repr(value).encode()))
def test_nothing_is_refused(body: bytes) -> None:
    for headers in ({}, {codec.ENCODING_HEADER: "zstd"}, {codec.ENCODING_HEADER: "rot13"}):
        one = replace(message(body), headers=headers)
        assert body_of(one) == body
        assert (id_of(one), version_of(one), time_of(one)) == (None, None, None)

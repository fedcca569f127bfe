"""What the key says, and how it changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from runstream.errors import BadRequestError
from runstream.maintenance.records import Doing, State, state_of
from runstream.maintenance.request import (
    HISTORY,
    Order,
    Requested,
    decode_requested,
    disabled,
    enabled,
    encode_requested,
    require_author_and_reason,
    require_service,
)

AT = datetime(2025, 3, 1, tzinfo=UTC)
ORDER = Order("one", "ada@host", "moving", AT, AT + timedelta(minutes=10))


def test_who_and_why_are_kept() -> None:
    on = enabled(None, ORDER)
    assert (on.enabled, on.by, on.why, on.since, on.deadline) == (True, "ada@host", "moving", AT, ORDER.deadline)
    off = disabled(replace(on, occupied="import"), Order("two", "bob@host", "done", AT, AT))
    assert (off.id, off.enabled, off.by, off.deadline, off.occupied) == ("two", False, "bob@host", None, "")
    assert [(change.enabled, change.by, change.why) for change in off.history] == [
        (True, "ada@host", "moving"),
        (False, "bob@host", "done"),
    ]


def test_twice_is_refused() -> None:
    on = enabled(None, ORDER)
    with pytest.raises(BadRequestError, match=r"^maintenance mode already enabled$"):
        enabled(on, ORDER)
    for off in (None, disabled(on, ORDER)):
        with pytest.raises(BadRequestError, match=r"^maintenance mode already disabled$"):
            disabled(off, ORDER)


def test_the_history_is_bounded() -> None:
    now: Requested | None = None
    for number in range(3 * HISTORY):
        now = (disabled if number % 2 else enabled)(now, replace(ORDER, id=str(number)))
    assert now is not None
    assert len(now.history) == HISTORY


def test_what_is_written_is_read() -> None:
    on = enabled(None, ORDER)
    assert decode_requested(encode_requested(on), AT) == on


@pytest.mark.parametrize("value", [b"", b"{}", b"true", b'{"id": 5}', b"\xff"])
def test_what_cannot_be_read_asks_for_maintenance(value: bytes) -> None:
    read = decode_requested(value, AT)
    assert read.enabled
    assert "cannot be read" in read.why
    assert not disabled(read, ORDER).enabled


def test_names_of_services() -> None:
    assert require_service("runs") == require_service("runservice") == "runs"
    assert require_service("config") == require_service("configstore") == "config"
    for name in ("", "Runs", "runs.1", "x" * 1000):
        with pytest.raises(BadRequestError):
            require_service(name)


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "x" * 1001])
def test_texts_that_are_not_kept(text: str) -> None:
    with pytest.raises(BadRequestError, match="reason"):
        require_author_and_reason("ada", text)


@pytest.mark.parametrize(
    ("requested", "at_rest", "parts", "state"),
    [
        (False, False, "running running", State.RUNNING),
        (True, False, "running running", State.REQUESTED),
        (True, False, "running draining", State.DRAINING),
        (True, False, "parked running", State.DRAINING),
        (True, False, "starting", State.DRAINING),
        (True, False, "parked parked", State.DRAINING),
        (True, True, "parked parked", State.PARKED),
        (True, True, "", State.PARKED),
        (False, True, "parked parked", State.RESUMED),
        (False, False, "parked running", State.RESUMED),
        (False, False, "starting running", State.RESUMED),
        (False, False, "draining running", State.RESUMED),
        (False, False, "stopping running", State.RUNNING),
        (True, False, "stopping parked", State.DRAINING),
    ],
)
def test_the_state_of_a_process(requested: bool, at_rest: bool, parts: str, state: State) -> None:
    assert state_of(requested=requested, at_rest=at_rest, parts=[Doing(part) for part in parts.split()]) is state

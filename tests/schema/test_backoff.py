"""Delays grow to a bound; a call is repeated until it succeeds, its attempts are used up, or its caller gives up."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.backoff import Backoff, retry

SECONDS = st.floats(0.001, 100.0)


@given(SECONDS, SECONDS)
def test_delays_double_up_to_the_longest(first: float, longest: float) -> None:
    delays = list(islice(Backoff(first, longest).delays(), 20))
    assert delays == [max(first, min(first * 2**number, longest)) for number in range(20)]


@given(SECONDS, st.integers(1, 10))
def test_delays_are_one_fewer_than_attempts_and_jitter_takes_up_to_half(first: float, attempts: int) -> None:
    delays = list(Backoff(first, attempts=attempts, jitter=True).delays())
    assert len(delays) == attempts - 1
    assert all(first / 2 <= delay <= first for delay in delays)


class Failing:
    """A call that fails a few times before it answers."""

    def __init__(self, failures: int) -> None:
        self.left = failures

    async def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise ValueError(f"{self.left} left")
        return "done"


async def test_a_call_is_repeated_until_it_succeeds() -> None:
    said: list[str] = []
    answer = await retry(Failing(3), ValueError, Backoff(0.0), lambda error, _: said.append(str(error)))
    assert (answer, said) == ("done", ["2 left", "1 left", "0 left"])


async def test_the_error_of_the_last_attempt_is_raised() -> None:
    with pytest.raises(ValueError, match="1 left"):
        await retry(Failing(3), ValueError, Backoff(0.0, attempts=2))


async def test_another_error_is_raised_at_once() -> None:
    failing = Failing(3)
    with pytest.raises(ValueError, match="2 left"):
        await retry(failing, OSError, Backoff(0.0))
    assert failing.left == 2


async def test_the_caller_gives_up_by_raising() -> None:
    def give_up(error: ValueError, _: float) -> None:
        raise TimeoutError from error

    failing = Failing(3)
    with pytest.raises(TimeoutError):
        await retry(failing, ValueError, Backoff(0.0), give_up)
    assert failing.left == 2

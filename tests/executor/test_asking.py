"""A task waits for a log that is briefly unreachable, but not for ever."""

from __future__ import annotations

import pytest

from runstream.errors import InternalError
from runstream.executor.spec import when_reachable


class Away:
    """A log that does not answer the first few times."""

    def __init__(self, times: int, code: str = "logUnreachable") -> None:
        self.times = times
        self.code = code

    async def ask(self) -> str:
        self.times -= 1
        if self.times >= 0:
            raise InternalError("no answer", code=self.code)
        return "an answer"


async def test_a_log_that_comes_back_answers() -> None:
    assert await when_reachable(Away(2).ask) == "an answer"


async def test_a_log_that_stays_away_is_an_error() -> None:
    with pytest.raises(InternalError, match="no answer"):
        await when_reachable(Away(100).ask, seconds=0)


async def test_a_refusal_of_the_log_is_not_retried() -> None:
    away = Away(1, "runConfigMissing")
    with pytest.raises(InternalError, match="no answer"):
        await when_reachable(away.ask)
    assert away.times == 0

"""How long a client waits before it sends a request again."""

from __future__ import annotations

import asyncio
import random

import pytest

from runstream.client.errors import ClientError
from runstream.client.session import Retries

AWAY = {"dependency": "nats"}


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were asked for; none is made."""
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    return asked


def unavailable(retry_after: float = 0.0, *, status: int = 503, details: dict[str, str] = AWAY) -> ClientError:
    return ClientError("away", kind="remote", status=status, details=details, retry_after=retry_after)


async def test_a_client_comes_back_when_the_service_asks_it_to(pauses: list[float]) -> None:
    retries = Retries(30)
    await retries.wait(unavailable(7))
    await retries.wait(unavailable())
    assert pauses[0] == 7
    assert 0 < pauses[1] < 7


async def test_a_client_waits_no_longer_than_its_deadline(pauses: list[float]) -> None:
    await Retries(3).wait(unavailable(3600))
    assert pauses[0] <= 3
    with pytest.raises(ClientError):
        await Retries(0).wait(unavailable(1))


@pytest.mark.parametrize("error", [unavailable(1, status=500), unavailable(1, details={})], ids=["500", "maintenance"])
async def test_what_waiting_does_not_mend_is_not_waited_for(pauses: list[float], error: ClientError) -> None:
    with pytest.raises(ClientError):
        await Retries(30).wait(error)
    assert pauses == []

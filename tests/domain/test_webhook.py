"""A webhook: received once, handled, replayed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runstream.domain.webhook import Webhook, evolve
from runstream.events.webhook import WebhookHandled, WebhookReceived, WebhookReplayed

AT = datetime(2026, 12, 1, tzinfo=UTC)
LATER = AT + timedelta(seconds=1)
RECEIVED = WebhookReceived("p", "gitea", "d", "push", "ada", "7", None)
HANDLED = WebhookHandled(("r",), "", "")


def test_it_is_received_handled_and_replayed() -> None:
    received = evolve(None, RECEIVED, AT)
    assert received == Webhook(RECEIVED, AT)
    handled = evolve(received, HANDLED, LATER)
    assert handled == Webhook(RECEIVED, AT, HANDLED, LATER)
    assert evolve(handled, WebhookReplayed(), LATER) == received


def test_it_is_received_once_and_first() -> None:
    with pytest.raises(ValueError, match="received already"):
        evolve(Webhook(RECEIVED, AT), RECEIVED, AT)
    with pytest.raises(ValueError, match="begins with"):
        evolve(None, HANDLED, AT)

"""A webhook of a git host: received once, then handled; replayed, it is handled again."""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from runstream.events.webhook import WebhookEvent, WebhookHandled, WebhookReceived, WebhookReplayed


class Webhook(Struct, frozen=True, gc=False):
    """A webhook."""

    received: WebhookReceived
    received_at: datetime
    handled: WebhookHandled | None = None
    """None while it is to be handled."""
    handled_at: datetime | None = None


def evolve(webhook: Webhook | None, event: WebhookEvent, at: datetime) -> Webhook:
    """Return the webhook after an event. Raises ValueError for one that does not fit."""
    if isinstance(event, WebhookReceived):
        if webhook is not None:
            raise ValueError("the webhook was received already")
        return Webhook(event, at)
    if webhook is None:
        raise ValueError("a webhook begins with WebhookReceived")
    match event:
        case WebhookHandled():
            return replace(webhook, handled=event, handled_at=at)
        case WebhookReplayed():
            return replace(webhook, handled=None, handled_at=None)
        case _:
            assert_never(event)

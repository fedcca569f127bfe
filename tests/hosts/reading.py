"""A webhook as the gateway reads it: its signature first."""

from __future__ import annotations

from collections.abc import Mapping

from runstream.hosts.port import HostType
from runstream.hosts.webhooks import ReceivedWebhook, check_signature, parse_webhook


def read_webhook(
    host: HostType, secret: str, headers: Mapping[str, str], body: bytes, *, now: float
) -> ReceivedWebhook:
    check_signature(host, secret, headers, body, now=now)
    return parse_webhook(host, headers, body)

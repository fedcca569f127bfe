"""Where the connection to NATS was looked for before it moved."""

from __future__ import annotations

from runstream.jetstream.connection import nats_connection

__all__ = ["nats_connection"]

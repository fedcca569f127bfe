"""Embedded NATS and Postgres: real servers from wheels, in one data directory, on loopback only.

Each keeps its own folder: credentials (mode 600), the port it used last, a log, and its data. A server ends
with the process that started it; one that survives a `kill -9` is found by its pid and ended at the next start.
"""

from __future__ import annotations

from runstream.embedded.nats import NatsServer
from runstream.embedded.postgres import PostgresServer

__all__ = ["NatsServer", "PostgresServer"]

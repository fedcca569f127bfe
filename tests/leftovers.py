"""What a deployment leaves behind: the messages of its log, its rows, its files, and the processes that it had."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import open_log

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZSTD = b"\x28\xb5\x2f\xfd"
"""How compressed contents begin."""
LOOKS_EVERY = 0.02
"""Seconds between two looks at the processes."""


async def messages(nats_url: str, namespace: str = "runstream", service: str = "runs") -> bytes:
    """Return every commit of a service's log as it is written, decompressed where it is compressed."""
    parts: list[bytes] = []
    async with nats_connection(nats_url) as nats, await open_log(nats, namespace, service) as log:
        for partition in range(log.partitions):
            end = await log.end(partition)
            async with log.read(partition, 0) as reader:
                at = 0
                while at < end:
                    batch = await reader.next_batch(100)
                    at = batch[-1].position.sequence
                    parts += [zstd.decompress(m.data) if m.data[:4] == ZSTD else m.data for m in batch]
    return b"\n".join(parts)


async def rows(database_url: str, folder: Path, schema: str = "runstream") -> list[Path]:
    """Write every table of a schema to a file of the folder; return the files."""
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema)
        files = []
        for (table,) in tables:
            files.append(folder / f"{table}.copy")
            await connection.copy_from_table(table, schema_name=schema, output=files[-1])
    finally:
        await connection.close()
    return files


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file below a folder; a service may remove some meanwhile."""
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    found[str(path)] = path.read_bytes()
    return found


@contextlib.contextmanager
def processes(*, environments_without: bytes = b"") -> Iterator[set[bytes]]:
    """Collect the command lines of all processes that begin meanwhile; with a mark also environments without it."""
    seen: set[bytes] = set()
    ended = threading.Event()
    before = _pids()

    def look() -> None:
        now = _pids()
        before.intersection_update(now)
        for name in now - before:
            with contextlib.suppress(OSError):  # it has ended, or belongs to another user
                seen.add(Path("/proc", name, "cmdline").read_bytes())
                if not environments_without:
                    continue
                environ = Path("/proc", name, "environ").read_bytes()
                # What is read of a process while it ends is cut off, and may lack the mark.
                if environ.endswith(b"\0") and environments_without not in environ:
                    seen.add(environ)

    def looking() -> None:
        while not ended.wait(LOOKS_EVERY):
            look()

    thread = threading.Thread(target=looking)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def _pids() -> set[str]:
    return {name for name in os.listdir("/proc") if name.isdecimal()}  # noqa: PTH208 - fifty times a second

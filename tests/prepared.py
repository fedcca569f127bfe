"""Folders of an embedded Postgres that were started before, for tests that are not about the first start.

`initdb` and the migrations cost half a second of CPU; a copy with a password of its own costs a fifth of that.
"""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import json
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import asyncpg

from runstream.database.migrating import migrate
from runstream.embedded import PostgresServer
from runstream.embedded.postgres import let_through, server_user
from runstream.service.data_dir import DataDir
from tests.migrated import program

_SCHEMA = "runstream"
"""The schema that services use by default."""
_SHARED: list[Path] = []
"""The last is the folder of the session's template."""


async def prepare(folder: Path) -> None:
    """Fill the folder of a PostgresServer that was never started: its database has all tables, without rows."""
    await asyncio.to_thread(_prepare, folder)


async def prepare_data_dir(data_dir: Path) -> None:
    """Make a service's data directory with such a Postgres, if it is not there yet."""
    await asyncio.to_thread(_prepare_data_dir, data_dir)


def _prepare_data_dir(data_dir: Path) -> None:
    if not data_dir.exists():
        with DataDir.hold(data_dir):
            _prepare(data_dir / "postgres")


def _prepare(folder: Path) -> None:
    template = _template()
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    subprocess.run(["cp", "-a", "--reflink=auto", template, folder], check=True)
    # With a password of its own, no client of another test gets in at a port that this server took over.
    credentials = json.loads((folder / "credentials.json").read_text())
    credentials["password"] = secrets.token_urlsafe(24)
    (folder / "credentials.json").write_text(json.dumps(credentials))
    _alter(folder, f"ALTER ROLE runstream PASSWORD '{credentials['password']}'")


def _alter(folder: Path, statement: str) -> None:
    words = ("postgres", "--single", "-D", str(folder / "data"), "-c", "fsync=off", "postgres")
    _as_its_user(folder, words, f"{statement}\n")


def _as_its_user(folder: Path, words: Sequence[str], stdin: str = "") -> None:
    """Run a program of Postgres as the user of the folder's server."""
    entry = None
    if os.geteuid() == 0:
        entry = pwd.getpwnam(server_user())
        let_through(folder)
    subprocess.run(
        (program(words[0]), *words[1:]),
        input=stdin.encode(),
        user=None if entry is None else entry.pw_uid,
        group=None if entry is None else entry.pw_gid,
        extra_groups=None if entry is None else (),
        cwd="/",
        capture_output=True,
        check=True,
    )


def share(folder: Path) -> None:
    """Let all processes of a session of tests use one template, in this folder, which the session removes."""
    folder.mkdir(exist_ok=True)
    _SHARED.append(folder)


def _template() -> Path:
    """The folder of which the others are copies; the first process or thread that needs it makes it."""
    made = (_SHARED[-1] if _SHARED else _own_folder()) / "template"
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            # A process that ends meanwhile leaves no half of one.
            new = Path(tempfile.mkdtemp(prefix="template-", dir=made.parent)) / "postgres"
            asyncio.run(_fill(new))
            new.rename(made)
    return made


@cache
def _own_folder() -> Path:
    """The folder of a process that is no test's."""
    made = Path(tempfile.mkdtemp(prefix="runstream-tests-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


async def _fill(folder: Path) -> None:
    server = PostgresServer(folder, durable=False)
    await server.start()
    try:
        await migrate(server.url, _SCHEMA)
        await _drop_templates(server.url)
    finally:
        await server.stop()
    # A log of one segment of 1 MiB instead of 16.
    _as_its_user(folder, ("pg_resetwal", "--wal-segsize=1", "-D", str(folder / "data")))
    for name in ("port", "postgres.log"):
        (folder / name).unlink()


async def _drop_templates(url: str) -> None:
    """Drop what only a new database would need: two thirds of the files that each copy has to have."""
    connection = await asyncpg.connect(url)
    try:
        for name in ("template0", "template1"):
            await connection.execute(f"ALTER DATABASE {name} IS_TEMPLATE false")
            await connection.execute(f"DROP DATABASE {name}")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()

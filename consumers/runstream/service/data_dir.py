"""The data directory, which belongs to one process at a time.

runstream.json   its format; a folder that has other files and not this one is refused
lock             held while a process uses the folder; contains its pid. `serve --detach` takes it before it starts the
                 service, which inherits it as an open file: `stop` finds the service from its first moment
service.json     where client commands reach the local service (mode 600)
token            the token of the local API (mode 600)
instance         the id of the process that uses the folder, the same after a restart
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from runstream.atomic_files import replace_file
from runstream.errors import BadRequestError, ConflictError, InternalError, RunstreamError
from runstream.ids import new_id, require_token
from runstream.release import version
from runstream.settings import Settings

FORMAT = 1
MARKER = "runstream.json"
RECORDS = "serve.log"
"""The log of a service in the background; the log of the one before it ends in .1."""
_BEFORE_MARKED = frozenset({"lock", RECORDS, f"{RECORDS}.1"})
"""Files that may exist before the folder is marked."""
KEYS = "secrets.key"
"""The keys for secrets, put into a new folder before an export is restored there."""
NEEDED_BYTES = 64 << 20
"""Free bytes that a start requires: a log that cannot grow is useless."""
LOCK_VARIABLE = "RUNSTREAM_DATA_DIR_LOCK"
"""The environment variable with the number of the inherited open lock file, in a background service."""


class DataDir:
    """A data directory that this process holds."""

    def __init__(self, path: Path, *, new: bool = False, given: frozenset[str] = frozenset()) -> None:
        self.path = path
        self.new = new
        """Whether this process marked the folder, and nothing in it has served yet."""
        self.given = given
        """Files that were in the folder before it was marked."""

    @classmethod
    @contextmanager
    def starting(cls, path: Path, needed: int = NEEDED_BYTES) -> Iterator[DataDir]:
        """Hold the folder for a service that starts. A new folder is left as it was unless `keep` is called."""
        in_background = LOCK_VARIABLE in os.environ  # then `serve --detach` still reads its log
        with nullcontext() if in_background else without_trace(path), cls.hold(path, needed) as data_dir:
            try:
                yield data_dir
            finally:
                if data_dir.new:
                    _clear(data_dir.path, data_dir.given)

    def keep(self) -> None:
        """Keep the folder from now on: its service is about to accept work."""
        self.new = False

    @classmethod
    @contextmanager
    def hold(cls, path: Path, needed: int = NEEDED_BYTES) -> Iterator[DataDir]:
        """Hold the folder exclusively; make it if it does not exist, and require `needed` free bytes.

        Raise ConflictError when another process holds it, BadRequestError for a folder with other files or of another
        format, InternalError when it cannot be written.
        """
        path = path.expanduser().resolve()
        with locked(path):
            with _writing(path):
                _check_space(path, needed)
                given = frozenset({KEYS} if (path / KEYS).exists() else ())
                new = _mark(path)
            yield cls(path, new=new, given=given)

    def token(self) -> str:
        """Return the token of the local API; make it the first time."""
        path = self.path / "token"
        if not path.exists():
            replace_file(path, secrets.token_urlsafe(24).encode())
        return path.read_text().strip()

    def instance(self) -> str:
        """Return the id of the process that uses this folder; made once, so that a restart keeps its identity."""
        path = self.path / "instance"
        if not path.exists():
            replace_file(path, new_id().encode())
        return require_token(path.read_text().strip(), f"the instance id in {path}")

    @contextmanager
    def announced(self, url: str, token: str) -> Iterator[None]:
        """Let client commands find the service while the block lasts."""
        path = self.path / "service.json"
        replace_file(path, json.dumps({"url": url, "token": token, "pid": os.getpid()}).encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def remembered_port(self) -> int:
        """Return the gateway's last port; 0 for none."""
        path = self.path / "port"
        text = path.read_text().strip() if path.exists() else ""
        return int(text) if text.isdigit() else 0

    def remember_port(self, port: int) -> None:
        """Store the gateway's port, so that its URL survives a restart."""
        replace_file(self.path / "port", str(port).encode())


def needed_bytes(settings: Settings) -> int:
    """Return the free bytes that a start needs. An executor alone starts on a full disk, and takes no tasks."""
    return 0 if settings.components == ("executor",) else NEEDED_BYTES


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Lock the folder for this process; make it if it does not exist. Yield the open lock file.

    A process that inherited the lock keeps it. Raise as `DataDir.hold` does.
    """
    make_folder(path)
    with _writing(path):
        _check_format(path)
        lock = _inherited_lock(path)
        if lock is None:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(lock, path)
        with _writing(path):
            write_holder(lock, os.getpid())
        yield lock
    finally:
        os.close(lock)


def _clear(path: Path, given: frozenset[str]) -> None:
    """Remove what a start made in a new folder, the marker last; `without_trace` removes the lock and the logs."""
    entries = {entry.name: entry for entry in path.iterdir() if entry.name not in _BEFORE_MARKED | given}
    marker = entries.pop(MARKER, None)
    for entry in entries.values():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)  # the error of the start is more important
        else:
            entry.unlink(missing_ok=True)
    if marker is not None:
        marker.unlink(missing_ok=True)


@contextmanager
def without_trace(path: Path) -> Iterator[None]:
    """Remove the lock and the logs at the end if the folder is no data directory by then, and the folder if it is new.

    A folder that a process holds, or that has other files, is left alone.
    """
    path = path.expanduser().resolve()
    with _writing(path):
        made = not path.exists()
    try:
        yield
    finally:
        with suppress(OSError):  # there is no folder, or another process starts in it
            _remove_traces(path)
            if made:
                path.rmdir()


def _remove_traces(path: Path) -> None:
    lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        names = {entry.name for entry in path.iterdir() if entry.name != KEYS}
        if names <= _BEFORE_MARKED:
            for name in names:
                (path / name).unlink()
    finally:
        os.close(lock)


def write_holder(lock: int, pid: int) -> None:
    """Write the holder's pid into the lock file."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(pid).encode(), 0)


def _inherited_lock(path: Path) -> int | None:
    """Return the lock file that this process was started with; None without one, or if it is another folder's."""
    number = os.environ.pop(LOCK_VARIABLE, "")
    try:
        lock = int(number)
        if not os.path.samestat(os.fstat(lock), (path / "lock").stat()):
            return None
    except (ValueError, OSError):
        return None
    os.set_inheritable(lock, False)
    return lock


def make_folder(path: Path) -> None:
    """Make a data directory that does not exist yet. Raises InternalError that says why it cannot be made."""
    with _writing(path):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)


def holder(path: Path) -> int | None:
    """Return the pid of the process that holds the folder; None when it is free.

    For a moment after a process has taken the lock this is 0, or the pid of an earlier holder. Raises InternalError
    where another user's lock cannot be read.
    """
    with _writing(path):
        try:
            lock = os.open(path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(lock, 32, 0).decode()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(lock)
    return None


def _lock(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(lock).st_nlink:
            raise BlockingIOError  # the process that held it has removed it after a start that failed
    except BlockingIOError as error:
        pid = os.pread(lock, 32, 0).decode() or "unknown"
        raise ConflictError(
            f"the data directory {path} is in use by process {pid}",
            code="dataDirInUse",
            details={"data_dir": str(path), "pid": pid},
            hint="stop that process first, or give this one a folder of its own with --data-dir",
        ) from error


def _check_format(path: Path) -> None:
    marker = path / MARKER
    if not marker.exists():
        if any(entry.name not in {*_BEFORE_MARKED, KEYS} for entry in path.iterdir()):
            raise BadRequestError(
                f"{path} has other files and is not a data directory of Runstream",
                code="foreignDataDir",
                details={"data_dir": str(path)},
                hint="give an empty folder (it may have secrets.key), or one that does not exist yet, with --data-dir",
            )
        return
    try:
        found = json.loads(marker.read_text())["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequestError(
            f"{marker} cannot be read",
            code="foreignDataDir",
            hint='a data directory\'s marker looks like {"format": 1}',
        ) from error
    if found != FORMAT:
        raise BadRequestError(
            f"the data directory {path} has format {found}, and this version ({version()}) reads {FORMAT}",
            code="dataDirFormat",
            details={"found": found, "expected": FORMAT},
            hint="use the version of Runstream that made it, or give another folder with --data-dir",
        )


def _mark(path: Path) -> bool:
    """Mark the folder as a data directory; return whether it was not one before."""
    marker = path / MARKER
    if marker.exists():
        return False
    replace_file(marker, json.dumps({"format": FORMAT, "made_by": version()}).encode())
    return True


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{free >> 20} MB are free, {needed >> 20} MB are needed")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an OSError into an InternalError with a hint."""
    try:
        yield
    except RunstreamError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise InternalError(
            f"cannot use the data directory {path}: {error.strerror or error}",
            code="diskFull" if full else "dataDirNotWritable",
            details={"data_dir": str(path)},
            hint="free some space, or give a folder on another disk with --data-dir"
            if full
            else _access_hint(path, error),
        ) from error


def _access_hint(path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        from runstream.client.client import other_owner  # only here: it loads the HTTP client

        if owner := other_owner(path):
            return (
                f"it belongs to user {owner}: run this as user {owner}, or give another folder with --data-dir; "
                "clients of a running service can use RUNSTREAM_URL and RUNSTREAM_TOKEN"
            )
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "it is or lies below a file: give a folder with --data-dir"
    if isinstance(error, FileNotFoundError):
        return "no folder can be made there: give another one with --data-dir"
    return "make it writable for this user, or give another folder with --data-dir"

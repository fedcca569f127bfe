"""Under whom a server runs that refuses to run as root, and that this user can reach its files."""

from __future__ import annotations

import pwd
import shutil
import stat
import subprocess
from pathlib import Path

import structlog

from runstream.errors import InternalError

log = structlog.get_logger()
_USER = "runstream-db"


def server_user() -> str:
    """The system user for servers that refuse root; made when it is not there. Needs root."""
    try:
        return pwd.getpwnam(_USER).pw_name
    except KeyError:
        return _make_user()


def _make_user() -> str:
    program = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        raise InternalError(
            "Postgres does not run as root, and there is no program useradd to make a user for it",
            code="embeddedServerFailed",
            hint="run as an ordinary user, or give the URL of a server with --database-url",
        )
    words = [program, "--system", "--user-group", "--no-create-home", "--home-dir", "/", "--shell", "/bin/false", _USER]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        # Looked up again whatever useradd said: another start may have made it at the same moment.
        return pwd.getpwnam(_USER).pw_name
    except KeyError as error:
        raise InternalError(
            f"the system user {_USER} for Postgres could not be made",
            code="embeddedServerFailed",
            details={"said": done.stderr.strip()},
            hint="run as an ordinary user, or give the URL of a server with --database-url",
        ) from error


def let_through(*paths: Path) -> None:
    """Let other users pass through (not list) the folders above these paths, and through those that are folders."""
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

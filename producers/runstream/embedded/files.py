"""What an embedded server remembers between starts, and which port it may have."""

from __future__ import annotations

import json
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a server is: its name, and the credentials that only this user can read."""

    name: str
    password: str
    admin_password: str

    @classmethod
    def of(cls, folder: Path) -> Identity:
        """The identity kept in a server's folder; made at the first start."""
        path = folder / "credentials.json"
        if path.exists():
            return cls(**json.loads(path.read_text()))
        made = cls(f"runstream-{secrets.token_hex(4)}", secrets.token_urlsafe(24), secrets.token_urlsafe(24))
        write_private(
            path,
            json.dumps({"name": made.name, "password": made.password, "admin_password": made.admin_password}),
        )
        return made


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def pick_port(remembered: Path) -> int:
    """The port that the file names, if it is still free; else any free one. Nobody holds it until it is bound."""
    text = remembered.read_text() if remembered.exists() else ""
    return free_port(LOOPBACK, int(text) if text.isdigit() else 0)


def free_port(host: str, wanted: int = 0) -> int:
    """The wanted port, if it is free; else any free one."""
    try:
        return _bindable(host, wanted)
    except OSError:
        return _bindable(host, 0)


def _bindable(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        found: int = probe.getsockname()[1]
        return found


def tail(path: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error message; empty when there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

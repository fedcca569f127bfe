"""A port that cannot be had is told before anything has started."""

from __future__ import annotations

from runstream.embedded.process import free_port
from runstream.errors import ConflictError


def require_port(host: str, port: int) -> None:
    """Raise ConflictError unless something could listen there now; 0 stands for any port."""
    try:
        found = free_port(host, port)
    except OSError as error:
        raise ConflictError(
            f"cannot listen on {host}: {error.strerror or error}",
            code="hostNotAvailable",
            details={"host": host},
            hint="give an address of this machine with --host, such as 127.0.0.1 or 0.0.0.0",
        ) from error
    if port and found != port:
        raise ConflictError(
            f"cannot listen on {host}:{port}: the port is in use",
            code="portNotAvailable",
            details={"host": host, "port": port},
            hint="choose another port, or 0 for any free one",
        )

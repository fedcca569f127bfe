"""The service of this machine: found by the file `service.json` that it keeps in its data directory while it runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runstream.client.errors import ClientError


@dataclass(frozen=True, slots=True)
class LocalService:
    """What `service.json` says."""

    url: str
    token: str
    data_dir: Path
    pid: int
    """The process that wrote the file. It may have been killed since."""


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """RUNSTREAM_DATA_DIR, else `runstream` in the user's data folder (XDG_DATA_HOME, else ~/.local/share)."""
    if environ.get("RUNSTREAM_DATA_DIR"):
        return Path(environ["RUNSTREAM_DATA_DIR"]).expanduser()
    return Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "runstream"


def local_service(data_dir: Path) -> LocalService:
    """Return the service of a data directory. Raises ClientError (not-exist, bad-request) where there is none."""
    path = data_dir / "service.json"
    try:
        found = json.loads(path.read_bytes())
        return LocalService(str(found["url"]), str(found["token"]), data_dir, int(found.get("pid", 0)))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ClientError(
            f"no service is running in {data_dir}",
            kind="not-exist",
            code="noService",
            details={"data_dir": str(data_dir)},
            hint="start one with `runstream serve`; name another data directory with --data-dir or "
            "RUNSTREAM_DATA_DIR, a service elsewhere with --url or RUNSTREAM_URL",
        ) from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ClientError(
            f"{path} cannot be read: {error}",
            kind="bad-request",
            code="noService",
            hint="restart the service: it writes the file anew",
        ) from error

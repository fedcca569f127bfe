"""Whether this process can seal and open secrets, and nobody else can read its keys."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator

from runstream.sealing import Keyring
from runstream.service.doctor.finding import Finding
from runstream.settings import Settings

_WHAT = "secrets keys"


async def secrets_keys(settings: Settings) -> AsyncIterator[Finding]:
    """Check the file of keys."""
    path = settings.secrets_key_path
    if settings.secrets_key_file is None and not path.exists():
        if "gateway" in settings.components:
            yield Finding(_WHAT, "ok", f"{path} is made when a gateway starts for the first time")
        else:
            todo = "give all gateways and executors the same --secrets-key-file"
            yield Finding(_WHAT, "warning", "none: tasks that use secrets fail in their setup", todo)
        return
    ids = Keyring.read(path).ids
    found = f"{path}: encrypts with key {ids[0]}" + (f", decrypts also with {', '.join(ids[1:])}" if ids[1:] else "")
    if stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        yield Finding(_WHAT, "problem", f"others may read {path}", f"chmod 600 {path}")
    else:
        yield Finding(_WHAT, "ok", found)

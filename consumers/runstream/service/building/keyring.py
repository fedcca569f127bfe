"""The keys for secrets of a process that seals or opens them."""

from __future__ import annotations

from runstream.sealing import Keyring, make_key_file
from runstream.settings import Settings


def keyring_of(settings: Settings) -> Keyring:
    """Those of the settings' file. A gateway that was told nothing makes one: it is the first that needs it.

    Raises BadRequestError for a bad file.
    """
    path = settings.secrets_key_path
    if settings.secrets_key_file is None and not path.exists():
        if "gateway" not in settings.components:
            return Keyring()
        make_key_file(path)
    return Keyring.read(path)

"""What never gets into a log record: values under telling names, passwords in URLs, and what was named secret.

Three nets, because one has holes: a field called like a secret is hidden whatever it holds; a password in a
URL and a private key are hidden wherever they stand; a text registered with `hide_secret` is hidden anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

HIDDEN = "[hidden]"
_SHORTEST = 6
_NAMES = ("token", "password", "passwd", "secret", "authorization", "privkey", "private_key", "credential", "cookie")
_URL_PASSWORD = re.compile(r"(?<=://)([^/\s:@\"']*):([^/\s\"']+)@")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_registered: set[str] = set()


def hide_secret(text: str) -> None:
    """Hide this text in every later record of this process. Texts under 6 characters are too common to hide."""
    if len(text) >= _SHORTEST:
        _registered.add(text)


def hide_password_of(url: str) -> None:
    """Hide the password in a URL, if it has one, in every later record."""
    password = urlsplit(url).password if "://" in url else None
    if password:
        hide_secret(password)
        hide_secret(unquote(password))


def without_secrets(text: str) -> str:
    """The text with every secret that can be recognised in it hidden."""
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text)
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY.sub(HIDDEN, text)
    for secret in _registered:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return text


def hidden(name: str, value: object) -> object:
    """The value of a field of a record, hidden when its name is telling; looks into maps and lists."""
    if isinstance(value, str):
        return HIDDEN if value and _telling(name) else without_secrets(value)
    if isinstance(value, Mapping):
        return {str(key): hidden(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [hidden(name, item) for item in value]
    if value is None or isinstance(value, (int, float)):
        return value
    return HIDDEN if _telling(name) else without_secrets(str(value))


def _telling(name: str) -> bool:
    lowered = name.lower()
    return any(part in lowered for part in _NAMES)

"""Registries of images: which one an image is from, and how to log in there."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Literal

from runstream.errors import BadRequestError
from runstream.executor.spec import Login

PullPolicy = Literal["always", "missing", "never"]
HUB = "index.docker.io"
_FORMS = ("%s", "https://%s", "http://%s", "https://%s/v1/", "http://%s/v1/", "https://%s/v2/", "http://%s/v2/")
_REGISTRY = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
_ELEMENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:{_REGISTRY}/)?{_ELEMENT}(?:/{_ELEMENT})*(?::[A-Za-z0-9_][\w.-]{{0,127}})?(?:@[A-Za-z][\w+.-]*:[0-9A-Fa-f]{{32,}})?",
    re.ASCII,
)
"""The grammar of Docker references (distribution/reference)."""


def require_reference(image: str) -> None:
    """Raise BadRequestError for a container without an image, or whose image has a name that no registry can have."""
    if not image:
        raise BadRequestError("a container has no image", code="imageMissing", hint="give it `image: NAME`")
    if not _REFERENCE.fullmatch(image):
        raise BadRequestError(
            f"{image[:200]!r} is not the name of an image",
            code="invalidImage",
            hint="write [REGISTRY/]NAME[:TAG] or [REGISTRY/]NAME@DIGEST, the name in lower case",
        )


def registry_of(image: str) -> str:
    """Return the registry of an image, by the rules of Docker references."""
    first, slash, _ = image.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        return HUB
    return HUB if first in ("docker.io", HUB) else first


def tagged(image: str) -> str:
    """Return the image with the tag `latest` if it has neither a tag nor a digest."""
    if "@" in image or ":" in image.rpartition("/")[2]:
        return image
    return f"{image}:latest"


def login_for(image: str, logins: Mapping[str, Login]) -> tuple[str, str] | None:
    """Return the user and password for the registry of an image; None without any.

    Raises BadRequestError for a login that is malformed or of an unknown type.
    """
    registry = registry_of(image)
    for form in _FORMS:
        if (login := logins.get(form % registry)) is not None:
            return _credentials(registry, login)
    return None


def _credentials(registry: str, login: Login) -> tuple[str, str]:
    if login.type in ("", "basic"):
        return login.username, login.password
    if login.type != "encodedauth":
        raise BadRequestError(
            f"the login for registry {registry} has the unknown type {login.type[:40]!r}",
            code="invalidRegistryLogin",
            hint="write `type: basic` or `type: encodedauth`",
        )
    try:
        user, colon, password = base64.b64decode(login.auth, validate=True).decode().partition(":")
    except ValueError:  # not ASCII, not base64, or not UTF-8
        colon = ""
    if not colon:
        raise BadRequestError(
            f"the login for registry {registry} is not base64 of USER:PASSWORD",
            code="invalidRegistryLogin",
            hint="printf '%s' USER:PASSWORD | base64",
        )
    return user, password

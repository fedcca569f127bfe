"""Which bucket, where: what a URL like `s3://bucket/prefix?endpoint=minio:9000&tls=off` says.

No credentials are in it, so that it can be shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from runstream.errors import BadRequestError, RunstreamError
from runstream.objects.port import elements

Style = Literal["path", "virtual"]
OPTIONS = ("endpoint", "region", "style", "tls", "ca")
_HINT = (
    "write s3://BUCKET[/PREFIX][?endpoint=HOST[:PORT]&region=REGION&style=path|virtual&tls=on|off&ca=FILE]; "
    "the keys are the settings objects_access_key and objects_secret_key"
)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_WORDS = {"on": True, "true": True, "off": False, "false": False}


@dataclass(frozen=True, slots=True)
class S3Location:
    """A bucket, and the place in it where all objects are."""

    bucket: str
    prefix: str = ""
    """Empty, or with a `/` at its end."""
    endpoint: str = ""
    """`host[:port]`; empty for AWS."""
    region: str = ""
    """Empty: that of the environment, else us-east-1."""
    style: Style = "virtual"
    """Whether the bucket is in the request's path or in the host's name."""
    tls: bool = True
    ca: Path | None = None
    """Certificates (PEM) to trust besides the system's."""

    def url(self, region: str) -> str:
        """Where requests about the bucket go, as far as the host is concerned."""
        host = self.endpoint or f"s3.{region}.amazonaws.com"
        bucket = f"{self.bucket}." if self.style == "virtual" else ""
        return f"{'https' if self.tls else 'http'}://{bucket}{host}"

    def __str__(self) -> str:
        at = f" at {self.endpoint}" if self.endpoint else ""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/") + at


def parse_location(url: str) -> S3Location:
    """What an `s3://` URL says. Raises BadRequestError that says what is wrong, without showing what may be secret."""
    try:
        parts = urlsplit(url)
        given = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError as error:
        raise _wrong(f"it cannot be read: {error}") from error
    if parts.scheme != "s3":
        raise _wrong("it does not begin with s3://")
    if "@" in parts.netloc:
        raise _wrong("credentials do not belong in it")
    if not _BUCKET.fullmatch(parts.netloc):
        raise _wrong(f"{parts.netloc!r} is not the name of a bucket: 3 to 63 lower-case letters, digits, '-' and '.'")
    options = dict(given)
    unknown = [name for name, _ in given if name not in OPTIONS]
    if unknown or len(options) != len(given):
        raise _wrong(f"it knows the options {', '.join(OPTIONS)}, each once")
    endpoint, tls = _endpoint(options)
    return S3Location(
        bucket=parts.netloc,
        prefix=_prefix(unquote(parts.path)),
        endpoint=endpoint,
        region=_region(options.get("region", "")),
        style=_style(options.get("style", "path" if endpoint else "virtual")),
        tls=tls,
        ca=Path(options["ca"]) if "ca" in options else None,
    )


def _prefix(path: str) -> str:
    if not path.strip("/"):
        return ""
    try:
        return "/".join(elements(path)) + "/"
    except RunstreamError as error:
        raise _wrong(error.message) from error


def _endpoint(options: dict[str, str]) -> tuple[str, bool]:
    """Host and port, and whether they are reached by TLS."""
    text = options.get("endpoint", "")
    scheme, separator, host = text.rpartition("://")
    if scheme not in ("", "http", "https"):
        raise _wrong("its endpoint is neither HOST[:PORT] nor a URL that begins with https:// or http://")
    host = host.rstrip("/")
    if text and not _HOST.fullmatch(host):
        raise _wrong("its endpoint is not HOST[:PORT]")
    tls = options.get("tls", "off" if scheme == "http" else "on").lower()
    if tls not in _WORDS:
        raise _wrong("its option tls is neither on nor off")
    if separator and _WORDS[tls] != (scheme == "https"):
        raise _wrong(f"its endpoint begins with {scheme}://, its option tls is {tls}")
    return host, _WORDS[tls]


def _style(text: str) -> Style:
    if text not in ("path", "virtual"):
        raise _wrong("its option style is neither path nor virtual")
    return cast("Style", text)


def _region(text: str) -> str:
    if text and not re.fullmatch("[a-zA-Z0-9-]+", text):
        raise _wrong("its option region is not valid")
    return text


def _wrong(why: str) -> BadRequestError:
    return BadRequestError(f"the URL of the object storage is not valid: {why}", code="invalidObjectsURL", hint=_HINT)

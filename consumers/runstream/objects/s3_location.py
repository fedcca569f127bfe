"""The location of a bucket, as in the URL `s3://bucket/prefix?endpoint=minio:9000&tls=off`.

It holds no credentials, so it may be shown.
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
    """A bucket, and the prefix of all objects in it."""

    bucket: str
    prefix: str = ""
    """Empty, or ending in `/`."""
    endpoint: str = ""
    """`host[:port]`; empty for AWS."""
    region: str = ""
    """Empty for the environment's region, else us-east-1."""
    style: Style = "virtual"
    """Place of the bucket's name in a request: in its path, or in the host name."""
    tls: bool = True
    ca: Path | None = None
    """Certificates (PEM) to trust in addition to the system's."""

    def url(self, region: str) -> str:
        """Return the URL of the bucket's host."""
        host = self.endpoint or f"s3.{region}.amazonaws.com"
        bucket = f"{self.bucket}." if self.style == "virtual" else ""
        return f"{'https' if self.tls else 'http'}://{bucket}{host}"

    def __str__(self) -> str:
        at = f" at {self.endpoint}" if self.endpoint else ""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/") + at


def parse_location(url: str) -> S3Location:
    """Parse an `s3://` URL. Raises BadRequestError, which never shows a part that may be secret."""
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
    style, region = options.get("style", "path" if endpoint else "virtual"), options.get("region", "")
    if style not in ("path", "virtual"):
        raise _wrong("its option style is neither path nor virtual")
    if region and not re.fullmatch("[a-zA-Z0-9-]+", region):
        raise _wrong("its option region is not valid")
    return S3Location(
        bucket=parts.netloc,
        prefix=_prefix(unquote(parts.path)),
        endpoint=endpoint,
        region=region,
        style=cast("Style", style),
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
    """Return host and port, and whether to use TLS."""
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


def _wrong(why: str) -> BadRequestError:
    return BadRequestError(f"the URL of the object storage is not valid: {why}", code="invalidObjectsURL", hint=_HINT)

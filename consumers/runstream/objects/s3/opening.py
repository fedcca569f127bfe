"""Reaching a bucket: it is there, or it is made, or the error says what is wrong with bucket, keys or endpoint."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx2
import obstore
import structlog
from obstore.store import S3Store

from runstream.errors import BadRequestError, RunstreamError
from runstream.objects.s3.bucket import Bucket
from runstream.objects.s3.failures import NO_BUCKET, Answer, broken, heard, translated
from runstream.objects.s3.location import S3Location
from runstream.objects.s3.storage import S3Objects
from runstream.telemetry.secrets import hide_secret

if TYPE_CHECKING:  # the client has these for type checkers alone
    from obstore.store import ClientConfig, RetryConfig, S3Credential, S3CredentialProvider

_DEFAULT_REGION = "us-east-1"
_MADE_MEANWHILE = ("BucketAlreadyOwnedByYou", "OperationAborted")
_SIGNED = timedelta(minutes=5)
_CREATE_SECONDS = 30.0
_CONNECT = timedelta(seconds=5)
_SILENT = timedelta(seconds=60)
"""How long a request may say nothing; then it is made again."""
_WHOLE = timedelta(hours=1)
"""How long the answer to one request may be read; then the rest is asked for anew."""
_RETRIES: RetryConfig = {
    "max_retries": 8,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 2},
    "retry_timeout": timedelta(minutes=2),
}
_FEW_RETRIES: RetryConfig = {
    "max_retries": 2,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
    "retry_timeout": timedelta(seconds=10),
}
"""At the start, where somebody waits to see what is wrong."""
_IMPATIENT = timedelta(seconds=5)
"""At the start, in place of `_SILENT`."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials."""

    access: str
    secret: str = field(repr=False)

    def __call__(self) -> S3Credential:
        """What the client asks for."""
        return {"access_key_id": self.access, "secret_access_key": self.secret, "token": None, "expires_at": None}


async def open_s3(location: S3Location, keys: Keys | None, *, make: bool = True) -> S3Objects:
    """The storage in a bucket, which is made if it is missing; unless not to `make` it, which is an error then.

    Without keys those of the environment are taken: AWS's variables, or the role of the machine. Raises
    BadRequestError for a file of certificates that is none, InternalError for what does not work.
    """
    hide_secret(keys.secret if keys is not None else os.environ.get("AWS_SECRET_ACCESS_KEY", ""))
    first = Bucket(location, _store(location, keys, _FEW_RETRIES, _IMPATIENT))
    try:
        await _look(first)
    except RunstreamError as error:
        if error.code != NO_BUCKET or not make:
            raise
        await _create(first)
        await _look(first)
    return S3Objects(Bucket(location, _store(location, keys, _RETRIES, _SILENT)))


def region_of(location: S3Location) -> str:
    """The region that requests are signed for."""
    environ = os.environ
    return location.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or _DEFAULT_REGION


def _store(location: S3Location, keys: S3CredentialProvider | None, retries: RetryConfig, silent: timedelta) -> S3Store:
    options: ClientConfig = {
        "allow_http": not location.tls,
        "connect_timeout": _CONNECT,
        "read_timeout": silent,
        "timeout": _WHOLE,
    }
    if location.ca is not None:
        options["root_certificate"] = _certificates(location)
    region = region_of(location)
    return S3Store(
        location.bucket,
        config={
            "endpoint": location.url(region),
            "region": region,
            "virtual_hosted_style_request": location.style == "virtual",
            "disable_bulk_delete": True,
        },
        client_options=options,
        retry_config=retries,
        credential_provider=keys,
    )


def _certificates(location: S3Location) -> bytes:
    try:
        ssl.create_default_context(cafile=location.ca)
        return location.ca.read_bytes() if location.ca is not None else b""
    except (OSError, ssl.SSLError) as error:
        raise BadRequestError(
            f"{location.ca} has no certificates that can be trusted: {error}",
            code="invalidObjectsURL",
            hint="the option ca of the object storage's URL names a file of certificates in PEM",
        ) from error


async def _look(bucket: Bucket) -> None:
    """Ask for a list: the one request that tells a missing bucket from a missing object."""
    with translated(bucket.location, ""):
        await anext(obstore.list(bucket.store, f"{bucket.location.prefix}probes"), None)


async def _create(bucket: Bucket) -> None:
    """Make the bucket; another process may have made it at the same moment. The client signs, and cannot ask."""
    location = bucket.location
    region = region_of(location)
    body = ""
    if region != _DEFAULT_REGION:
        body = (
            '<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
        )
    with translated(location, ""):
        url = await obstore.sign_async(bucket.store, "PUT", "", _SIGNED)
    verify = ssl.create_default_context(cafile=location.ca) if location.ca is not None else True
    try:
        async with httpx2.AsyncClient(verify=verify, timeout=_CREATE_SECONDS) as client:
            answer = await client.put(url, content=body)
    except httpx2.HTTPError as error:
        raise broken(location, Answer(message=str(error))) from error
    if answer.is_success:
        log.info(f"made the bucket of {location}", action="objects_bucket_made", bucket=location.bucket)
        return
    said = heard(f"{answer.text}\nstatus code: {answer.status_code}")
    if said.code not in _MADE_MEANWHILE:
        raise broken(location, said)

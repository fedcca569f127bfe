"""Translates a bucket's answers into errors: a missing object, or a storage that does not work and the way out."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError

from runstream.errors import InternalError, RunstreamError
from runstream.objects.port import impossible, not_exist
from runstream.objects.s3_location import S3Location
from runstream.open_files import OpenFilesError

NO_BUCKET = "objectsBucketMissing"
_CODE = re.compile("<Code>([A-Za-z0-9]+)</Code>")
_MESSAGE = re.compile("<Message>([^<]{1,300})")
_REASON = re.compile(r'(?:message|error): "([^"]{1,200})"')
_STATUS = re.compile("status code: ([0-9]{3})")
_NO_KEYS = "NoCredentials"
_NO_FILES = frozenset({os.strerror(errno.EMFILE), os.strerror(errno.ENFILE)})
_CLIENT_ERRORS = {"redirect without LOCATION": "PermanentRedirect", "http://169.254.": _NO_KEYS}
"""Errors of the client itself: the last one is the address that serves the credentials of a machine's role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meaning:
    """The meaning of some answers, and the way out."""

    answers: Sequence[str] = ()
    code: str
    wrong: str
    hint: str


_MEANINGS = (
    _Meaning(
        answers=["NoSuchBucket"],
        code="objectsBucketMissing",
        wrong="has no such bucket",
        hint="`runstream serve` makes it when it starts; or correct --objects-url",
    ),
    _Meaning(
        answers=["BucketAlreadyExists", "InvalidBucketName"],
        code="objectsBucketRefused",
        wrong="cannot have this bucket",
        hint="choose another name of a bucket in --objects-url",
    ),
    _Meaning(
        answers=[
            "AccessDenied",
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "InvalidToken",
            "ExpiredToken",
            "401",
            "403",
        ],
        code="objectsRefused",
        wrong="refuses our keys",
        hint="check objects_access_key and objects_secret_key (RUNSTREAM_OBJECTS_ACCESS_KEY, "
        "RUNSTREAM_OBJECTS_SECRET_KEY, or AWS's own variables), and that they may list the bucket, and read, write "
        "and delete its objects",
    ),
    _Meaning(
        answers=[_NO_KEYS],
        code="objectsKeysMissing",
        wrong="needs keys, but none are set",
        hint="set RUNSTREAM_OBJECTS_ACCESS_KEY and RUNSTREAM_OBJECTS_SECRET_KEY, or AWS's own variables; this machine "
        "has no role that could be used",
    ),
    _Meaning(
        answers=[
            "PermanentRedirect",
            "TemporaryRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
            "301",
            "307",
        ],
        code="objectsElsewhere",
        wrong="is in another region",
        hint="name the bucket's region in --objects-url: ?region=REGION",
    ),
    _Meaning(
        answers=["RequestTimeTooSkewed", "RequestExpired"],
        code="objectsClock",
        wrong="has another time than this machine",
        hint="set the clocks by NTP",
    ),
)
_FAILED = _Meaning(
    code="objectsFailed",
    wrong="answers with an error",
    hint="see the storage's own logs; `runstream doctor` tries it again",
)
_UNREACHABLE = _Meaning(
    code="objectsUnreachable",
    wrong="cannot be reached",
    hint="check the endpoint in --objects-url, and whether it speaks TLS (?tls=off, or ?ca=FILE for its certificate)",
)


@dataclass(frozen=True, slots=True)
class ServiceReply:
    """The answer of a service, as far as the client reports it."""

    code: str = ""
    """The error code, such as NoSuchBucket, else the HTTP status; empty without an answer."""
    message: str = ""
    """Message of the service, else of the client."""


@contextlib.contextmanager
def translated(location: S3Location, path: str) -> Iterator[None]:
    """Translate the errors of a request about an object."""
    try:
        yield
    except (BaseError, FileNotFoundError, ValueError) as error:
        raise failure(location, path, error) from error


def failure(location: S3Location, path: str, error: Exception) -> RunstreamError:
    """Return our error for the client's error about an object."""
    answer = answer_in(str(error))
    if isinstance(error, FileNotFoundError) and answer.code != "NoSuchBucket":
        return not_exist(path)
    if isinstance(error, PreconditionError):
        return InternalError(
            f"object {path[:200]!r} was replaced or deleted while it was read",
            code="objectChanged",
            details={"path": path},
            hint="read it again",
        )
    if isinstance(error, ValueError):
        return impossible(path)
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) and not answer.code:
        answer = ServiceReply("403", answer.message)
    return broken(location, answer)


def broken(location: S3Location, answer: ServiceReply) -> InternalError:
    """Return the error for a storage that does not work, with the way out."""
    if not answer.code and answer.message in _NO_FILES:
        return OpenFilesError(f"object storage {location}")
    other = _FAILED if answer.code else _UNREACHABLE
    meaning = next((each for each in _MEANINGS if answer.code in each.answers), other)
    text = f"{answer.code} {answer.message}".strip()
    return InternalError(
        f"the object storage {location} {meaning.wrong}: {text}",
        code=meaning.code,
        details={"bucket": location.bucket, "endpoint": location.endpoint, "answer": answer.code},
        hint=meaning.hint,
    )


def answer_in(text: str) -> ServiceReply:
    """Parse the service's answer from the text of the client's error."""
    for part, client_code in _CLIENT_ERRORS.items():
        if part in text:
            return ServiceReply(client_code)
    code = _CODE.search(text) or _STATUS.search(text)
    message = _MESSAGE.search(text)
    if message is not None:
        return ServiceReply(code[1] if code else "", message[1])
    return ServiceReply(code[1] if code else "", "" if code else _reason(text))


def _reason(text: str) -> str:
    """Return the innermost reason in the client's error, else its first line."""
    if "InvalidCertificate" in text:
        return "its certificate is not trusted"
    if "TimedOut" in text:
        return "it does not answer in time"
    reasons = _REASON.findall(text)
    return str(reasons[-1]) if reasons else text.partition("\n")[0][:300]

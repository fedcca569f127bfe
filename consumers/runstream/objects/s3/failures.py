"""What a bucket's answers mean: the object is missing, or the storage does not work, and what to do about it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError

from runstream.errors import InternalError, RunstreamError
from runstream.objects.elements import impossible
from runstream.objects.port import not_exist
from runstream.objects.s3.location import S3Location

NO_BUCKET = "objectsBucketMissing"
_CODE = re.compile("<Code>([A-Za-z0-9]+)</Code>")
_MESSAGE = re.compile("<Message>([^<]{1,300})")
_STATUS = re.compile("status code: ([0-9]{3})")
_REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "403", "401"}
_ELSEWHERE = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "301",
    "307",
}
_OTHER_NAME = {"BucketAlreadyExists", "InvalidBucketName"}
_CLOCK = {"RequestTimeTooSkewed", "RequestExpired"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service has answered, as far as it is known."""

    code: str = ""
    """Its error code, such as NoSuchBucket, else the HTTP status; empty when it has not answered at all."""
    message: str = ""
    """Its words, or the client's."""


@contextlib.contextmanager
def translated(location: S3Location, path: str) -> Iterator[None]:
    """Turns what a request about an object raises into our errors."""
    try:
        yield
    except (BaseError, FileNotFoundError, ValueError) as error:
        raise failure(location, path, error) from error


def failure(location: S3Location, path: str, error: Exception) -> RunstreamError:
    """Our error for what a request about an object has raised."""
    answer = heard(str(error))
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
        answer = Answer("403", answer.message)
    return broken(location, answer)


def broken(location: S3Location, answer: Answer) -> InternalError:
    """The error for a storage that does not work, with the way out."""
    meaning = _meaning(location, answer)
    said = f"{answer.code} {answer.message}".strip()
    return InternalError(
        f"the object storage {location} {meaning.wrong}: {said}",
        code=meaning.code,
        details={"bucket": location.bucket, "endpoint": location.endpoint, "answer": answer.code},
        hint=meaning.hint,
    )


def heard(text: str) -> Answer:
    """What a service answered, from the text of the client's error."""
    code = _CODE.search(text) or _STATUS.search(text)
    message = _MESSAGE.search(text)
    if message is not None:
        return Answer(code[1] if code else "", message[1])
    return Answer(code[1] if code else "", "" if code else _reason(text))


def _reason(text: str) -> str:
    """The first line of the client's error, from what it was doing on."""
    line = text.partition("\n")[0]
    return line[max(line.find("Error performing"), 0) :][:300]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meaning:
    code: str
    wrong: str
    hint: str


def _meaning(location: S3Location, answer: Answer) -> _Meaning:
    if answer.code == "NoSuchBucket":
        return _Meaning(
            code="objectsBucketMissing",
            wrong="has no such bucket",
            hint="`runstream serve` makes it when it starts; or correct --objects-url",
        )
    if answer.code in _OTHER_NAME:
        return _Meaning(
            code="objectsBucketRefused",
            wrong="cannot have this bucket",
            hint="choose another name of a bucket in --objects-url",
        )
    if answer.code in _REFUSED:
        return _Meaning(
            code="objectsRefused",
            wrong="refuses our credentials",
            hint="check objects_access_key and objects_secret_key (RUNSTREAM_OBJECTS_ACCESS_KEY, "
            "RUNSTREAM_OBJECTS_SECRET_KEY, or AWS's own variables), and that they may list, read, write and delete "
            f"objects of {location.bucket}",
        )
    if answer.code in _ELSEWHERE:
        return _Meaning(
            code="objectsElsewhere",
            wrong="is in another region",
            hint="name the bucket's region in --objects-url: ?region=REGION",
        )
    if answer.code in _CLOCK:
        return _Meaning(code="objectsClock", wrong="has another time than this machine", hint="set the clocks by NTP")
    if answer.code:
        return _Meaning(
            code="objectsFailed",
            wrong="answers with an error",
            hint="its own records say more; `runstream doctor` tries it again",
        )
    return _Meaning(
        code="objectsUnreachable",
        wrong="cannot be reached",
        hint="check the endpoint in --objects-url, and whether it speaks TLS (?tls=off, or ?ca=FILE for its "
        "certificate)",
    )

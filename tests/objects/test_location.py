"""Which bucket a URL names, and which URLs are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from runstream.errors import BadRequestError
from runstream.objects.s3_location import S3Location, parse_location
from runstream.service.configuration import load_settings


@pytest.mark.parametrize(
    ("url", "location", "host"),
    [
        ("s3://bucket", S3Location("bucket"), "https://bucket.s3.eu-west-1.amazonaws.com"),
        (
            "s3://bucket/a//b/?style=path&region=eu-north-1",
            S3Location("bucket", "a/b/", region="eu-north-1", style="path"),
            "https://s3.eu-west-1.amazonaws.com",
        ),
        (
            "s3://bucket/?endpoint=minio:9000",
            S3Location("bucket", endpoint="minio:9000", style="path"),
            "https://minio:9000",
        ),
        (
            "s3://bucket/?endpoint=minio:9000&tls=OFF&style=virtual",
            S3Location("bucket", endpoint="minio:9000", style="virtual", tls=False),
            "http://bucket.minio:9000",
        ),
        (
            "s3://a.bucket/p%20q?endpoint=http://[::1]:9000/",
            S3Location("a.bucket", "p q/", endpoint="[::1]:9000", style="path", tls=False),
            "http://[::1]:9000",
        ),
        (
            "s3://bucket?endpoint=https%3A%2F%2Fs3.example.com&ca=/etc/ca.pem",
            S3Location("bucket", endpoint="s3.example.com", style="path", ca=Path("/etc/ca.pem")),
            "https://s3.example.com",
        ),
    ],
)
def test_what_a_url_says(url: str, location: S3Location, host: str) -> None:
    assert parse_location(url) == location
    assert parse_location(url).url("eu-west-1") == host


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://bucket", "does not begin with s3://"),
        ("s3://", "is not the name of a bucket"),
        ("s3://Bucket", "is not the name of a bucket"),
        ("s3://bu", "is not the name of a bucket"),
        ("s3://key:very-secret@bucket", "credentials do not belong in it"),
        ("s3://bucket/a/../b", "cannot be the path of an object"),
        ("s3://bucket?secret_key=very-secret", "it knows the options endpoint, region, style, tls, ca, each once"),
        ("s3://bucket?tls=on&tls=off", "each once"),
        ("s3://bucket?very-secret", "it knows the options"),
        ("s3://bucket?endpoint=ftp://minio", "neither HOST[:PORT] nor a URL"),
        ("s3://bucket?endpoint=user:very-secret@minio", "its endpoint is not HOST[:PORT]"),
        ("s3://bucket?endpoint=minio:9000/path", "its endpoint is not HOST[:PORT]"),
        ("s3://bucket?endpoint=https://minio&tls=off", "its endpoint begins with https://, its option tls is off"),
        ("s3://bucket?tls=maybe", "its option tls is neither on nor off"),
        ("s3://bucket?style=flat", "its option style is neither path nor virtual"),
        ("s3://bucket?region=a%20b", "its option region is not valid"),
        ("s3://[bucket", "it cannot be read"),
    ],
)
def test_a_url_that_is_refused(url: str, problem: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        parse_location(url)
    assert problem in raised.value.message
    assert raised.value.code == "invalidObjectsURL"
    assert "very-secret" not in raised.value.message


def test_the_settings_of_a_bucket() -> None:
    environment = {
        "RUNSTREAM_OBJECTS_URL": "s3://bucket",
        "RUNSTREAM_OBJECTS_ACCESS_KEY": "access",
        "RUNSTREAM_OBJECTS_SECRET_KEY": "very-secret",
    }
    settings = load_settings({}, environment, None)
    assert (settings.objects_url, settings.objects_secret_key) == ("s3://bucket", "very-secret")
    assert "very-secret" not in repr(settings)


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"RUNSTREAM_OBJECTS_URL": "s3://b"}, "RUNSTREAM_OBJECTS_URL: the URL of the object storage is not valid"),
        (
            {"RUNSTREAM_OBJECTS_URL": "s3://bucket", "RUNSTREAM_OBJECTS_DIR": "/x"},
            "objects_dir and objects_url are both given",
        ),
        ({"RUNSTREAM_OBJECTS_SECRET_KEY": "very-secret"}, "are given together, or neither of them"),
    ],
)
def test_settings_that_contradict_each_other(environment: dict[str, str], problem: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        load_settings({}, environment, None)
    assert problem in raised.value.message
    assert "very-secret" not in raised.value.message

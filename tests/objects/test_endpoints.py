"""How a bucket is reached: by TLS with a certificate of one's own, and by the bucket's own host name."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from runstream.errors import BadRequestError, InternalError
from runstream.objects import BytesSource
from runstream.objects.s3_location import parse_location
from tests.objects.backends import open_at
from tests.objects.certificates import issued
from tests.objects.faulty import faulty
from tests.objects.reading import content, paths


async def test_tls_with_a_certificate_of_ones_own(s3_url: str, namespace: str, tmp_path: Path) -> None:
    context, trusted = issued(tmp_path)
    async with faulty(s3_url, context) as proxy:
        url = f"s3://{namespace}?endpoint={proxy.url}"
        with pytest.raises(InternalError, match="cannot be reached: its certificate is not trusted") as raised:
            await open_at(parse_location(url))
        assert "?ca=FILE" in raised.value.hint
        storage = await open_at(parse_location(f"{url}&ca={trusted}"))
        await storage.write("a", BytesSource(b"x"))
        assert await content(storage, "a") == b"x"
        with pytest.raises(InternalError, match="cannot be reached"):
            await open_at(parse_location(f"s3://{namespace}?endpoint={urlsplit(proxy.url).netloc}&tls=off"))


async def test_a_file_without_certificates(namespace: str, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(BadRequestError, match=f"{name} has no certificates that can be trusted"):
            await open_at(parse_location(f"s3://{namespace}?endpoint=127.0.0.1:1&ca={tmp_path / name}"))


async def test_a_bucket_in_the_hosts_name(s3_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The names of buckets are not known here, so requests for all hosts go to the server as to a proxy.
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    async with faulty(s3_url) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        storage = await open_at(parse_location(f"s3://{namespace}/p?endpoint=s3.amazonaws.com&tls=off&style=virtual"))
        await storage.write("a/b", BytesSource(b"x"))
        assert await content(storage, "a/b") == b"x"
        assert await paths(storage) == ["a/b"]
        hosts = {request.target.partition("//")[2].partition("/")[0] for request in proxy.requests}
        assert hosts == {f"{namespace}.s3.amazonaws.com"}
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    direct = await open_at(parse_location(f"s3://{namespace}/p?endpoint={s3_url}"))
    assert await paths(direct) == ["a/b"]

"""Which places a service fetches from, and at which address."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.errors import BadRequestError
from runstream.git.sources import AllowedSources, SourceAddress, find_source, parse_source

PUBLIC = "203.0.114.7"


def resolving(*addresses: str):  # type: ignore[no-untyped-def]
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        if not addresses:
            raise OSError("no such host")
        return addresses

    return resolve


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "scheme", "shown", "host", "port"),
    [
        ("https://h.example/a/b.git", "https", "https://h.example/a/b.git", "h.example", 443),
        ("https://me:secret@h.example:8443/a", "https", "https://me@h.example:8443/a", "h.example", 8443),
        ("HTTPS://H.example/a b", "https", "https://H.example/a%20b", "H.example", 443),
        ("https://h.example/a%2Fb", "https", "https://h.example/a%2Fb", "h.example", 443),
        ("http://[::1]:8080/a", "http", "http://[::1]:8080/a", "[::1]", 8080),
        ("https://ghp_0123456789abcdef@h.example/a", "https", "https://h.example/a", "h.example", 443),
        ("ssh://git@h.example:22/~me/a.git", "ssh", "ssh://git@h.example:22/~me/a.git", "h.example", 22),
        ("git@h.example:a/b.git", "ssh", "git@h.example:a/b.git", "h.example", 22),
        ("h.example:/srv/b.git", "ssh", "h.example:/srv/b.git", "h.example", 22),
        ("/srv/my repo", "file", "/srv/my repo", "", 0),
        ("file:///srv/my%20repo", "file", "/srv/my repo", "", 0),
        ("file://localhost/srv/r", "file", "/srv/r", "", 0),
    ],
)
def test_a_repository_is_named_by_url_address_or_path(url: str, scheme: str, shown: str, host: str, port: int) -> None:
    assert parse_source(url) == SourceAddress(scheme, shown, host, port)


@pytest.mark.parametrize(
    "url",
    [
        *("", "-", "--upload-pack=touch x", "-u:x", "ext::sh -c touch% x", "fd::17", "a/b", "../x", "~/x", "h.example"),
        *("git://h.example/a", "ftp://h.example/a", "foo::https://h.example/a", "file://h.example/a", "https:///a"),
        *("https://-oProxyCommand=x/a", "ssh://-oProxyCommand=x/a", "-oProxyCommand=x:a", "ssh://-u@h/a", "-u@h:a"),
        *("https://good.example\\@evil.example/a", "https://h.example:port/a", "https://h .example/a", "h:-x", "h/x:y"),
        *(
            "https://h.example/a\nb",
            "https://h\x00.example/",
            "https://[h]/a",
            "https://h.example:99999/a",
            "ssh://h;x/a",
        ),
        *("https://a@b@h;x/a", "git@h.example;touch x:a", "https://%68.example/a"),
    ],
)
def test_options_helpers_and_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        parse_source(url)
    assert refused.value.code == "invalidRepositoryURL"


@given(st.text(max_size=40) | st.text(alphabet="htps:/@[].-aé%\\\n ", max_size=30).map(lambda text: "https://" + text))
def test_any_text_is_a_place_or_refused(text: str) -> None:
    try:
        found = parse_source(text)
    except BadRequestError:
        return
    assert not found.url.startswith("-")
    if found.scheme != "file":
        assert parse_source(found.url).host == found.host


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.10", "0.0.0.0", "0.1.2.3", "169.254.169.254", "100.100.100.200", "168.63.129.16"),  # noqa: S104
        *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00:ec2::254", "::ffff:169.254.169.254"),
        *("::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "ff02::1", "192.0.0.192"),
    ],
)
async def test_addresses_of_the_machine_and_of_metadata_are_refused(address: str) -> None:
    for resolved in ((address,), (PUBLIC, address)):
        with pytest.raises(BadRequestError, match=r"does not fetch from h\.example") as refused:
            await find_source("https://h.example/a", AllowedSources(), resolving(*resolved))
        assert refused.value.code == "sourceNotAllowed"
    written = f"[{address}]" if ":" in address else address
    for url in (f"https://{written}/a", f"ssh://{written}/a"):
        with pytest.raises(BadRequestError):
            await find_source(url, AllowedSources(), resolving(PUBLIC))


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "localhost", "LOCALHOST", "localhost."])
async def test_other_spellings_of_this_machine_are_refused(host: str) -> None:
    with pytest.raises(BadRequestError):
        await find_source(f"https://{host}/a", AllowedSources())


@pytest.mark.parametrize("address", [PUBLIC, "10.1.2.3", "192.168.0.5", "2606:4700::1111", "64:ff9b::cb00:7107"])
async def test_a_host_is_pinned_to_an_address_of_the_world_or_of_the_company(address: str) -> None:
    for url in ("https://h.example/a", "git@h.example:a"):
        assert (await find_source(url, AllowedSources(), resolving(address))).address == address


async def test_a_network_and_a_scheme_can_be_allowed() -> None:
    allowed = AllowedSources(frozenset({"http"}), networks=(ip_network("127.0.0.0/8"),))
    assert (await find_source("http://127.0.0.1:1/a", allowed)).address == "127.0.0.1"
    with pytest.raises(BadRequestError, match="the scheme https"):
        await find_source("https://h.example/a", allowed, resolving(PUBLIC))
    with pytest.raises(BadRequestError, match="the scheme http"):
        await find_source("http://h.example/a", AllowedSources(), resolving(PUBLIC))


async def test_a_name_that_only_a_proxy_knows_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadRequestError, match=r"h\.example is not found: no such host"):
        await find_source("https://h.example/a", AllowedSources(), resolving())
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert (await find_source("https://h.example/a", AllowedSources(), resolving())).address == ""
    with pytest.raises(BadRequestError):
        await find_source("https://h.example/a", AllowedSources(), resolving("127.0.0.1"))
    with pytest.raises(BadRequestError):
        await find_source("git@h.example:a", AllowedSources(), resolving())


async def test_a_path_is_allowed_below_a_folder_of_the_admin_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "closed").mkdir()
    (tmp_path / "open" / "link").symlink_to(tmp_path / "closed")
    allowed = AllowedSources(folders=(tmp_path / "open",))
    assert (await find_source(f"{tmp_path}/open/./r", allowed)).url == f"{tmp_path}/open/r"
    assert (await find_source(f"file://{tmp_path}/open/r", allowed)).scheme == "file"
    for path in ("closed", "open/../closed/r", "open/link/r", "opened"):
        for url in (f"{tmp_path}/{path}", f"file://{tmp_path}/{path}"):
            with pytest.raises(BadRequestError, match="does not fetch from the path"):
                await find_source(url, allowed)
    with pytest.raises(BadRequestError):
        await find_source(f"{tmp_path}/open/r", AllowedSources())

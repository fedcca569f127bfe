"""Where a service may fetch from: schemes, hosts and folders; and the address of a host, at which git then connects.

A URL comes from a user, and git runs inside the network of the service. So a URL is taken apart and put together again
(git and this check see the same host), its host is resolved once, and git gets that address: a name that is another
address for git than for the check gains nothing. Redirects are not followed. Where the machine has a proxy, that may
know names that the machine does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote, unquote, urlsplit

from runstream.errors import BadRequestError
from runstream.names import name_problem
from runstream.repository_urls import DEFAULT_PORTS, split_url

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Return the addresses of a host. Raises OSError."""

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]+\]")
_USER = re.compile(r"[A-Za-z0-9_.~+%][A-Za-z0-9_.~+%-]*")
_SCP_LIKE = re.compile(r"(?:([^@/:\s]+)@)?(\[[^\]\s]+\]|[^/:\s@]+):(?!//)(.+)")
_RESOLVE_SECONDS = 10.0
_METADATA = tuple(
    map(
        ip_network,
        ("100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::/32", "fd20:ce::/32"),
    )
)
"""Services of clouds that give a machine its own credentials, at addresses that are not link-local."""
_PROXIES = {
    "http": ("http_proxy", "all_proxy", "ALL_PROXY"),
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
}
"""The variables that curl reads."""
_NAT64 = ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AllowedSources:
    """What the admin allows as the source of a repository."""

    schemes: frozenset[str] = frozenset({"https", "ssh"})
    """Of `https`, `ssh` and `http`, which sends passwords in plaintext."""
    folders: tuple[Path, ...] = ()
    """Folders of the service's machine whose repositories may be fetched, by path or `file://` URL."""
    networks: tuple[Network, ...] = ()
    """Networks that are allowed although they are loopback, link-local or otherwise special."""


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """A place to fetch from, as git gets it."""

    scheme: str
    """`https`, `http`, `ssh` or `file`."""
    url: str
    """Without a password; of a file, its path."""
    host: str = ""
    port: int = 0
    address: str = ""
    """Where git connects; empty for a file, and for a name that only a proxy knows."""


DEFAULT_SOURCES = AllowedSources()


def parse_source(url: str) -> SourceAddress:
    """Read a URL, an scp-like address (`git@host:path`) or an absolute path; passwords are dropped.

    Raises BadRequestError for anything else, such as an option or a transport helper of git.
    """
    if not url or url.startswith("-") or (problem := name_problem(url)):
        raise _invalid(url, problem if url and not url.startswith("-") else "it is empty or an option of git")
    if url.startswith("/"):
        return SourceAddress("file", url)
    scheme, separator, rest = url.partition("://")
    if separator:
        return _of_url(url, scheme.lower(), rest)
    if "::" in url.partition("/")[0] or (scp_like := _SCP_LIKE.fullmatch(url)) is None:
        raise _invalid(url, "it is neither a URL, nor user@host:path, nor an absolute path")
    user, host, path = scp_like[1] or "", scp_like[2], scp_like[3]
    if not _HOST.fullmatch(host) or (user and not _USER.fullmatch(user)) or path.startswith("-"):
        raise _invalid(url, "its user, host or path has other characters than such names have")
    return SourceAddress("ssh", f"{user}@{host}:{path}" if user else f"{host}:{path}", host, DEFAULT_PORTS["ssh"])


def _of_url(url: str, scheme: str, rest: str) -> SourceAddress:
    if scheme == "file":
        host, _, path = rest.partition("/")
        if host not in ("", "localhost"):
            raise _invalid(url, "a file URL names no other host")
        return SourceAddress("file", unquote(f"/{path.lstrip('/')}"))
    if scheme not in DEFAULT_PORTS:
        raise _invalid(url, f"its scheme {scheme[:20]!r} is not one of https, ssh, http and file")
    try:
        parts = urlsplit(split_url(url).shown)
        port = parts.port
    except ValueError as error:
        raise _invalid(url, str(error)) from error
    user, _, host_port = parts.netloc.rpartition("@")
    host = host_port if host_port.endswith("]") else host_port.rpartition(":")[0] or host_port
    user = user.partition(":")[0]
    if not _HOST.fullmatch(host) or (user and not _USER.fullmatch(user)) or "\\" in url:
        raise _invalid(url, "its user or host has other characters than such names have")
    netloc = "".join((f"{user}@" if user else "", host, f":{port}" if port is not None else ""))
    query = f"?{parts.query}" if parts.query else ""
    path = quote(parts.path, safe="/%~:@!$&'()*+,;=") if scheme != "ssh" else parts.path
    return SourceAddress(scheme, f"{scheme}://{netloc}{path}{query}", host, port or DEFAULT_PORTS[scheme])


def allowed_source(url: str, allowed: AllowedSources) -> SourceAddress:
    """Return the place that a URL names, as far as it is known without its host's address, which is not looked up.

    Raises BadRequestError for a place that is not allowed.
    """
    source = parse_source(url)
    if source.scheme == "file":
        return _file(source, allowed)
    if source.scheme not in allowed.schemes:
        raise _not_allowed(
            f"the scheme {source.scheme} of {source.url}", f"use one of {', '.join(sorted(allowed.schemes))}"
        )
    literal = _literal(source.host)
    return source if literal is None else _at(source, [literal], allowed)


async def find_source(url: str, allowed: AllowedSources, resolve: Resolve | None = None) -> SourceAddress:
    """Return where git may fetch a URL from. Raises BadRequestError for a place that is not allowed or not found."""
    source = allowed_source(url, allowed)
    if source.scheme == "file" or source.address:
        return source
    try:
        addresses = await _resolved(source, resolve or resolve_host)
    except BadRequestError:
        if not _is_proxied(source.scheme):
            raise
        return source  # only the proxy knows this name
    return _at(source, addresses, allowed)


def _at(source: SourceAddress, addresses: Sequence[Address], allowed: AllowedSources) -> SourceAddress:
    for address in addresses:
        if _is_special(address) and not any(address in network for network in allowed.networks):
            raise _not_allowed(f"{source.host} ({address})", "it is an address of this machine or network alone")
    return replace(source, address=str(addresses[0]))


def require_allowed_path(url: str, allowed: AllowedSources) -> None:
    """Raise BadRequestError for a path, or a `file` URL, of no allowed folder; other URLs pass."""
    if url.startswith("/") or url[:5].lower() == "file:":
        source = parse_source(url)
        if url.startswith(("/", "file:///")):  # an executor reads a host as the beginning of the path
            _file(source, allowed)
        else:
            raise _invalid(url, "the URL of a folder begins with file:///")


def _file(source: SourceAddress, allowed: AllowedSources) -> SourceAddress:
    path = Path(source.url).resolve()
    if not any(path.is_relative_to(folder.resolve()) for folder in allowed.folders):
        raise _not_allowed(
            f"the path {source.url}",
            "the admin of the service allows folders (git_folders); or use a URL of a server; "
            "`runstream directrun start` pushes your own working tree",
        )
    return SourceAddress("file", str(path))


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, as the system finds them. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def _resolved(source: SourceAddress, resolve: Resolve) -> list[Address]:
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await resolve(source.host, source.port)
            return [ip_address(address.partition("%")[0]) for address in found]
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        raise BadRequestError(
            f"the host {source.host} is not found: {error}", code="hostDoesNotExist", hint="check the URL"
        ) from error


def _literal(host: str) -> Address | None:
    """Return the address that a host is, also in the forms that `inet_aton` takes: 2130706433, 0x7f.1, 127.1."""
    with contextlib.suppress(ValueError):
        return ip_address(host.strip("[]"))
    with contextlib.suppress(OSError):
        return IPv4Address(socket.inet_aton(host))
    return None


def _is_special(address: Address) -> bool:
    """Return whether an address leads to this machine, its neighbours on the link, or a service of its cloud."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and _is_special(inner):
            return True
        if address.is_site_local:
            return True
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (address.is_reserved and address not in _NAT64)
        or any(address in network for network in _METADATA)
        or (isinstance(address, IPv4Address) and address in IPv4Network("0.0.0.0/8"))
    )


def _is_proxied(scheme: str) -> bool:
    """Return whether the machine has a proxy that git uses for this scheme."""
    return scheme != "ssh" and any(os.environ.get(name) for name in _PROXIES.get(scheme, ()))


def _invalid(url: str, problem: str) -> BadRequestError:
    return BadRequestError(
        f"{split_url(url).shown[:200]!r} is not the URL of a repository: {problem}",
        code="invalidRepositoryURL",
        hint="such as https://git.example/team/app.git or git@git.example:team/app.git",
    )


def _not_allowed(what: str, hint: str) -> BadRequestError:
    return BadRequestError(f"this service does not fetch from {what[:300]}", code="sourceNotAllowed", hint=hint)

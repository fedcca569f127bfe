"""How git logs in at a server: a password through a helper, or a key through ssh.

Neither is an argument of a process, which all users of the machine can read.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

from runstream.errors import BadRequestError
from runstream.git.command import Git

_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]*")
_PORT = re.compile(r"[0-9]{0,5}")
_HELPER = (
    '!f() { test "$1" = get || exit 0; test -z "$RUNSTREAM_GIT_USERNAME" || echo "username=$RUNSTREAM_GIT_USERNAME"; '
    'echo "password=$RUNSTREAM_GIT_PASSWORD"; }; f'
)


def with_password(git: Git, url: str, username: str, password: str) -> Git:
    """Return git that logs in at the host of an http(s) URL with this password, and at no other host.

    Raises BadRequestError for a user or password of several lines, which would be more than one answer to git.
    """
    if any(character in username + password for character in "\n\r\0"):
        raise BadRequestError("a user or password of git has a line break", code="invalidCredentials")
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    place = f"credential.{parts.scheme}://{host}.helper"
    git = git.given({"RUNSTREAM_GIT_USERNAME": username, "RUNSTREAM_GIT_PASSWORD": password}, {"credential.helper": ""})
    return git.given(config={place: _HELPER})


def with_ssh(git: Git, config: Path) -> Git:
    """Return git whose ssh has this configuration, and no other."""
    return git.given({"GIT_SSH_COMMAND": f"ssh -F {shlex.quote(str(config))}", "GIT_SSH_VARIANT": "ssh"})


def ssh_config(
    *,
    key_file: str,
    known_hosts_file: str,
    check_host: bool,
    host: str = "",
    port: str = "",
    address: str = "",
) -> str:
    """Return the configuration of ssh that logs in with one key, and never asks; with `address`, ssh connects there.

    Raises BadRequestError for what is no host or port.
    """
    if not _HOST.fullmatch(host) or not _PORT.fullmatch(port):
        raise BadRequestError(f"the host {host[:80]!r} and port {port[:20]!r} are not valid", code="invalidHost")
    known_as = f"[{host}]:{port}" if port not in ("", "22") else host
    lines = [
        f"Host {host or '*'}",
        *([f"  HostName {address or host}"] if host else []),
        *([f"  HostKeyAlias {known_as}"] if address else []),
        *([f"  Port {port}"] if port else []),
        f'  IdentityFile "{key_file}"',
        "  IdentitiesOnly yes",
        f'  UserKnownHostsFile "{known_hosts_file}"',
        f"  StrictHostKeyChecking {'yes' if check_host else 'no'}",
        "  PasswordAuthentication no",
        "  BatchMode yes",
        "  IgnoreUnknown PubkeyAcceptedAlgorithms,PubkeyAcceptedKeyTypes",
        "  PubkeyAcceptedAlgorithms +ssh-rsa",
        "  PubkeyAcceptedKeyTypes +ssh-rsa",
    ]
    return "\n".join(lines) + "\n"


def ended_lines(text: str) -> str:
    """Return the text with line ends as ssh needs them: it reads no private key with CR LF."""
    text = text.replace("\r\n", "\n")
    return text if not text or text.endswith("\n") else text + "\n"

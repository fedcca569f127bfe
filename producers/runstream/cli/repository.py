"""Which commit of which repository a run is about, found with git; nothing is fetched or changed."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from runstream.errors import BadRequestError, NotExistError

GIT_SECONDS = 30
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|[^/]+@[^/]+:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """A commit, and how it is reached."""

    url: str
    """A URL, or an absolute path."""
    branch: str
    tag: str
    ref: str
    """The full ref, when it is neither branch nor tag; exactly one of the three is given, or none."""
    commit: str
    message: str

    @property
    def project(self) -> str:
        """The repository's name, as a part of a group."""
        last = re.split(r"[/:]", self.url.rstrip("/").removesuffix(".git"))[-1]
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", last).strip("-.") or "repository"


NO_SOURCE = Source("", "", "", "", "", "")
"""Of a run that has no sources."""


def find_source(repository: str, ref: str) -> Source:
    """The commit that a ref (empty: the default) of a path or URL names. Raises BadRequestError, NotExistError."""
    if repository.startswith("-") or ref.startswith("-"):
        raise BadRequestError(f"{repository or ref!r} begins with '-'", code="invalidRepository")
    if _URL.match(repository) and not Path(repository).exists():
        return _remote(repository, ref)
    path = Path(repository).expanduser().resolve()
    if not path.is_dir():
        raise NotExistError(
            f"there is no repository at {path}", code="repositoryDoesNotExist", hint="--repo takes a path or a URL"
        )
    return _local(path, ref)


def enclosing_source(path: Path) -> Source | None:
    """The commit that is checked out where `path` is; None where that is no repository, or an empty one."""
    try:
        return _local(path.resolve().parent, "")
    except (BadRequestError, NotExistError):
        return None  # a configuration file need not be in a repository


def _local(path: Path, ref: str) -> Source:
    where, wanted = ("-C", str(path)), ref or "HEAD"
    bare = _git(*where, "rev-parse", "--absolute-git-dir", what=str(path))
    root = _git(*where, "rev-parse", "--show-toplevel", what=str(path), default=bare)
    commit = _git(*where, "rev-parse", "--verify", f"{wanted}^{{commit}}", what=f"{wanted} of {path}")
    name = _git(*where, "rev-parse", "--symbolic-full-name", wanted, what=wanted, default="")
    message = _git(*where, "log", "-1", "--format=%s", commit, what=wanted)
    return _source(root, "" if name == "HEAD" else name, commit, message)


def _remote(url: str, ref: str) -> Source:
    listed = _git("ls-remote", "--symref", "--", url, ref or "HEAD", what=f"{url} {ref}".strip())
    commit = name = ""
    for line in listed.splitlines():
        left, _, right = line.partition("\t")
        if left.startswith("ref: "):
            name = left.removeprefix("ref: ")
        elif not commit or right.startswith("refs/heads/"):
            commit, name = left, name if right == "HEAD" else right
    if not commit and re.fullmatch(r"[0-9a-f]{40}", ref):
        return _source(url, "", ref, ref)
    if not commit:
        raise NotExistError(
            f"{url} has no ref {ref or 'HEAD'}", code="refDoesNotExist", hint="--ref takes a branch, tag, ref or commit"
        )
    return _source(url, name, commit, ref or name)


def _source(url: str, name: str, commit: str, message: str) -> Source:
    branch = name.removeprefix("refs/heads/") if name.startswith("refs/heads/") else ""
    tag = name.removeprefix("refs/tags/") if name.startswith("refs/tags/") else ""
    return Source(url, branch, tag, name if name and not branch and not tag else "", commit, message)


def _git(*arguments: str, what: str, default: str | None = None) -> str:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_SECONDS,
            env=environment,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise BadRequestError("git is not installed", code="gitMissing", hint="install git") from error
    except subprocess.TimeoutExpired as error:
        raise BadRequestError(
            f"git did not answer about {what} within {GIT_SECONDS} s", code="gitTimeout", hint="check the URL"
        ) from error
    if done.returncode == 0:
        return done.stdout.strip()
    if default is not None:
        return default
    reason = (done.stderr.strip().splitlines() or ["there is no such commit"])[-1].removeprefix("fatal: ")
    raise NotExistError(
        f"git finds nothing at {what}: {reason}",
        code="refDoesNotExist",
        hint="--repo takes a path or a URL, --ref a branch, tag, ref or commit",
    )

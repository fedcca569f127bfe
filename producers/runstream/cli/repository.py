"""The commit of a run: found with git, in a local or remote repository, without changing either."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runstream.errors import BadRequestError, NotExistError
from runstream.repository_urls import RepositoryURL, split_url

if TYPE_CHECKING:
    from runstream.git.command import GitOutput

GIT_SECONDS = 30
MAX_NAMED = 5
"""Maximum number of changed files that are named."""
_OBJECT_ID = re.compile("[0-9a-f]{40}", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|[^/]+@[^/]+:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RepositoryCommit:
    """A commit, and where it comes from."""

    url: str
    """A URL, or an absolute path."""
    branch: str
    tag: str
    ref: str
    """The full ref, when it is neither branch nor tag; at most one of the three is set."""
    commit: str
    message: str
    """The whole message of the commit."""
    changed: tuple[str, ...] = ()
    """Files of the work tree that differ from the commit; empty when the commit is not checked out."""

    @property
    def project(self) -> str:
        """The repository's name as a part of a group."""
        last = re.split(r"[/:]", self.url.rstrip("/").removesuffix(".git"))[-1]
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", last).strip("-.") or "repository"


NO_COMMIT = RepositoryCommit("", "", "", "", "", "")
"""For a run without sources."""


def find_commit(repository: str, ref: str) -> RepositoryCommit:
    """Return the commit of a ref (empty: the default) in a repository, a path or URL.

    Raises BadRequestError for a name of both a branch and a tag, NotExistError for an unknown repository or ref.
    """
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


def enclosing_commit(path: Path) -> RepositoryCommit | None:
    """Return the commit that is checked out around a file; None without a repository or a commit.

    Raises NotExistError, with git's reason, when git refuses to read the repository.
    """
    folder = path.resolve().parent
    if repository_top(folder) is None and not (
        any(map(_is_git_directory, (folder, *folder.parents))) and _succeeds(folder, "rev-parse", "--git-dir")
    ):
        return None
    where = ("-C", str(folder))
    _git(*where, "rev-parse", "--git-dir", what=str(folder))
    if not _succeeds(folder, "rev-parse", "--verify", "HEAD^{commit}"):
        return None
    return _local(folder, "")


def repository_top(folder: Path) -> Path | None:
    """Return the nearest folder with a `.git`, this one or one above it."""
    return next((one for one in (folder, *folder.parents) if (one / ".git").exists()), None)


def _is_git_directory(folder: Path) -> bool:
    """Return whether a folder looks like a bare repository, or like what `.git` is in others."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


def _local(path: Path, ref: str) -> RepositoryCommit:
    where, wanted = ("-C", str(path)), ref or "HEAD"
    bare = _git(*where, "rev-parse", "--absolute-git-dir", what=str(path))
    root = _git(*where, "rev-parse", "--show-toplevel", what=str(path), default=bare)
    patterns = _full_names(wanted)
    listed = _git(*where, "for-each-ref", "--format=%(refname)", *patterns, what=wanted)
    name = _only(wanted, set(listed.splitlines()).intersection(patterns))
    commit = _git(*where, "rev-parse", "--verify", f"{name or wanted}^{{commit}}", what=f"{wanted} of {root}")
    name = name or _git(*where, "rev-parse", "--symbolic-full-name", wanted, what=wanted, default="")
    message = _git(*where, "log", "-1", "--format=%B", commit, what=wanted)
    changed = () if ref else _changed(Path(root))
    return _source(root, "" if name == "HEAD" else name, commit, message, changed)


def _changed(root: Path) -> tuple[str, ...]:
    """Return changed and new files, except the configuration, which is read from the work tree."""
    listed = _git("-C", str(root), "status", "--porcelain", "-z", "--no-renames", what=str(root), default="")
    names = (entry[3:] for entry in listed.split("\0") if entry)
    return tuple(name for name in names if not name.startswith((".runstream/", ".agola/")))


def _remote(url: str, ref: str) -> RepositoryCommit:
    wanted = _full_names(ref) if ref else ("HEAD",)
    patterns = [*wanted, *(f"{name}^{{}}" for name in wanted)]
    split = split_url(url)
    listed = _git(
        "ls-remote", "--symref", "--", split.shown, *patterns, what=f"{split.shown} {ref}".strip(), login=split
    )
    found: dict[str, str] = {}
    default = ""
    for line in listed.splitlines():
        left, _, right = line.partition("\t")
        if left.startswith("ref: "):
            default = left.removeprefix("ref: ")
        else:
            found[right] = left
    name = _only(ref, set(found).intersection(wanted)) if ref else "HEAD"  # a pattern matches the ends of refs, too
    listed_id = found.get(f"{name}^{{}}") or found.get(name, "")
    if not listed_id and _OBJECT_ID.fullmatch(ref):
        commit, message = _fetched_commit(url, ref.lower()) or (ref.lower(), "")
        return _source(url, "", commit, message or commit)
    if not listed_id:
        raise NotExistError(
            f"{split.shown} has no ref {ref or 'HEAD'}",
            code="refDoesNotExist",
            hint="--ref takes a branch, tag, ref or commit",
        )
    commit, message = _fetched_commit(url, name) or (listed_id, "")
    return _source(url, name if ref else default, commit, message)


def _fetched_commit(url: str, ref: str) -> tuple[str, str] | None:
    """Fetch the commit that a ref or object leads to, without its files; return its id and message.

    A tag leads to the commit that it names, through other tags, too. Returns None when the server refuses. Raises
    NotExistError when no commit is there.
    """
    with tempfile.TemporaryDirectory(prefix="runstream-") as folder:
        where = ("-C", folder)
        _git(*where, "init", "-q", "--bare", what=folder)
        options = ("-q", "--depth=1", "--filter=tree:0", "--no-tags")
        split = split_url(url)
        what = f"{split.shown} {ref}"
        fetched = _git(*where, "fetch", *options, "--", split.shown, ref, what=what, default="failed", login=split)
        if fetched == "failed":
            return None
        commit = _git(*where, "rev-parse", "--verify", "FETCH_HEAD^{commit}", what=what)
        return commit, _git(*where, "log", "-1", "--format=%B", commit, what=commit, default="")


def _full_names(ref: str) -> tuple[str, ...]:
    """Return the full refs that a name can mean."""
    return (ref,) if ref.startswith("refs/") else (f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{ref}")


def _only(ref: str, names: set[str]) -> str:
    """Return the only ref, or an empty one. Raises BadRequestError for several."""
    if len(names) > 1:
        both = " and ".join(sorted(names))
        raise BadRequestError(
            f"{ref} is ambiguous: {both}", code="refAmbiguous", hint=f"give the full ref: --ref {min(names)}"
        )
    return next(iter(names), "")


def _source(url: str, name: str, commit: str, message: str, changed: tuple[str, ...] = ()) -> RepositoryCommit:
    branch = name.removeprefix("refs/heads/") if name.startswith("refs/heads/") else ""
    tag = name.removeprefix("refs/tags/") if name.startswith("refs/tags/") else ""
    return RepositoryCommit(url, branch, tag, name if name and not branch and not tag else "", commit, message, changed)


def _succeeds(folder: Path, *arguments: str) -> bool:
    return _run("-C", str(folder), *arguments, what=str(folder)).status == 0


def _git(*arguments: str, what: str, default: str | None = None, login: RepositoryURL | None = None) -> str:
    done = _run(*arguments, what=what, login=login)
    if done.status == 0:
        return done.output.decode(errors="replace").strip("\n")
    if default is not None:
        return default
    raise _refused(what, done.errors)


def _run(*arguments: str, what: str, login: RepositoryURL | None = None) -> GitOutput:
    from runstream.git.command import GitLimits, timed_out, user_git  # imports an event loop: only where git is run
    from runstream.git.login import with_password

    git = user_git(GitLimits(seconds=GIT_SECONDS))
    if login is not None and login.is_secret:
        git = with_password(git, login.shown, login.token, login.password)
    try:
        return git.run_here(*arguments)
    except BadRequestError as error:
        if error.code == "gitTimeout":
            raise timed_out(what, GIT_SECONDS) from error
        raise


def _refused(what: str, stderr: str) -> NotExistError:
    """Return an error with git's reason, and with git's own hint if it has one."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    reason = next((line for line in lines if line.startswith("fatal: ")), lines[-1] if lines else "no such commit")
    if reason.endswith("Needed a single revision"):
        reason = "no branch, tag, ref or commit has this name"
    command = next((line for line in lines if line.startswith("git config ")), "")
    return NotExistError(
        f"git cannot find {what}: {reason.removeprefix('fatal: ')}",
        code="refDoesNotExist",
        hint=f"if you trust it: {command}"
        if command
        else "--repo takes a path or a URL, --ref a branch, tag, ref or commit",
    )

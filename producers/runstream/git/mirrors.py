"""Mirrors of the repositories of projects: bare, shallow, bounded, and gone when they are not used.

A project's runs begin with one commit of a repository elsewhere: which one a branch, a tag or another ref leads to, its
message, and its configuration. A mirror keeps what was fetched for that, so that the next fetch sends what is new. It
is a cache: losing it costs one fetch.

Commits never change. So the last ones are in memory, too, and a ref that still leads to one of them costs no fetch, but
only the question where it leads.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from cachetools import LRUCache

from runstream.counting import counted
from runstream.errors import BadRequestError, InternalError, NotExistError, RunstreamError, chain_lines
from runstream.git.bare import BareRepositories, folder_bytes, last_used, mark_used
from runstream.git.command import Git, GitError, GitLimits, GitOutput, service_git
from runstream.git.committed import CommittedConfig, committed_config, resolved_commit
from runstream.git.login import ended_lines, ssh_config, with_password, with_ssh
from runstream.git.sources import DEFAULT_SOURCES, AllowedSources, Resolve, SourceAddress, find_source
from runstream.ids import is_uuid

log = structlog.get_logger()

_FETCH = (
    *("fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"),
    *("--no-auto-maintenance", "--update-shallow", "--end-of-options"),
)
_ONE_COMMIT = "--depth=1"
_WHOLE_HISTORY = "--depth=2147483647"
_COMMIT = re.compile("[0-9a-f]{4,64}", re.IGNORECASE)
_WHOLE = (40, 64)
_REF = re.compile(r"refs(?:/(?![.])(?:(?!\.\.|@\{|\.lock(?:/|$))[^\x00-\x20\x7f~^:?*\[\\/])+(?<![.]))+")
_REF_LETTERS = 1024
_BLOCK_BYTES = 512
"""Precision of the kernel's limit on files, as a shell sets it."""
_SLOT_SECONDS = 60.0
_COMMIT_BYTES = 64 << 20
"""Size of the commits that are in memory, together."""
_COMMIT_OVERHEAD = 500
_MIRRORS = 10_000
_REF_FILE_BYTES = 200
_PACKED_REFS_BYTES = 16 << 20
"""Size of the part of packed refs that is searched for a ref."""


@dataclass(frozen=True, slots=True)
class GitSource:
    """A repository of another host, and how to log in there."""

    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    """Or a token; for http(s)."""
    private_key: str = field(default="", repr=False)
    """For ssh."""
    known_hosts: str = ""
    """Lines of a `known_hosts` file, for ssh."""
    check_host: bool = True
    """Whether ssh refuses a host that `known_hosts` does not have."""


@dataclass(frozen=True, slots=True)
class FetchedCommit:
    """A commit of another host's repository."""

    ref: str
    """The full ref."""
    commit: str
    message: str
    """The whole message, with the line end at its end."""
    config: CommittedConfig | None
    """Its configuration; None if it has none."""


@dataclass(frozen=True, slots=True)
class MirrorLimits:
    """Limits on the mirrors of a service."""

    seconds: float = 120.0
    """Maximum time of one fetch."""
    mirror_bytes: int = 1 << 30
    """Maximum size of one mirror."""
    total_bytes: int = 20 << 30
    """Size of all mirrors together that a cleaning leaves."""
    unused: timedelta = timedelta(days=30)
    """Time after which a cleaning removes a mirror that is not used."""
    fetches: int = 4
    """Maximum number of fetches at once."""


def _commit_bytes(commit: FetchedCommit) -> int:
    texts = [commit.message]
    if commit.config is not None:
        texts += [commit.config.content, *commit.config.imports.values()]
    return _COMMIT_OVERHEAD + sum(map(len, texts))


class Mirrors:
    """The mirrors below `root`."""

    def __init__(
        self,
        root: Path,
        allowed: AllowedSources = DEFAULT_SOURCES,
        limits: MirrorLimits = MirrorLimits(),
        resolve: Resolve | None = None,
    ) -> None:
        """Without `resolve`, hosts are found as the system finds them."""
        self.allowed = allowed
        self._limits = limits
        self._resolve = resolve
        self._git = service_git(root, limits=GitLimits(seconds=limits.seconds, file_bytes=limits.mirror_bytes))
        self._repositories = BareRepositories(root, self._git)
        self._slots = asyncio.Semaphore(limits.fetches)
        self._commits: LRUCache[tuple[str, str], FetchedCommit] = LRUCache(_COMMIT_BYTES, _commit_bytes)
        """The commits that were read last, by mirror and id."""
        self._remembering: LRUCache[str, None] = LRUCache(_MIRRORS)
        """The mirrors of these commits, and perhaps others."""

    async def fetch(self, project_id: str, source: GitSource, ref: str, commit: str = "") -> FetchedCommit:
        """Fetch the commit that a full ref leads to, or the given one (which may be the beginning of an id).

        The given commit need not be one of the ref's history, but the ref has to exist.

        Raises BadRequestError (invalidRepositoryURL, sourceNotAllowed, hostDoesNotExist, invalidRef, invalidCommit,
        fetchFailed, repositoryTooLarge, gitTimeout; of the configuration: configTooLarge, configUnreadable),
        NotExistError (refDoesNotExist, commitDoesNotExist), InternalError (gitBusy, repositoryBusy).
        """
        _check(project_id, ref, commit)
        address = await find_source(source.url, self.allowed, self._resolve)
        name = f"{project_id}-{hashlib.sha256(address.url.encode()).hexdigest()[:16]}"
        async with self._slot(), self._git_for(source, address) as git:
            if (found := await self._remembered(git, name, address, ref, commit)) is not None:
                return found
            for attempt in (1, 2):
                await self._repositories.create(name)
                async with self._repositories.exclusive(name, self._limits.seconds) as path:
                    known = await folder_bytes(path / "objects" / "pack") > 0
                    mark_used(path)
                    try:
                        found = await self._fetched(_Fetch(git, path, address.url), ref, commit)
                        self._remember(name, found)
                        return found
                    except _TooLargeError as error:
                        await self._repositories.remove(path)  # what is left is of no use to the next fetch
                        if not known or attempt == 2:
                            raise self._too_large(address.url) from error
        raise AssertionError

    async def _remembered(
        self, git: Git, name: str, address: SourceAddress, ref: str, commit: str
    ) -> FetchedCommit | None:
        """Return the commit that is wanted if it is in memory and the ref still exists; None if it has to be fetched.

        The other host is asked in any case, with the credentials of this request. Fetching says what is wrong.
        """
        wanted = commit.lower()
        if (name, wanted) not in self._commits if wanted else name not in self._remembering:
            return None
        head = await (_local_head if address.scheme == "file" else _remote_head)(git, address.url, ref)
        if head is None or (found := self._commits.get((name, wanted or head))) is None:
            return None
        with contextlib.suppress(FileNotFoundError):  # a cleaning has removed the mirror
            mark_used(self._repositories.path(name))
        return replace(found, ref=ref)

    def _remember(self, name: str, found: FetchedCommit) -> None:
        with contextlib.suppress(ValueError):  # it is larger than all that is kept
            self._commits[name, found.commit] = found
            self._remembering[name] = None

    async def _fetched(self, fetch: _Fetch, ref: str, commit: str) -> FetchedCommit:
        head = await fetch.ref(ref)
        chosen = await fetch.commit(ref, commit.lower()) if commit else head
        if await folder_bytes(fetch.path) > self._limits.mirror_bytes:
            raise _TooLargeError
        message = await fetch.git.ask("log", "-1", "--format=%B", "--end-of-options", chosen, folder=fetch.path)
        text = message.output.decode(errors="replace").removesuffix("\n")
        return FetchedCommit(ref, chosen, text, await committed_config(fetch.git, fetch.path, chosen))

    @asynccontextmanager
    async def _git_for(self, source: GitSource, address: SourceAddress) -> AsyncIterator[Git]:
        """Yield git that may use the scheme of the address, connects to it, and logs in there."""
        git = self._git.given({"GIT_ALLOW_PROTOCOL": address.scheme})
        if address.scheme in ("http", "https"):
            if address.address:
                place = f"{address.host}:{address.port}:{address.address}"
                git = git.given(config={"http.curloptResolve": place})
            if source.username or source.password:
                git = with_password(git, address.url, source.username, source.password)
        async with AsyncExitStack() as stack:
            if address.scheme == "ssh":
                folder = Path(
                    stack.enter_context(tempfile.TemporaryDirectory(prefix=".login-", dir=self._repositories.root))
                )
                git = with_ssh(git, await asyncio.to_thread(_write_ssh, folder, source, address))
            yield git

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_SLOT_SECONDS):
                await self._slots.acquire()
        except TimeoutError as error:
            raise InternalError(
                f"the service makes {self._limits.fetches} other fetches", code="gitBusy", hint="try again soon"
            ) from error
        try:
            yield
        finally:
            self._slots.release()

    def _too_large(self, url: str) -> BadRequestError:
        return BadRequestError(
            f"the repository {url} is larger than {counted(self._limits.mirror_bytes, 'byte')} at this commit",
            code="repositoryTooLarge",
            hint="keep large files out of it, as with Git LFS, or ask the admin for a higher limit",
        )

    async def clean(self, now: datetime) -> int:
        """Remove the mirrors that are not used any more, and the longest unused ones of too many; return how many.

        A mirror in use is left for the next time.
        """
        await self._repositories.sweep(now)
        root = self._repositories.root
        used = {name: last_used(self._repositories.path(name)) for name in self._repositories.names()}
        sizes = {name: await folder_bytes(root / f"{name}.git") for name in used}
        total, removed = sum(sizes.values()), 0
        for name in sorted(used, key=lambda name: used[name]):
            if now - used[name] < self._limits.unused and total <= self._limits.total_bytes:
                break
            try:
                async with self._repositories.exclusive(name, 0.001) as path:
                    await self._repositories.remove(path)
            except RunstreamError as error:
                log.info("a mirror is not removed", action="mirror_kept", mirror=name, errors=chain_lines(error))
                continue
            total -= sizes[name]
            removed += 1
        return removed


class _TooLargeError(Exception):
    """A mirror that has become too large."""


async def _local_head(git: Git, path: str, ref: str) -> str | None:
    """Return the commit that a ref of a folder's repository leads to.

    Starting a process takes tens of milliseconds in a large one on a busy machine. So a branch is read from the files
    of the repository, and git is asked only where they do not say it.
    """
    folder = Path(path)
    if not await asyncio.to_thread(folder.is_dir):
        return None
    if not ref.startswith("refs/tags/") and (found := await asyncio.to_thread(_ref_in_files, folder, ref)) is not None:
        return found
    # A repository above the folder is another one.
    here = git.given({"GIT_CEILING_DIRECTORIES": str(folder.parent)})
    return await resolved_commit(here, folder, ref)


def _ref_in_files(folder: Path, ref: str) -> str | None:
    """Return the id that a ref has in the files of a repository; None for a symbolic one, and where it is elsewhere."""
    repository = folder if (folder / "objects").is_dir() else folder / ".git"
    if (repository / "reftable").exists():
        return None
    with contextlib.suppress(OSError):
        with (repository / ref).open("rb") as file:
            text = file.read(_REF_FILE_BYTES).decode(errors="replace").strip()
        return text if len(text) in _WHOLE and _COMMIT.fullmatch(text) else None
    with contextlib.suppress(OSError):
        with (repository / "packed-refs").open("rb") as file:
            packed = file.read(_PACKED_REFS_BYTES)
        found = re.search(rb"^([0-9a-f]+) " + re.escape(ref.encode()) + rb"$", packed, re.MULTILINE)
        return found[1].decode() if found is not None and len(found[1]) in _WHOLE else None
    return None


async def _remote_head(git: Git, url: str, ref: str) -> str | None:
    """Return the commit, or another object, that a ref of a host leads to; None if the host does not say."""
    peeled = f"{ref}^{{}}"
    done = await git.run("ls-remote", "--quiet", "--end-of-options", url, ref, peeled)
    lines = (line.partition("\t") for line in done.output.decode(errors="replace").splitlines())
    heads = {name: commit for commit, _, name in lines}
    return None if done.status else heads.get(peeled, heads.get(ref))


@dataclass(frozen=True, slots=True)
class _Fetch:
    """Fetching from one URL into one mirror."""

    git: Git
    path: Path
    url: str

    async def ref(self, ref: str) -> str:
        """Fetch a ref; return the commit that it leads to."""
        kept = _kept(ref)
        done = await self._run(_ONE_COMMIT, f"+{ref}:{kept}")
        if "couldn't find remote ref" in done.errors:
            raise NotExistError(
                f"{self.url} has no ref {ref}", code="refDoesNotExist", hint="check the name of the branch, tag or ref"
            )
        self._require(done)
        if (found := await resolved_commit(self.git, self.path, kept)) is None:
            raise NotExistError(f"{ref} of {self.url} does not lead to a commit", code="refDoesNotExist")
        return found

    async def commit(self, ref: str, commit: str) -> str:
        """Fetch a commit, alone if the host gives it; return its whole id."""
        if len(commit) in _WHOLE:
            if (found := await resolved_commit(self.git, self.path, commit)) is None:
                await self._run(_ONE_COMMIT, f"+{commit}:{_kept(commit)}")
                found = await resolved_commit(self.git, self.path, commit)
            if found is not None:
                return found
        self._require(await self._run(_WHOLE_HISTORY, f"+{ref}:{_kept(ref)}"))
        if (found := await resolved_commit(self.git, self.path, commit)) is None:
            raise NotExistError(
                f"{self.url} has no commit {commit} at {ref}",
                code="commitDoesNotExist",
                hint="give its whole id, or a ref whose history has it",
            )
        return found

    async def _run(self, depth: str, refspec: str) -> GitOutput:
        *before, end = _FETCH
        done = await self.git.run(*before, depth, end, self.url, refspec, folder=self.path)
        if done.status and await folder_bytes(self.path) >= self.git.limits.file_bytes - _BLOCK_BYTES:
            raise _TooLargeError  # git only says that index-pack has ended, and leaves its unfinished pack
        return done

    def _require(self, done: GitOutput) -> None:
        if done.status:
            raise BadRequestError(
                f"git cannot fetch from {self.url}: {done.reason}",
                code="fetchFailed",
                hint="check the URL and the credentials; redirects are not followed",
            ) from GitError("fetch", done)


def _kept(name: str) -> str:
    """Return our ref for what was fetched; a hash, so that `a` and `a/b` can have one each."""
    return f"refs/runstream/{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def is_full_ref(text: str) -> bool:
    """Return whether a text is a full ref, such as `refs/heads/main`."""
    return len(text) <= _REF_LETTERS and _REF.fullmatch(text) is not None


def _check(project_id: str, ref: str, commit: str) -> None:
    if not is_uuid(project_id):
        raise BadRequestError(f"the id of a project is a UUID, not {project_id[:80]!r}", code="invalidId")
    if not is_full_ref(ref):
        raise BadRequestError(
            f"{ref[:200]!r} is not a full ref of git", code="invalidRef", hint="such as refs/heads/main or refs/tags/v1"
        )
    if commit and not _COMMIT.fullmatch(commit):
        raise BadRequestError(
            f"{commit[:80]!r} is not a commit", code="invalidCommit", hint="give 4 to 64 hexadecimal digits of its id"
        )


def _write_ssh(folder: Path, source: GitSource, address: SourceAddress) -> Path:
    """Write the key, the known hosts and the configuration of ssh; return the path of the configuration."""
    key, hosts, config = folder / "key", folder / "known_hosts", folder / "config"
    for file in (key, hosts, config):
        file.touch(0o600)
    key.write_text(ended_lines(source.private_key))
    hosts.write_text(ended_lines(source.known_hosts))
    config.write_text(
        ssh_config(
            key_file=str(key),
            known_hosts_file=str(hosts),
            check_host=source.check_host,
            host=address.host.strip("[]"),
            port=str(address.port),
            address=address.address,
        )
    )
    return config

"""The repositories that users push their working trees to: `<user id>/<repository uuid>`, served over smart HTTP.

Git does the work, in one process for each request (`--stateless-rpc`). What it takes is bounded: the size of a push and
of a repository, their number for each user, processes at once, time. A push is checked object by object in quarantine,
before any ref leads to it. A repository appears with the first push, and goes when its refs have expired.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import structlog

from runstream.counting import counted
from runstream.errors import BadRequestError, InternalError, NotExistError, RunstreamError, chain_lines
from runstream.git.bare import BareRepositories, drop_unfinished, folder_bytes, last_used, mark_used, missing
from runstream.git.command import NOTHING, Git, GitError, GitLimits, GitOutput, RunningGit, service_git, timed_out
from runstream.git.committed import CommittedConfig, committed_config, resolved_commit
from runstream.lifecycle import BackgroundTasks, StrictTaskGroup

log = structlog.get_logger()

_ID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_NAME = re.compile(f"({_ID})/({_ID})")
_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_PROTOCOL = re.compile(r"version=[12]")
_REPORT_BYTES = 1 << 20
_ERROR_LINE = 1000
_SLOT_SECONDS = 20.0
_PASSING = frozenset({"repositoryDoesNotExist", "repositoryBusy"})
"""Codes for a repository that was removed meanwhile, or is in use: it is cleaned another time."""
_REF_FORMAT = "%(objectname)%00%(refname)%00%(committerdate:unix)%00%(*committerdate:unix)"


class GitService(StrEnum):
    """What a client of a repository does, by the name that git gives it."""

    FETCH = "git-upload-pack"
    PUSH = "git-receive-pack"

    @property
    def command(self) -> str:
        """The command of git."""
        return self.value.removeprefix("git-")


@dataclass(frozen=True, slots=True)
class RepositoryName:
    """The name of a repository: the user that owns it, and the id of the user's clone."""

    user_id: str
    clone_id: str

    @classmethod
    def parse(cls, text: str) -> RepositoryName:
        """Read `<user id>/<repository uuid>`. Raises NotExistError for anything else."""
        if (found := _NAME.fullmatch(text)) is None:
            raise NotExistError(
                f"{text[:100]!r} is not the path of a repository",
                code="repositoryDoesNotExist",
                hint="it is <user id>/<repository uuid>, both UUIDs in small letters",
            )
        return cls(found[1], found[2])

    def __str__(self) -> str:
        return f"{self.user_id}/{self.clone_id}"


@dataclass(frozen=True, slots=True)
class GitServerLimits:
    """Limits on the repositories of users."""

    push_bytes: int = 512 << 20
    """Maximum size of one push."""
    request_bytes: int = 8 << 20
    """Maximum size of the request of a fetch."""
    repository_bytes: int = 2 << 30
    """Maximum size of one repository."""
    repositories: int = 1_000
    """Maximum number of repositories of one user."""
    processes: int = 8
    """Maximum number of requests that git works on at once."""
    seconds: float = 600.0
    """Maximum duration of one request."""
    lock_seconds: float = 20.0
    """Time for which a push waits for another one to the same repository."""


@dataclass(frozen=True, slots=True)
class CleanedRepositories:
    """Numbers of what a cleaning removed."""

    refs: int = 0
    repositories: int = 0


class GitServer:
    """The repositories below `root`."""

    def __init__(self, root: Path, limits: GitServerLimits = GitServerLimits()) -> None:
        self.limits = limits
        self._git = service_git(
            root, limits=GitLimits(seconds=limits.seconds, file_bytes=limits.repository_bytes, output_bytes=64 << 20)
        )
        self._repositories = BareRepositories(root, self._git)
        self._slots = asyncio.Semaphore(limits.processes)

    @property
    def git(self) -> Git:
        """How git is run in these repositories."""
        return self._git

    def path(self, name: RepositoryName) -> Path:
        """Return the folder of a repository. Raises NotExistError."""
        path = self._repositories.path(str(name))
        if not path.is_dir():
            raise missing(path)
        return path

    async def advertise(self, name: RepositoryName, service: GitService, protocol: str = "") -> bytes:
        """Return the refs that a fetch or push begins with. A push creates the repository.

        Raises NotExistError, BadRequestError (tooManyRepositories), InternalError (gitBusy).
        """
        if service is GitService.PUSH:
            await self._create(name)
        git = self._git.given(_protocol(service, protocol))
        async with self._slot():
            done = await git.ask(
                service.command, "--stateless-rpc", "--advertise-refs", str(self.path(name)), what=f"read {name}"
            )
        if service is GitService.FETCH and done.output.startswith(b"000eversion 2"):
            return done.output
        head = f"# service={service}\n"
        return f"{len(head) + 4:04x}{head}0000".encode() + done.output

    @asynccontextmanager
    async def fetch(
        self, name: RepositoryName, request: bytes, protocol: str = ""
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Answer a fetch: yield the parts of the response.

        Raises NotExistError, BadRequestError (gitFailed, gitTimeout), InternalError (gitBusy).
        """
        path = self.path(name)
        git = self._git.given(_protocol(GitService.FETCH, protocol))
        try:
            async with (
                self._slot(),
                asyncio.timeout(self.limits.seconds),
                git.running(GitService.FETCH.command, "--stateless-rpc", str(path)) as running,
                BackgroundTasks() as background,
            ):
                background.once(running.write_all(request))
                yield _parts(running)
        except TimeoutError as error:
            raise timed_out(f"a fetch of {name}", self.limits.seconds) from error

    async def push(self, name: RepositoryName, body: AsyncIterator[bytes]) -> bytes:
        """Take a push; return git's report, which says of each ref whether it was taken.

        Raises BadRequestError (repositoryFull, gitFailed, gitTimeout), InternalError (repositoryBusy, gitBusy), and
        what `body` raises; then nothing of the push stays.
        """
        await self._create(name)
        try:
            async with (
                asyncio.timeout(self.limits.seconds),
                self._repositories.exclusive(str(name), self.limits.lock_seconds) as path,
                self._slot(),
            ):
                return await self._take(name, path, body)
        except TimeoutError as error:
            raise timed_out(f"a push to {name}", self.limits.seconds) from error
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from group_error

    async def config(self, name: RepositoryName, commit: str) -> CommittedConfig | None:
        """Return the configuration of a commit (a whole id) that was pushed; None if it has none.

        Raises NotExistError without the repository or the commit, BadRequestError for a configuration that is too
        large, or no text.
        """
        path = self.path(name)
        if not _COMMIT.fullmatch(commit) or await resolved_commit(self._git, path, commit) is None:
            raise NotExistError(
                f"the repository {name} has no commit {commit[:64]!r}",
                code="commitDoesNotExist",
                hint="give its whole id, and push it before",
            )
        return await committed_config(self._git, path, commit)

    async def _take(self, name: RepositoryName, path: Path, body: AsyncIterator[bytes]) -> bytes:
        room = self.limits.repository_bytes - await folder_bytes(path)
        if room <= 0:
            raise BadRequestError(
                f"the repository {name} is full: it has {counted(self.limits.repository_bytes, 'byte')}",
                code="repositoryFull",
                hint="use another clone, or wait until its old refs expire",
            )
        limit = min(room, self.limits.push_bytes)
        git = self._git.given(config={"receive.maxInputSize": str(limit)})
        try:
            async with (
                git.running(GitService.PUSH.command, "--stateless-rpc", str(path)) as running,
                StrictTaskGroup() as group,
            ):
                reading = group.create_task(running.read_all(_REPORT_BYTES))
                async for part in body:
                    await running.write(part)
                await running.write_all()
                report, status = await reading, await running.ended()
            if status and not report:
                raise GitError(f"take a push to {name}", GitOutput(status, report, running.errors))
        except BaseException:
            await asyncio.shield(drop_unfinished(path))
            raise
        mark_used(path)
        return report

    async def _create(self, name: RepositoryName) -> None:
        if self._repositories.path(str(name)).is_dir():
            return
        if len(self._repositories.names(name.user_id)) >= self.limits.repositories:
            raise BadRequestError(
                f"the user has {self.limits.repositories} repositories",
                code="tooManyRepositories",
                hint="push from a clone that has pushed before; repositories without recent pushes are removed by age",
            )
        await self._repositories.create(str(name))

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_SLOT_SECONDS):
                await self._slots.acquire()
        except TimeoutError as error:
            raise InternalError(
                f"the git server works on {self.limits.processes} other requests", code="gitBusy", hint="try again soon"
            ) from error
        try:
            yield
        finally:
            self._slots.release()

    async def clean(self, now: datetime, expiry: timedelta) -> CleanedRepositories:
        """Delete refs whose commit is older than `expiry`, the objects that only they led to, and empty repositories.

        Objects that a later push has replaced stay for `expiry`, too: a run may still have to fetch them. A repository
        in use is left for the next time.
        """
        await self._repositories.sweep(now)
        refs = repositories = 0
        for name in self._repositories.names():
            try:
                async with self._repositories.exclusive(name, 0.001) as path:
                    unused = last_used(path) < now - expiry  # and so no ref of it is younger, whatever its commits say
                    expired, left = (0, 0) if unused else await self._delete_refs(path, now - expiry)
                    refs += expired
                    if unused or (expired and not left):
                        await self._repositories.remove(path)
                        repositories += 1
                    else:
                        await self._collect(path, now - expiry, changed=bool(expired))
            except RunstreamError as error:
                if error.code not in _PASSING:
                    log.warning(
                        error.message, action="repository_not_cleaned", repository=name, errors=chain_lines(error)
                    )
        return CleanedRepositories(refs, repositories)

    async def _delete_refs(self, path: Path, limit: datetime) -> tuple[int, int]:
        """Delete the refs whose commits are older; return how many, and how many are left."""
        listed = (await self._git.ask("for-each-ref", f"--format={_REF_FORMAT}", folder=path)).text.splitlines()
        expired = []
        for line in listed:
            commit, ref, *dates = line.split("\0")
            date = next((int(one) for one in reversed(dates) if one), None)
            if date is not None and _at(date) < limit:
                expired.append(f"delete {ref}\0{commit}\0")
        if expired:
            await self._git.ask("update-ref", "--stdin", "-z", folder=path, given="".join(expired).encode())
        return len(expired), len(listed) - len(expired)

    async def _collect(self, path: Path, limit: datetime, *, changed: bool) -> None:
        """Pack what was pushed since the last time, without objects that no ref leads to since `limit`."""
        collected = path / "runstream-collected"
        if changed or not collected.exists() or collected.stat().st_mtime < last_used(path).timestamp():
            await drop_unfinished(path)
            await self._git.ask("gc", "--quiet", f"--prune={int(limit.timestamp())}", folder=path)
            collected.touch()


def _protocol(service: GitService, asked: str) -> Mapping[str, str]:
    """Return the variable that has git speak the protocol that a client asks for; pushes have no version 2."""
    if _PROTOCOL.fullmatch(asked) and not (service is GitService.PUSH and asked == "version=2"):
        return {"GIT_PROTOCOL": asked}
    return NOTHING


async def _parts(running: RunningGit) -> AsyncIterator[bytes]:
    last = b""
    while part := await running.read():
        yield part
        last = part
    if await running.ended() and b"ERR " not in last[-_ERROR_LINE:]:  # otherwise the client has the reason
        raise InternalError(f"git has broken off: {running.errors[-300:].strip()}", code="gitFailed")


def _at(timestamp: int) -> datetime:
    """Return a time; one that no date can have is in the far past or future."""
    try:
        return datetime.fromtimestamp(timestamp, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.max.replace(tzinfo=UTC) if timestamp > 0 else datetime.min.replace(tzinfo=UTC)

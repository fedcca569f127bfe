"""The git command, hardened: argument lists, no hooks, allowed protocols only, bounded time, output, files and memory.

`service_git` gives git no environment and no configuration but ours: its repositories and URLs come from users.
`user_git` is for the command line: git keeps the user's credentials, filters and proxies, but runs no hook of the
repository, and gets no variable that leads it to another one.

Callers put `--end-of-options` or `--` before what a user chose. All arguments can be read by other users of the
machine, so secrets go into the environment (see `runstream.git.login`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from runstream.atomic_files import replace_file
from runstream.counting import counted
from runstream.errors import BadRequestError
from runstream.git.process import PipedProcess
from runstream.git_variables import is_setting
from runstream.lifecycle import StrictTaskGroup

NOTHING: Mapping[str, str] = MappingProxyType({})
HARDENED_CONFIG = """\
[core]
\thooksPath = /dev/null
\tfsmonitor = false
[safe]
\tdirectory = *
[uploadpack]
\tallowAnySHA1InWant = true
"""
"""Configuration for repositories of others: no program of theirs is run, any owner is accepted (the repository was
named on purpose), and a commit can be fetched although no ref leads to it any more."""
_SERVICE_CONFIG = (
    HARDENED_CONFIG
    + """\
\tallowFilter = true
[receive]
\tfsckObjects = true
\tunpackLimit = 1
\tautogc = false
\tdenyDeleteCurrent = ignore
[fetch]
\tunpackLimit = 1
\twriteCommitGraph = false
[transfer]
\tcredentialsInUrl = die
[core]
\tbigFileThreshold = 8m
\tpackedGitLimit = 256m
\tpackedGitWindowSize = 16m
[pack]
\tthreads = 1
\twindowMemory = 64m
\tdeltaCacheSize = 32m
[gc]
\tauto = 0
\tcruftPacks = true
[maintenance]
\tauto = false
[http]
\tfollowRedirects = false
\tlowSpeedLimit = 1
\tlowSpeedTime = 30
[credential]
\thelper =
[submodule]
\trecurse = false
[protocol]
\tversion = 2
"""
)
_PASSED = re.compile(
    r"PATH|TMPDIR|TZ|(?i:https?_proxy|all_proxy|no_proxy)|SSL_CERT_FILE|SSL_CERT_DIR|GIT_SSL_CAINFO|GIT_SSL_CAPATH"
)
"""The variables of a service that its git gets: the machine's proxies and certificates."""
_BOUNDED = 'ulimit -f "$1" && ulimit -v "$2" && ulimit -t "$3" && shift 3 && exec "$@"'
"""Sets limits of the kernel, which git's own children inherit, and becomes git. A shell is the one program everywhere
that can do so without a fork of our large process; the command is in its arguments, never in its text."""
_BLOCK_BYTES = 512
_GRACE_SECONDS = 0.5
"""Time in which an ended git removes its temporary files; then it is killed."""
_REAP_SECONDS = 5.0
_READ_BYTES = 64 << 10
_ERROR_BYTES = 16 << 10
"""The end of git's messages that is kept."""
_NOT_FOUND = 127


@dataclass(frozen=True, slots=True)
class GitLimits:
    """Limits of one git command."""

    seconds: float = 30.0
    output_bytes: int = 8 << 20
    """Maximum output of a command whose output is returned."""
    file_bytes: int = 1 << 30
    """Maximum size of each file that a service's git writes."""
    memory_bytes: int = 4 << 30
    """Maximum address space of each process of a service's git."""


@dataclass(frozen=True, slots=True)
class GitOutput:
    """What a git command that has ended left."""

    status: int
    output: bytes
    errors: str
    """The end of its messages."""

    @property
    def text(self) -> str:
        """The output as text, without the newline at its end."""
        return self.output.decode(errors="replace").removesuffix("\n")

    @property
    def reason(self) -> str:
        """Git's own sentence about a failure, with what the server at the other end said."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        server = [line.removeprefix("remote: ") for line in lines if line.startswith("remote: ")]
        failures = [line.partition(": ")[2] for line in lines if line.startswith(("fatal: ", "error: "))] or lines[-1:]
        told = "; ".join(dict.fromkeys([*failures[:1], *failures[-1:]])) or f"git ended with status {self.status}"
        return f"{told} ({'; '.join(server)})" if server else told

    def require(self, what: str) -> GitOutput:
        """Return this output. Raises GitError if the command failed, which says that git cannot do `what`."""
        if self.status:
            raise GitError(what, self)
        return self


class GitError(BadRequestError):
    """A git command that failed; `done` is what it left."""

    def __init__(self, what: str, done: GitOutput) -> None:
        super().__init__(f"git cannot {what}: {done.reason}", code="gitFailed")
        self.done = done


@dataclass(frozen=True, slots=True)
class Git:
    """A way to run git: its environment and limits."""

    environment: Mapping[str, str] = field(repr=False)
    limits: GitLimits = GitLimits()
    bounded: bool = True
    """Whether the kernel limits files, memory and processor time."""

    def within(self, limits: GitLimits) -> Git:
        """Return this git with other limits."""
        return replace(self, limits=limits)

    def given(self, variables: Mapping[str, str] = NOTHING, config: Mapping[str, str] = NOTHING) -> Git:
        """Return this git with further variables, and configuration that stands above all files."""
        return replace(self, environment=with_config({**self.environment, **variables}, config))

    async def run(self, *arguments: str, folder: Path | None = None, given: bytes = b"") -> GitOutput:
        """Run git to its end. Raises BadRequestError if it takes too long or has too much output."""
        try:
            async with asyncio.timeout(self.limits.seconds), self.running(*arguments, folder=folder) as running:
                async with StrictTaskGroup() as group:
                    group.create_task(running.write_all(given))
                    output = group.create_task(running.read_all(self.limits.output_bytes))
                return GitOutput(await running.ended(), output.result(), running.errors)
        except TimeoutError as error:
            raise timed_out(arguments[0], self.limits.seconds) from error
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from group_error

    async def ask(self, *arguments: str, folder: Path | None = None, given: bytes = b"", what: str = "") -> GitOutput:
        """Run git to its end. Raises GitError if it fails, which says that it cannot do `what`."""
        return (await self.run(*arguments, folder=folder, given=given)).require(what or f"run {arguments[0]}")

    @asynccontextmanager
    async def running(self, *arguments: str, folder: Path | None = None) -> AsyncIterator[RunningGit]:
        """Run git for the length of the block, whose end ends it and all its children."""
        starting = asyncio.create_task(self._start(arguments, folder))
        try:
            running = await asyncio.shield(starting)
        except asyncio.CancelledError:  # a start that is cancelled itself would leave the process
            await (await starting).end()
            raise
        try:
            yield running
        finally:
            await running.end()

    async def _start(self, arguments: Sequence[str], folder: Path | None) -> RunningGit:
        try:
            process = await PipedProcess.start(self._command(arguments), folder or Path("/"), self.environment)
        except FileNotFoundError as error:
            raise _missing() from error
        return RunningGit(process)

    def run_here(self, *arguments: str, folder: Path | None = None, given: bytes = b"") -> GitOutput:
        """Run git to its end in the foreground of a terminal, where it may ask for a password and get Ctrl-C.

        Raises BadRequestError if it takes too long.
        """
        try:
            done = subprocess.run(
                self._command(arguments),
                capture_output=True,
                timeout=self.limits.seconds,
                env=dict(self.environment),
                check=False,
                input=given,
                cwd=folder,
            )
        except FileNotFoundError as error:
            raise _missing() from error
        except subprocess.TimeoutExpired as error:
            raise timed_out(arguments[0], self.limits.seconds) from error
        return GitOutput(done.returncode, done.stdout, done.stderr.decode(errors="replace"))

    def _command(self, arguments: Sequence[str]) -> list[str]:
        if not self.bounded:
            return ["git", *arguments]
        sizes = (self.limits.file_bytes // _BLOCK_BYTES, self.limits.memory_bytes >> 10, int(self.limits.seconds) + 1)
        return ["/bin/sh", "-c", _BOUNDED, "sh", *map(str, sizes), "git", *arguments]


class RunningGit:
    """A git command that runs."""

    def __init__(self, process: PipedProcess) -> None:
        self._process = process
        self._errors = bytearray()
        self._reading = asyncio.create_task(self._read_errors(), name="git messages")

    @property
    def errors(self) -> str:
        """The end of its messages until now."""
        return self._errors.decode(errors="replace")

    async def write(self, data: bytes) -> None:
        """Give it input; once it reads no more, the input is dropped, and its status says why."""
        stdin = self._process.stdin
        try:
            if data and not stdin.is_closing():  # uvloop raises RuntimeError for a write to a closed pipe
                stdin.write(data)
                await stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return  # it has ended

    async def write_all(self, data: bytes = b"") -> None:
        """Give it the rest of its input."""
        await self.write(data)
        self._process.stdin.close()

    async def read(self) -> bytes:
        """Return the next part of its output; empty at the end."""
        return await self._process.stdout.read(_READ_BYTES)

    async def read_all(self, limit: int) -> bytes:
        """Return its output. Raises BadRequestError for more than `limit` bytes."""
        output = bytearray()
        while part := await self.read():
            output += part
            if len(output) > limit:
                raise BadRequestError(
                    f"the output of git is larger than {counted(limit, 'byte')}", code="gitOutputTooLarge"
                )
        return bytes(output)

    async def ended(self) -> int:
        """Wait for its end; return its status."""
        status = await self._process.wait()
        await self._reading
        if status == _NOT_FOUND and "not found" in self.errors:
            raise _missing()
        return status

    async def end(self) -> None:
        """End it and its children, if they still run."""
        try:
            if self._process.status is None or not self._reading.done():  # or else its children have its pipes
                await self._kill()
        finally:
            self._reading.cancel()
            self._process.close()
            await asyncio.sleep(0)  # the loop closes them in its next round

    async def _kill(self) -> None:
        try:
            if self._process.status is None:
                self._signal(signal.SIGTERM)
                with contextlib.suppress(TimeoutError):  # it is killed below
                    async with asyncio.timeout(_GRACE_SECONDS):
                        await self._process.wait()
        finally:
            self._signal(signal.SIGKILL)  # children may hold the pipes although git itself has ended
            with contextlib.suppress(TimeoutError):  # a process in the kernel's hands; nothing more can be done
                async with asyncio.timeout(_REAP_SECONDS):
                    await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # the whole group has ended
            self._process.signal_all(number)

    async def _read_errors(self) -> None:
        while part := await self._process.stderr.read(_READ_BYTES):
            self._errors += part
            del self._errors[:-_ERROR_BYTES]


def service_git(folder: Path, protocols: Sequence[str] = (), limits: GitLimits = GitLimits()) -> Git:
    """Return the git of a service, which may use these protocols; `folder` gets its configuration file."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    config = folder / "gitconfig"
    replace_file(config, _SERVICE_CONFIG.encode(), durable=False)
    kept = {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}
    return Git(
        {
            **kept,
            "HOME": "/nonexistent",  # curl reads passwords from ~/.netrc
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(config.absolute()),
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_ALLOW_PROTOCOL": ":".join(protocols) or "none",
            "SSH_ASKPASS_REQUIRE": "never",
        },
        limits,
    )


def user_git(limits: GitLimits = GitLimits()) -> Git:
    """Return git for a user's own repositories: with the user's configuration, without hooks."""
    kept = {name: value for name, value in os.environ.items() if is_setting(name)}
    environment = {**kept, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    hardened = {"core.hooksPath": "/dev/null", "core.fsmonitor": "false"}
    return Git(with_config(environment, hardened), limits, bounded=False)


def with_config(environment: Mapping[str, str], config: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with configuration that stands above all files, behind what it already has."""
    count = environment.get("GIT_CONFIG_COUNT", "0")
    begin = int(count) if count.isdigit() else 0
    settings = dict(environment)
    for at, (name, value) in enumerate(config.items(), begin):
        settings |= {f"GIT_CONFIG_KEY_{at}": name, f"GIT_CONFIG_VALUE_{at}": value}
    if config:
        settings["GIT_CONFIG_COUNT"] = str(begin + len(config))
    return settings


def timed_out(what: str, seconds: float) -> BadRequestError:
    """Return the error for a command that took too long."""
    return BadRequestError(
        f"git did not answer within {seconds:g} s for {what}", code="gitTimeout", hint="check the URL"
    )


def _missing() -> BadRequestError:
    return BadRequestError("git is not installed", code="gitMissing", hint="install git")

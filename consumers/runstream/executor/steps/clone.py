"""The `clone` step: the repository at the given commit, in the working directory (rules step-15 and step-16).

It runs git with argument lists, never through a shell.

    AGOLA_REPOSITORY_URL   a URL, or a path on this machine
    AGOLA_GIT_REF          the ref to fetch: a branch, a tag, any ref; empty for the default branch
    AGOLA_GIT_COMMITSHA    the commit to check out; empty for the fetched ref
    AGOLA_GIT_USERNAME,    for http(s): git reads them from a file of the task that is emptied after the step;
    AGOLA_GIT_PASSWORD     they are not in the environment of any step

Git runs in the task's sandbox with its own configuration, without hooks. It sees only the git directory of a repository
on this machine, read-only. A committed `.gitmodules` gives access to nothing else: a submodule on this machine must lie
in that repository, or in a place that tasks may read.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from runstream.errors import BadRequestError
from runstream.executor.drivers.port import Exec, Files, Output
from runstream.executor.steps.run import StepContext
from runstream.git.command import HARDENED_CONFIG
from runstream.git.login import ended_lines, ssh_config
from runstream.git_variables import is_setting
from runstream.open_files import out_of_files

_COMMIT = re.compile(r"[0-9a-fA-F]{4,64}")
_WHOLE_COMMIT_LETTERS = (40, 64)
_PATH_LETTERS = 4096
_ALLOW_FILES = ("-c", "protocol.file.allow=always")
"""Allow submodules on the same machine, which git refuses by default."""
_PRINT_PATH = "printf '%s\\0' \"$displaypath\""


@dataclass(frozen=True, slots=True)
class _Git:
    """The way that one clone step runs git."""

    context: StepContext
    environment: Mapping[str, str]
    visible: tuple[Path, ...]

    async def run(self, *arguments: str) -> int:
        """Run git with its output in the step's log; return its exit status."""
        self.context.log.line(f"+ git {shlex.join(arguments)}")
        return await self._exec(arguments, self.context.log.write)

    async def ask(self, *arguments: str) -> tuple[int, str]:
        """Run git and return its exit status and its output."""
        output = bytearray()
        status = await self._exec(arguments, output.extend)
        return status, output.decode(errors="replace")

    async def _exec(self, arguments: tuple[str, ...], output: Output) -> int:
        command = Exec(
            ("git", *arguments), self.context.working_dir, self.environment, visible=self.visible, keeps=is_setting
        )
        return await self.context.pod.exec(command, output)


async def clone(context: StepContext) -> int:
    """Clone, fetch and check out; return the first exit status that is not 0. Raises BadRequestError."""
    environment = context.spec.environment
    url = _required(environment, "AGOLA_REPOSITORY_URL")
    ref = _not_an_option(environment.get("AGOLA_GIT_REF", ""), "AGOLA_GIT_REF")
    commit = environment.get("AGOLA_GIT_COMMITSHA", "")
    if commit and not _COMMIT.fullmatch(commit):
        raise BadRequestError(f"AGOLA_GIT_COMMITSHA {commit[:80]!r} is not a commit", code="invalidCommit")
    local = _local_path(url)
    visible = () if local is None else _git_directory(context, local)
    copy = ""
    if visible and (found := await context.pod.find_in(visible[-1])) != str(visible[-1]):
        copy, local, visible = found, Path(found), ()
    git_environment = await _git_environment(context, environment)
    git = _Git(context, git_environment, visible)
    origin = url if local is None else local.as_uri() if context.step.depth else copy or url
    try:
        status = await _check_out(git, origin, ref, commit)
        if status == 0 and context.step.recurse_submodules:
            status = await _submodules(git, local)
        if status == 0 and copy:
            status = (await git.ask("remote", "set-url", "origin", url))[0]
    finally:
        if copy and not context.stopped.is_set():
            await context.pod.exec(Exec(("rm", "-rf", copy), "~", {}), context.log.write)
        if context.spec.git_credentials.username or context.spec.git_credentials.password:
            await _private(context.pod.files, _credentials_file(context), "")
    if status and visible and not context.pod.may_read(visible[-1]):
        context.log.line(
            f"the task's user may not read {visible[-1]}: make it readable (chmod -R o+rX), or clone it by another URL"
        )
    return status


async def _check_out(git: _Git, url: str, ref: str, commit: str) -> int:
    depth = (f"--depth={git.context.step.depth}",) if git.context.step.depth else ()
    later = ("--no-checkout",) if commit or ref else ()  # git ignores the depth of a clone by path; see `url`
    if status := await git.run("clone", *depth, *later, "--", url, "."):
        return status
    if not later:
        return 0
    if commit and depth and len(commit) in _WHOLE_COMMIT_LETTERS:
        fetched = await git.run("fetch", *depth, "origin", commit)
        if fetched:
            git.context.log.line("the server does not give this commit alone: its history is fetched")
            if status := await git.run("fetch", "--unshallow", "origin", *((ref,) if ref else ())):
                return status
    elif ref and (status := await git.run("fetch", *depth, "origin", ref)):
        return status
    if commit and (await git.ask("cat-file", "-e", f"{commit}^{{commit}}"))[0]:
        await git.run("fetch", *depth, "origin", commit)  # no ref leads to it any more; a failure shows below
    return await git.run("-c", "advice.detachedHead=false", "checkout", commit or "FETCH_HEAD")


async def _submodules(git: _Git, repository: Path | None) -> int:
    """Fetch the submodules of the checked-out commit level by level, after a check of their URLs."""
    waiting, known = [""], {""}
    while waiting:
        checkout = waiting.pop(0)
        inside = ("-C", checkout) if checkout else ()
        if status := await git.run(*inside, "submodule", "init"):
            return status
        _, listed = await git.ask(*inside, "config", "--local", "-z", "--get-regexp", r"^submodule\..*\.url$")
        urls = [entry.partition("\n")[2] for entry in listed.split("\0") if entry]
        local = [url for url in urls if _is_local(url)]
        seen = {path for url in local for path in _place_of_submodule(git.context, url, repository)}
        git = replace(git, visible=tuple(sorted({*git.visible, *seen})))
        if status := await git.run(*inside, *(_ALLOW_FILES if local else ()), "submodule", "update"):
            return status
        _, populated = await git.ask("submodule", "foreach", "--quiet", "--recursive", _PRINT_PATH)
        found = [path for path in populated.split("\0") if path and path not in known]
        known.update(found)
        waiting += found
    return 0


def _is_local(url: str) -> bool:
    """Return whether git takes a URL for a path on this machine: a `file` URL, or no colon before the first slash."""
    return url.startswith("file://") or ":" not in url.partition("/")[0]


def _place_of_submodule(context: StepContext, url: str, repository: Path | None) -> tuple[Path, ...]:
    """Return the paths that git must see for a submodule on this machine, besides those that tasks see.

    Raises BadRequestError for one that is neither in the cloned repository nor where tasks may read.
    """
    path = _local_path(url)
    if path is not None and context.pod.sees(path):
        return ()
    if path is not None and repository is not None and _lies_in(path, repository):
        needed = _git_directory(context, path)
        if all(_lies_in(each, repository) for each in needed):
            return needed
    raise BadRequestError(
        f"the submodule at {url[:200]!r} is on this machine, but neither in the cloned repository nor in a folder "
        "that the executor lets tasks clone",
        code="submoduleNotVisible",
        hint="add its folder to executor.sandbox_readonly in the executor's settings, or use a URL of a server",
    )


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _git_directory(context: StepContext, repository: Path) -> tuple[Path, ...]:
    """Return the paths that git needs of a repository on this machine; none if there is no repository.

    Raises BadRequestError if it lies in, or contains, a hidden place, or cannot be read.
    """
    try:
        return _found_git_directory(context, repository)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        if out_of_files(error):
            raise
        why = (error.strerror or "") if isinstance(error, OSError) else "its links form a loop"
        raise BadRequestError(
            f"the executor cannot read the repository {repository}: {why[:1].lower()}{why[1:]}",
            code="repositoryNotReadable",
            hint="the repository is a path of the executor's machine: give the executor's user access, or use a URL",
        ) from error


def _found_git_directory(context: StepContext, repository: Path) -> tuple[Path, ...]:
    inside = repository / ".git"
    context.pod.require_visible(inside)  # alone, so that a clone of this project can have its data directory in it
    needed: tuple[Path, ...] = ()
    if inside.is_file():
        common = _common_directory(repository, inside)
        needed = (inside, common) if common is not None else ()
    else:
        needed = tuple(folder for folder in (inside, repository) if _is_git_directory(folder))[:1]
    for path in needed:
        context.pod.require_visible(path)
    return needed


def _is_git_directory(folder: Path) -> bool:
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir()


def _common_directory(repository: Path, link: Path) -> Path | None:
    """Return the git directory that the `.git` file of a worktree or submodule refers to; None for an invalid file."""
    kind, _, path = _content(link).partition(": ")
    own = Path(os.path.normpath(repository / path))
    common = own
    if (own / "commondir").is_file():
        common = Path(os.path.normpath(own / _content(own / "commondir")))
    return common if kind == "gitdir" and own.is_relative_to(common) and _is_git_directory(common) else None


def _content(file: Path) -> str:
    with file.open(errors="replace") as opened:
        return opened.read(_PATH_LETTERS).strip()


async def _git_environment(context: StepContext, environment: Mapping[str, str]) -> dict[str, str]:
    files = context.pod.files
    config = f"{files.home}/.runstream.gitconfig"
    credentials = await _credentials(context, environment.get("AGOLA_REPOSITORY_URL", ""))
    await _private(files, config, HARDENED_CONFIG + credentials)
    git = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": config}
    key = context.spec.git_credentials.private_key
    if key or environment.get("AGOLA_SSHHOSTKEY", ""):
        git["GIT_SSH_COMMAND"] = f"ssh -F {shlex.quote(await _ssh_files(files, environment, key))}"
    return git


async def _credentials(context: StepContext, url: str) -> str:
    """Write the password for the repository's host to a file of the task; return the configuration that names it."""
    user, password = context.spec.git_credentials.username, context.spec.git_credentials.password
    parts = urlsplit(url) if "://" in url else None
    if parts is None or not parts.hostname or not (user or password):
        return ""
    named, _, host = parts.netloc.rpartition("@")
    user = quote(user, safe="") or named.partition(":")[0] or "git"
    path = _credentials_file(context)
    await _private(context.pod.files, path, f"{parts.scheme}://{user}:{quote(password, safe='')}@{host}\n")
    helper = f"store --file={shlex.quote(path)}".replace("\\", "\\\\").replace('"', '\\"')
    return f'[credential]\n\thelper =\n\thelper = "{helper}"\n'


def _credentials_file(context: StepContext) -> str:
    return f"{context.pod.files.home}/.runstream.credentials"


async def _ssh_files(files: Files, environment: Mapping[str, str], key: str) -> str:
    """Write the key, the known hosts and the configuration of ssh; return the path of the configuration."""
    host = environment.get("AGOLA_GIT_HOST", "")
    port = environment.get("AGOLA_GIT_PORT", "")
    config = ssh_config(
        host=host,
        port=port,
        key_file=f"{files.home}/.ssh/id_rsa",
        known_hosts_file=f"{files.home}/.ssh/known_hosts",
        check_host=not environment.get("AGOLA_SKIPSSHHOSTKEYCHECK"),
    )
    folder = f"{files.home}/.ssh"
    await files.make_folder(folder, 0o700)
    await _private(files, f"{folder}/known_hosts", ended_lines(environment.get("AGOLA_SSHHOSTKEY", "")))
    await _private(files, f"{folder}/id_rsa", ended_lines(key))
    await _private(files, f"{folder}/config", config)
    return f"{folder}/config"


async def _private(files: Files, path: str, text: str) -> None:
    await files.write(path, text.encode())


def _local_path(url: str) -> Path | None:
    """Return the local folder that a repository URL names; None for another machine or a relative path."""
    if url.startswith("file://"):
        return Path("/" + unquote(url.removeprefix("file://")).lstrip("/"))  # as git decodes it
    return Path(url) if url.startswith("/") else None


def _required(environment: Mapping[str, str], name: str) -> str:
    value = _not_an_option(environment.get(name, ""), name)
    if not value:
        raise BadRequestError(
            f"{name} is not set: there is nothing to clone",
            code="noRepository",
            hint="give the run a repository: `runstream run create --repo PATH|URL`",
        )
    return value


def _not_an_option(value: str, name: str) -> str:
    if value.startswith("-"):
        raise BadRequestError(f"{name} {value[:80]!r} begins with '-'", code="invalidRef")
    return value

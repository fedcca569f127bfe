"""`clone`: the repository at the wanted commit, into the working directory (domain b.8). Argument lists only, no shell.

AGOLA_REPOSITORY_URL   a URL, or a path on this machine
AGOLA_GIT_REF          what is fetched: a branch, a tag, any ref; empty for the default branch
AGOLA_GIT_COMMITSHA    what is checked out; empty for what was fetched
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from runstream.errors import BadRequestError
from runstream.executor.drivers.port import Exec
from runstream.executor.steps.context import StepContext
from runstream.executor.task_root import TaskRoot

_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]*")
_PORT = re.compile(r"[0-9]{0,5}")
_COMMIT = re.compile(r"[0-9a-fA-F]{4,64}")


async def clone(context: StepContext) -> int:
    """Clone, fetch, check out; the exit status of the first that fails. Raises BadRequestError for unusable values."""
    environment = context.spec.environment
    url = _required(environment, "AGOLA_REPOSITORY_URL")
    ref = _not_an_option(environment.get("AGOLA_GIT_REF", ""), "AGOLA_GIT_REF")
    commit = environment.get("AGOLA_GIT_COMMITSHA", "")
    if commit and not _COMMIT.fullmatch(commit):
        raise BadRequestError(f"AGOLA_GIT_COMMITSHA {commit[:80]!r} is not a commit", code="invalidCommit")
    local = _local_path(url)
    git_environment = await context.pod.files.run(_git_environment, context, environment, local)
    visible = (local,) if local is not None else ()
    for arguments in _commands(context, url, local, ref, commit):
        context.log.line(f"+ {shlex.join(arguments)}")
        status = await context.pod.exec(
            Exec(tuple(arguments), context.working_dir, git_environment, visible=visible), context.log.write
        )
        if status:
            return status
    return 0


def _commands(context: StepContext, url: str, local: Path | None, ref: str, commit: str) -> list[list[str]]:
    cloning = ["git", "clone"]
    if context.step.depth:
        cloning += ["--depth", str(context.step.depth)]
        if local is not None:
            url = local.as_uri()  # git ignores a depth where it can copy files
    if context.step.recurse_submodules:
        cloning.append("--recurse-submodules")
    commands = [[*cloning, "--", url, "."]]
    if ref:
        commands.append(["git", "fetch", "origin", ref])
    if commit or ref:
        commands.append(["git", "-c", "advice.detachedHead=false", "checkout", commit or "FETCH_HEAD"])
    return commands


def _git_environment(context: StepContext, environment: Mapping[str, str], local: Path | None) -> dict[str, str]:
    git = {"GIT_TERMINAL_PROMPT": "0"}
    if local is not None:
        _trust(context.pod.files, local)
    key, host_key = environment.get("AGOLA_SSHPRIVKEY", ""), environment.get("AGOLA_SSHHOSTKEY", "")
    if key or host_key:
        git["GIT_SSH_COMMAND"] = f"ssh -F {shlex.quote(_ssh_files(context.pod.files, environment))}"
    return git


def _ssh_files(files: TaskRoot, environment: Mapping[str, str]) -> str:
    """The key, the known hosts and the configuration that ssh is given; the path of the last."""
    host = environment.get("AGOLA_GIT_HOST", "")
    port = environment.get("AGOLA_GIT_PORT", "")
    if not _HOST.fullmatch(host) or not _PORT.fullmatch(port):
        raise BadRequestError(f"AGOLA_GIT_HOST {host[:80]!r} and port {port[:20]!r} are not valid", code="invalidHost")
    folder = f"{files.home}/.ssh"
    os.close(files.make_folder(folder, 0o700))
    check = "no" if environment.get("AGOLA_SKIPSSHHOSTKEYCHECK") else "yes"
    _private(files, f"{folder}/known_hosts", _ended(environment.get("AGOLA_SSHHOSTKEY", "")))
    _private(files, f"{folder}/id_rsa", _ended(environment.get("AGOLA_SSHPRIVKEY", "")))
    lines = [
        f"Host {host or '*'}",
        *([f"  HostName {host}"] if host else []),
        *([f"  Port {port}"] if port else []),
        f'  IdentityFile "{folder}/id_rsa"',
        "  IdentitiesOnly yes",
        f'  UserKnownHostsFile "{folder}/known_hosts"',
        f"  StrictHostKeyChecking {check}",
        "  PasswordAuthentication no",
        "  BatchMode yes",
        "  IgnoreUnknown PubkeyAcceptedAlgorithms,PubkeyAcceptedKeyTypes",
        "  PubkeyAcceptedAlgorithms +ssh-rsa",
        "  PubkeyAcceptedKeyTypes +ssh-rsa",
    ]
    _private(files, f"{folder}/config", "\n".join(lines) + "\n")
    return f"{folder}/config"


def _trust(files: TaskRoot, repository: Path) -> None:
    """Let git read a repository of this machine that belongs to another user: it was named on purpose."""
    paths = (repository, repository / ".git")
    _private(
        files, f"{files.home}/.gitconfig", "[safe]\n" + "".join(f"\tdirectory = {_quoted(path)}\n" for path in paths)
    )


def _private(files: TaskRoot, path: str, text: str) -> None:
    files.write(path, text.encode())


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _local_path(url: str) -> Path | None:
    """The folder that a repository URL names on this machine; None for one elsewhere."""
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
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

"""What every task of a run is told about the sources it is run for (rule step-9), and the run's group (rule group-9).

Each variable has two names, AGOLA_… and RUNSTREAM_…, with the same value. The run's counter is not known
before the scheduler has numbered the run; `counter_environment` adds it where a task's spec is made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from runstream.errors import BadRequestError
from runstream.runconfig.when import RefType

_SCP_LIKE = re.compile(r"(?:[^@/:\s]+@)?(\[[^\]\s]+\]|[^/:\s@]+):(?!//).*")
_SAFE_IN_PATH = "$&+=:@~"
_DEFAULT_PORT = "22"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefContext:
    """The sources that a run is for. What does not apply is empty."""

    ref_type: RefType = ""
    ref: str = ""
    """The full git ref, such as refs/heads/main."""
    branch: str = ""
    tag: str = ""
    pull_request_id: str = ""
    commit_sha: str = ""
    repository_url: str = ""
    """What `git clone` takes: a URL, an scp-like address or a local path."""
    ssh_private_key: str = field(default="", repr=False)
    ssh_host_key: str = ""
    skip_ssh_host_key_check: bool = False


def config_context(context: RefContext) -> dict[str, str]:
    """What a configuration that is a program is told (rule config-14)."""
    return {
        "ref_type": context.ref_type,
        "ref": context.ref,
        "branch": context.branch,
        "tag": context.tag,
        "pull_request_id": context.pull_request_id,
        "commit_sha": context.commit_sha,
    }


def static_environment(context: RefContext) -> dict[str, str]:
    """The environment that is the same for all tasks of a run."""
    host, port = git_host_and_port(context.repository_url)
    named = {
        "SSHPRIVKEY": context.ssh_private_key,
        "REPOSITORY_URL": context.repository_url,
        "GIT_HOST": host,
        "GIT_PORT": port,
        "GIT_BRANCH": context.branch,
        "GIT_TAG": context.tag,
        "PULL_REQUEST_ID": context.pull_request_id,
        "GIT_REF_TYPE": context.ref_type,
        "GIT_REF": context.ref,
        "GIT_COMMITSHA": context.commit_sha,
    }
    if context.ssh_host_key:
        named["SSHHOSTKEY"] = context.ssh_host_key
    if context.skip_ssh_host_key_check:
        named["SKIPSSHHOSTKEYCHECK"] = "1"
    return {"CI": "true"} | twins(named)


def counter_environment(counter: int) -> dict[str, str]:
    """The run's number in its project, under both names."""
    return twins({"RUN_COUNTER": str(counter)})


def twins(named: dict[str, str]) -> dict[str, str]:
    """Each name under both prefixes."""
    return {f"{prefix}{name}": value for prefix in ("AGOLA_", "RUNSTREAM_") for name, value in named.items()}


def git_host_and_port(url: str) -> tuple[str, str]:
    """Host and port of a clone URL; the port is 22 when none is given, the host empty for a local path."""
    if "://" in url:
        try:
            parts = urlsplit(url)
            return parts.hostname or "", str(parts.port) if parts.port is not None else _DEFAULT_PORT
        except ValueError as error:
            raise BadRequestError(
                f"repository URL {url[:200]!r} is not valid: {error}", code="invalidRepositoryURL"
            ) from error
    match = _SCP_LIKE.fullmatch(url)
    return (match[1].strip("[]"), _DEFAULT_PORT) if match else ("", _DEFAULT_PORT)


def run_group(root: str, context: RefContext) -> str:
    """The group of a run: its root (`/project/<id>` or `/user/<id>`) and what it is for, in four elements.

    Raises BadRequestError when the context has no branch, tag or pull request.
    """
    for element, name in (("pr", context.pull_request_id), ("tag", context.tag), ("branch", context.branch)):
        if name:
            return f"{root}/{element}/{quote(name, safe=_SAFE_IN_PATH)}"
    raise BadRequestError(
        "a run is for a branch, a tag or a pull request, and none is given",
        code="invalidRef",
        hint="name a branch, a tag or a pull request",
    )

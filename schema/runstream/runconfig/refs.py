"""The ref that a run is for: its context, the environment made of it (rule step-9) and its group (rule group-9).

Each variable has two names, AGOLA_… and RUNSTREAM_…, with the same value. The scheduler numbers a run only after it
is created, so `counter_environment` is added where a task's spec is made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from runstream.errors import BadRequestError
from runstream.runconfig.when import RefType, When, match_when

SKIP_MARKS = ("[ci skip]", "[skip ci]")
"""Marks in a commit's message that suppress runs for it."""
_MAX_REF = 1024
"""Characters."""
_PULL_REQUEST = re.compile(r"refs/(?:pull|merge-requests)/(\d+)/head")
_SCP_LIKE = re.compile(r"(?:[^@/:\s]+@)?(\[[^\]\s]+\]|[^/:\s@]+):(?!//).*")
_SAFE_IN_PATH = "$&+=:@~"
_DEFAULT_PORT = "22"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefContext:
    """The ref, commit and repository of a run. Fields that do not apply are empty."""

    ref_type: RefType = ""
    ref: str = ""
    """The full git ref, such as refs/heads/main."""
    branch: str = ""
    tag: str = ""
    pull_request_id: str = ""
    commit_sha: str = ""
    repository_url: str = ""
    """The argument of `git clone`: a URL, an scp-like address or a local path."""
    ssh_private_key: str = field(default="", repr=False)
    ssh_host_key: str = ""
    skip_ssh_host_key_check: bool = False

    def matches(self, when: When | None) -> bool:
        """Return whether a run or task with this `when` is for the ref."""
        return match_when(when, self.ref_type, self.branch, self.tag, self.ref)


def ref_context(
    *, branch: str = "", tag: str = "", ref: str = "", commit_sha: str = "", repository_url: str = ""
) -> RefContext:
    """Return the context of a branch, a tag or a full ref. Raise BadRequestError for two, or for an overlong one."""
    if sum(map(bool, (branch, tag, ref))) > 1:
        raise BadRequestError("give only one of branch, tag and ref", code="invalidRef")
    if len(branch + tag + ref) > _MAX_REF:
        raise BadRequestError(f"the branch, tag or ref is longer than {_MAX_REF} characters", code="invalidRef")
    branch = branch or _after("refs/heads/", ref)
    tag = tag or _after("refs/tags/", ref)
    pull_request = _PULL_REQUEST.fullmatch(ref)
    return RefContext(
        ref_type="branch" if branch else "tag" if tag else "pull_request" if pull_request else "",
        ref=ref or (f"refs/heads/{branch}" if branch else "") or (f"refs/tags/{tag}" if tag else ""),
        branch=branch,
        tag=tag,
        pull_request_id=pull_request[1] if pull_request else "",
        commit_sha=commit_sha,
        repository_url=repository_url,
    )


def skip_mark(message: str) -> str:
    """Return the mark in a commit's message that suppresses runs; empty without one."""
    return next((mark for mark in SKIP_MARKS if mark in message), "")


def _after(prefix: str, ref: str) -> str:
    return ref.removeprefix(prefix) if ref.startswith(prefix) else ""


def config_context(context: RefContext) -> dict[str, str]:
    """Return the context that a program gets as its argument (rule config-14)."""
    return {
        "ref_type": context.ref_type,
        "ref": context.ref,
        "branch": context.branch,
        "tag": context.tag,
        "pull_request_id": context.pull_request_id,
        "commit_sha": context.commit_sha,
    }


def static_environment(context: RefContext) -> dict[str, str]:
    """Return the environment that all tasks of a run share."""
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
    return {"CI": "true"} | _with_prefixes(named)


def counter_environment(counter: int) -> dict[str, str]:
    """Return the environment with a run's number in its project."""
    return _with_prefixes({"RUN_COUNTER": str(counter)})


def _with_prefixes(named: dict[str, str]) -> dict[str, str]:
    """Return each variable under both prefixes."""
    return {f"{prefix}{name}": value for prefix in ("AGOLA_", "RUNSTREAM_") for name, value in named.items()}


def git_host_and_port(url: str) -> tuple[str, str]:
    """Return host and port of a clone URL; the port defaults to 22, the host of a local path is empty."""
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
    """Return the group of a run, in four elements: `/project/<id>` or `/user/<id>`, and the kind and name of its ref.

    Raise BadRequestError for a context without branch, tag and pull request.
    """
    for element, name in (("pr", context.pull_request_id), ("tag", context.tag), ("branch", context.branch)):
        if name:
            return f"{root}/{element}/{quote(name, safe=_SAFE_IN_PATH)}"
    raise BadRequestError(
        "a run needs a branch, a tag or a pull request",
        code="invalidRef",
        hint="name a branch, a tag or a pull request",
    )

"""From the branch, tag or ref that somebody names to what a run is for."""

from __future__ import annotations

import re

from runstream.errors import BadRequestError
from runstream.runconfig.environment import RefContext

MAX_REF = 1024
SKIP_MARKS = ("[ci skip]", "[skip ci]")
"""In a commit's message, anywhere: no run is wanted for it."""
_PULL_REQUEST = re.compile(r"refs/(?:pull|merge-requests)/(\d+)/head")


def ref_context(
    *, branch: str = "", tag: str = "", ref: str = "", commit_sha: str = "", repository_url: str = ""
) -> RefContext:
    """The context of at most one of branch, tag and (full) ref. Raises BadRequestError for more, or a very long one."""
    if sum(map(bool, (branch, tag, ref))) > 1:
        raise BadRequestError("say only one of branch, tag and ref", code="invalidRef")
    if len(branch + tag + ref) > MAX_REF:
        raise BadRequestError(f"the branch, tag or ref is longer than {MAX_REF} characters", code="invalidRef")
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
    """Return the mark in a commit's message that wants no runs; empty without one."""
    return next((mark for mark in SKIP_MARKS if mark in message), "")


def _after(prefix: str, ref: str) -> str:
    return ref.removeprefix(prefix) if ref.startswith(prefix) else ""

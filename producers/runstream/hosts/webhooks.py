"""Webhooks of git hosts: the signature first, then what happened.

A webhook without a signature is refused, like one with a wrong signature. What is signed and starts nothing is no
error: it has a reason (`ignored`), which the project shows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from runstream.errors import BadRequestError
from runstream.hosts.port import HostType, RefKind, RefName, RefNames

MAX_WEBHOOK_BYTES = 10 << 20
"""Maximum size of a webhook."""
SIGNED_SECONDS = 300.0
"""The age up to which a signature with a time is accepted, and how far the clock of a host may be ahead."""
HOST_REFS: Mapping[HostType, RefNames] = {
    "gitea": RefNames("refs/pull/"),
    "github": RefNames("refs/pull/"),
    "gitlab": RefNames("refs/merge-requests/"),
}
_EVENT_HEADERS: Mapping[HostType, tuple[str, ...]] = {
    "gitea": ("x-gitea-event", "x-forgejo-event"),
    "gitlab": ("x-gitlab-event",),
    "github": ("x-github-event",),
}
_DELIVERY_HEADERS: Mapping[HostType, tuple[str, ...]] = {
    "gitea": ("x-gitea-delivery", "x-forgejo-delivery", "x-github-delivery"),
    "gitlab": ("webhook-id", "idempotency-key", "x-gitlab-event-uuid"),
    "github": ("x-github-delivery",),
}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RefPushed:
    """A branch or a tag leads to another commit."""

    ref: RefName
    commit: str
    message: str
    """The message of the first commit (GitHub: of the last one); for a tag `Tag NAME`."""


@dataclass(frozen=True, slots=True)
class RefDeleted:
    """A branch or a tag was deleted."""

    ref: RefName


@dataclass(frozen=True, slots=True)
class PullRequestPushed:
    """A pull request was opened, or its head leads to another commit."""

    id: str
    """Gitea: the id over all pull requests of the host; else the number."""
    ref: RefName
    commit: str
    title: str
    same_repository: bool
    """False for one from a fork."""
    link: str


HookChange = RefPushed | RefDeleted | PullRequestPushed


@dataclass(frozen=True, slots=True)
class ReceivedWebhook:
    """A webhook whose signature is right."""

    delivery: str
    """The host's id of the delivery, the same when it is sent again; empty if the host names none."""
    event: str
    repository_id: str
    sender: str
    change: HookChange | None
    ignored: str = ""
    """Why it starts nothing."""


def sending_host(headers: Mapping[str, str]) -> HostType:
    """Return the type of the host that sends a webhook. Raises BadRequestError `webhookNotSigned` for none of them."""
    found = _lower(headers)
    # Gitea sends the headers of GitHub, too.
    for host, names in _EVENT_HEADERS.items():
        if _first(found, *names):
            return host
    raise BadRequestError(
        "the webhook is of no known git host: it has none of the headers "
        + ", ".join(names[0] for names in _EVENT_HEADERS.values()),
        code="webhookNotSigned",
        hint="Gitea, Forgejo, GitHub and GitLab send them",
    )


def check_signature(host: HostType, secret: str, headers: Mapping[str, str], body: bytes, *, now: float) -> None:
    """Check the signature of a webhook; `now` is the Unix time.

    Raises BadRequestError `webhookNotSigned` or `invalidWebhookSignature`.
    """
    found = _lower(headers)
    match host:
        case "gitea":
            _check_hex(found, ("x-forgejo-signature", "x-gitea-signature"), "", secret, body)
        case "github":
            _check_hex(found, ("x-hub-signature-256",), "sha256=", secret, body)
        case "gitlab":
            _check_gitlab(found, secret, body, now)


def event_of(host: HostType, headers: Mapping[str, str]) -> tuple[str, str]:
    """Return the names of a webhook's event and delivery at the host; empty for one that it does not name."""
    found = _lower(headers)
    return _first(found, *_EVENT_HEADERS[host]), _first(found, *_DELIVERY_HEADERS[host])


def parse_webhook(host: HostType, headers: Mapping[str, str], body: bytes) -> ReceivedWebhook:
    """Return what happened, of a webhook whose signature is right. Raises BadRequestError `invalidWebhook`."""
    event, delivery = event_of(host, headers)
    return _gitlab(event, delivery, body) if host == "gitlab" else _github_like(host, event, delivery, body)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _check_hex(headers: Mapping[str, str], names: tuple[str, ...], prefix: str, secret: str, body: bytes) -> None:
    given = _first(headers, *names)
    if not given:
        raise _unsigned(names[-1])
    wanted = prefix + hmac.new(_known(secret), body, hashlib.sha256).hexdigest()
    if not _same(given, wanted):
        raise _wrong(names[-1])


def _check_gitlab(headers: Mapping[str, str], secret: str, body: bytes, now: float) -> None:
    signatures = headers.get("webhook-signature", "")
    if not signatures:
        token = headers.get("x-gitlab-token", "")
        if not token:
            raise _unsigned("x-gitlab-token")
        if not _same(token, _known(secret).decode()):
            raise _wrong("x-gitlab-token")
        return
    identity, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (identity and at.isascii() and at.isdigit() and len(at) < 12 and abs(now - int(at)) <= SIGNED_SECONDS):
        raise _wrong("webhook-timestamp")
    key = _known(secret)
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            raise _wrong("webhook-signature") from None
    wanted = base64.b64encode(hmac.digest(key, f"{identity}.{at}.".encode() + body, "sha256")).decode()
    # A host that rotates its secret signs with the old one, too.
    if not any(_same(one, f"v1,{wanted}") for one in signatures.split()[:10]):
        raise _wrong("webhook-signature")


def _known(secret: str) -> bytes:
    if not secret:  # everybody knows the empty one
        raise BadRequestError("the project has no webhook secret", code="invalidWebhookSignature")
    return secret.encode()


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def _first(headers: Mapping[str, str], *names: str) -> str:
    return next((headers[name] for name in names if headers.get(name)), "")


def _unsigned(header: str) -> BadRequestError:
    return BadRequestError(
        f"the webhook is not signed: it has no header {header}",
        code="webhookNotSigned",
        hint="give the webhook at the host the secret of the project; reconfiguring the project does so",
    )


def _wrong(header: str) -> BadRequestError:
    return BadRequestError(
        f"the signature of the webhook in {header} is wrong or too old",
        code="invalidWebhookSignature",
        hint="give the webhook at the host the secret of the project; reconfiguring the project does so",
    )


class HookUser(msgspec.Struct):
    """Who caused a webhook of Gitea or GitHub."""

    login: str = ""


class HookRepository(msgspec.Struct):
    """The repository of a webhook of Gitea or GitHub."""

    id: int
    html_url: str = ""
    full_name: str = ""


class HookCommit(msgspec.Struct):
    """A commit in a webhook."""

    id: str
    message: str = ""


class HookSide(msgspec.Struct):
    """The head or the base of a pull request; a deleted fork has no repository."""

    sha: str
    repo: HookRepository | None = None


class HookPull(msgspec.Struct):
    """A pull request of Gitea or GitHub."""

    id: int
    number: int
    state: str
    title: str
    html_url: str
    head: HookSide
    base: HookSide


class _Known(msgspec.Struct):
    repository: HookRepository
    sender: HookUser = msgspec.field(default_factory=HookUser)


class _Push(_Known):
    ref: str = ""
    after: str = ""
    commits: list[HookCommit] | None = None
    head_commit: HookCommit | None = None


class _Delete(_Known):
    ref: str = ""
    ref_type: str = ""


class _PullRequest(_Known, kw_only=True):
    action: str
    pull_request: HookPull


_OPENED = {"gitea": ("opened", "reopened", "synchronized"), "github": ("opened", "reopened", "synchronize")}


def _github_like(host: HostType, event: str, delivery: str, body: bytes) -> ReceivedWebhook:
    def received(known: _Known, change: HookChange | None, ignored: str = "") -> ReceivedWebhook:
        return ReceivedWebhook(delivery, event, str(known.repository.id), known.sender.login, change, ignored)

    match event:
        case "push":
            push = _decoded(body, _Push)
            ref = _branch_or_tag(host, push.ref)
            if not push.after.strip("0"):
                return received(push, RefDeleted(ref))
            commits = push.commits or []
            if host == "github":
                # For an annotated tag `after` is the tag's own object.
                commit = push.head_commit.id if push.head_commit and ref.kind is RefKind.TAG else push.after
                commits = [push.head_commit] if push.head_commit else commits
            else:
                commit = push.after
                commits = commits or ([push.head_commit] if push.head_commit else [])
            message = _message(ref, commits)
            return received(push, RefPushed(ref, commit, message))
        case "delete" if host == "gitea":  # GitHub sends a push, too
            gone = _decoded(body, _Delete)
            if gone.ref_type not in ("branch", "tag"):
                return received(gone, None, f"a {gone.ref_type[:40]} was deleted, which is no branch or tag")
            names = HOST_REFS[host]
            return received(
                gone, RefDeleted(names.branch(gone.ref) if gone.ref_type == "branch" else names.tag(gone.ref))
            )
        case "pull_request" | "pull_request_sync":
            opened = _decoded(body, _PullRequest)
            pull = opened.pull_request
            if pull.state != "open":
                return received(opened, None, f"the pull request is {pull.state[:40]}")
            if opened.action not in _OPENED[host]:
                return received(opened, None, f"the action of the pull request is {opened.action[:40]!r}")
            base, head = pull.base.repo, pull.head.repo
            same = base is not None and head is not None and base.id == head.id
            change = PullRequestPushed(
                str(pull.id if host == "gitea" else pull.number),
                HOST_REFS[host].pull_request(pull.number),
                pull.head.sha,
                pull.title,
                same,
                pull.html_url,
            )
            return received(opened, change)
    return _unknown(delivery, event, _repository_id(body))


class GitLabHookProject(msgspec.Struct):
    """The project of a webhook of GitLab."""

    id: int


class GitLabHookUser(msgspec.Struct):
    """Who caused a webhook of GitLab."""

    username: str = ""


class GitLabHookMerge(msgspec.Struct):
    """A merge request in a webhook of GitLab."""

    iid: int
    title: str
    source_project_id: int | None
    target_project_id: int
    last_commit: HookCommit
    state: str = ""
    action: str = ""
    oldrev: str = ""
    url: str = ""


class _GitLabPush(msgspec.Struct):
    ref: str
    after: str
    project: GitLabHookProject
    user_username: str = ""
    checkout_sha: str | None = None
    commits: list[HookCommit] | None = None


class _GitLabMerge(msgspec.Struct):
    object_attributes: GitLabHookMerge
    project: GitLabHookProject
    user: GitLabHookUser = msgspec.field(default_factory=GitLabHookUser)


def _gitlab(event: str, delivery: str, body: bytes) -> ReceivedWebhook:
    match event:
        case "Push Hook" | "Tag Push Hook":
            push = _decoded(body, _GitLabPush)
            project = str(push.project.id)
            ref = _branch_or_tag("gitlab", push.ref)
            if not push.after.strip("0"):
                return ReceivedWebhook(delivery, event, project, push.user_username, RefDeleted(ref))
            if not push.commits and ref.kind is RefKind.BRANCH:
                return ReceivedWebhook(delivery, event, project, push.user_username, None, "the push has no commits")
            # For an annotated tag `after` is the tag's own object.
            commit = (push.checkout_sha or push.after) if ref.kind is RefKind.TAG else push.after
            change = RefPushed(ref, commit, _message(ref, push.commits or []))
            return ReceivedWebhook(delivery, event, project, push.user_username, change)
        case "Merge Request Hook":
            merge = _decoded(body, _GitLabMerge)
            return _merge_request(delivery, event, merge)
    return _unknown(delivery, event, "")


def _merge_request(delivery: str, event: str, merge: _GitLabMerge) -> ReceivedWebhook:
    told, project, sender = merge.object_attributes, str(merge.project.id), merge.user.username
    ignored = ""
    if told.state not in ("", "opened"):
        ignored = f"the merge request is {told.state[:40]}"
    elif told.action not in ("", "open", "reopen", "update") or (told.action == "update" and not told.oldrev):
        ignored = f"the action of the merge request is {told.action[:40]!r}, without a push"
    if ignored:
        return ReceivedWebhook(delivery, event, project, sender, None, ignored)
    change = PullRequestPushed(
        str(told.iid),
        HOST_REFS["gitlab"].pull_request(told.iid),
        told.last_commit.id,
        told.title,
        told.source_project_id == told.target_project_id,
        told.url,
    )
    return ReceivedWebhook(delivery, event, project, sender, change)


def _unknown(delivery: str, event: str, repository_id: str) -> ReceivedWebhook:
    return ReceivedWebhook(
        delivery, event, repository_id, "", None, f"Runstream has no use for the event {event[:80]!r}"
    )


def _message(ref: RefName, commits: list[HookCommit]) -> str:
    if ref.kind is RefKind.TAG:
        return f"Tag {ref.name}"
    return commits[0].message if commits else ""


def _branch_or_tag(host: HostType, ref: str) -> RefName:
    if not ref.startswith(("refs/heads/", "refs/tags/")):
        raise _invalid(f"it is of the ref {ref[:200]!r}, which is no branch or tag")
    try:
        return HOST_REFS[host].parse(ref)
    except BadRequestError as error:
        raise _invalid(error.message) from error


def _repository_id(body: bytes) -> str:
    """Return the id of the repository of any event; empty for an event of an organization."""
    try:
        return str(msgspec.json.decode(body, type=_Known).repository.id)
    except (ValueError, RecursionError):
        return ""


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError) as error:
        raise _invalid(str(error)[:300]) from error


def _invalid(why: str) -> BadRequestError:
    return BadRequestError(
        f"the webhook cannot be read: {why}", code="invalidWebhook", hint="set its content type to application/json"
    )

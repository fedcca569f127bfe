"""The events of a webhook: what a git host reported about a project's repository, and which runs that made.

The body of the webhook is not kept: it is large, and has the addresses of people. The event has what was read from it.
"""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from runstream.events.event import DomainEvent

WebhookHost = Literal["gitea", "github", "gitlab"]
WebhookChangeKind = Literal["push", "delete", "pull_request"]


class WebhookChange(Struct, frozen=True, gc=False):
    """What happened to a branch, a tag or a pull request."""

    kind: WebhookChangeKind
    """`push`: the ref leads to another commit; `delete`: it is gone; `pull_request`: one was opened or pushed to."""
    ref: str
    """The full ref, such as refs/heads/main or refs/pull/7/head."""
    commit: str
    """Its commit; empty for a ref that is gone."""
    message: str
    """The first 16 KiB of the message of a commit, or of the title of a pull request."""
    pull_request_id: str
    """As the host names it; empty for a branch or tag."""
    same_repository: bool
    """False for a pull request from a fork."""
    link: str
    """The page of the pull request."""


class WebhookReceived(DomainEvent, frozen=True):
    """A webhook with the right signature arrived."""

    project_id: str
    host: WebhookHost
    delivery: str
    """The host's id of the delivery, or the hash of the body if it names none."""
    event: str
    """Its name at the host."""
    sender: str
    """The login of the account at the host that caused it."""
    repository_id: str
    """Of the repository at the host."""
    change: WebhookChange | None
    """None for one that starts nothing."""


class WebhookHandled(DomainEvent, frozen=True):
    """What the webhook asks for is done: its runs exist, or it makes none."""

    runs: tuple[str, ...]
    """The ids of its runs, in the order of the configuration."""
    code: str
    """Why it made no run, for programs; empty for one that made runs."""
    reason: str
    """The same for people."""


class WebhookReplayed(DomainEvent, frozen=True):
    """A user asked to handle the webhook again."""


WebhookEvent = WebhookReceived | WebhookHandled | WebhookReplayed
WEBHOOK_EVENTS: tuple[type[DomainEvent], ...] = get_args(WebhookEvent)

"""Webhooks as GitHub publishes them, and bodies that no host sends."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from runstream.errors import BadRequestError
from runstream.hosts.port import HostType
from runstream.hosts.webhooks import HOST_REFS, PullRequestPushed, ReceivedWebhook, RefDeleted, RefPushed
from tests.hosts.reading import read_webhook

EXAMPLES: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[1] / "data/github/webhooks.json").read_text()
)
COMMIT = "6113728f27ae82c7b1a177c8d03f9e96e0adf246"
HEAD = "ec26c3e57ca3a959ca5aad62de7213c562f8c821"


def _github(event: str, body: bytes) -> ReceivedWebhook:
    signature = hmac.new(b"secret", body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": event, "X-GitHub-Delivery": "d", "X-Hub-Signature-256": f"sha256={signature}"}
    return read_webhook("github", "secret", headers, body, now=0)


def _example(event: str, at: int) -> ReceivedWebhook:
    return _github(event, json.dumps(EXAMPLES[event][at]).encode())


def test_published_pushes() -> None:
    names = HOST_REFS["github"]
    assert _example("push", 0).change == RefPushed(names.tag("simple-tag"), COMMIT, "Tag simple-tag")
    assert _example("push", 1).change == RefDeleted(names.tag("simple-tag"))
    assert _example("push", 2).change == RefPushed(names.branch("master"), COMMIT, "Initial commit")
    assert {_example("push", at).repository_id for at in range(3)} == {"186853002"}


def test_published_pull_requests() -> None:
    for at, example in enumerate(EXAMPLES["pull_request"]):
        got = _example("pull_request", at)
        if example["action"] in ("opened", "reopened", "synchronize"):
            assert isinstance(got.change, PullRequestPushed)
            assert (got.change.id, got.change.commit, got.change.same_repository) == ("2", HEAD, True)
        else:
            assert got.change is None
            assert got.ignored


@pytest.mark.parametrize("event", ["ping", "create", "delete", "installation"])
def test_published_events_without_use_are_named(event: str) -> None:
    got = _example(event, 0)
    assert got.change is None
    assert event in got.ignored


def test_a_pull_request_of_a_deleted_fork_is_not_of_the_repository() -> None:
    example = json.loads(json.dumps(EXAMPLES["pull_request"][0]))
    example["pull_request"]["head"]["repo"] = None
    change = _github("pull_request", json.dumps(example).encode()).change
    assert isinstance(change, PullRequestPushed)
    assert not change.same_repository


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[" * 1_000_000, b'{"ref": 1}', b"\xff", b'{"ref": "refs/notes/x", "repository": {"id": 1}}'],
)
@pytest.mark.parametrize(("host", "event"), [("github", "push"), ("gitea", "push"), ("gitlab", "Push Hook")])
def test_what_no_host_sends_is_refused(host: HostType, event: str, body: bytes) -> None:
    signature = hmac.new(b"secret", body, hashlib.sha256).hexdigest()
    headers = {
        "github": {"X-GitHub-Event": event, "X-Hub-Signature-256": f"sha256={signature}"},
        "gitea": {"X-Gitea-Event": event, "X-Gitea-Signature": signature},
        "gitlab": {"X-Gitlab-Event": event, "X-Gitlab-Token": "secret"},
    }[host]
    with pytest.raises(BadRequestError) as refused:
        read_webhook(host, "secret", headers, body, now=0)
    assert refused.value.code == "invalidWebhook"

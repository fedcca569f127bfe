"""POST /webhooks: what is signed is in the log once; what is not is refused, and leaves nothing."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from runstream.events.webhook import WebhookEvent, WebhookHandled, WebhookReceived
from runstream.hosts.webhooks import MAX_WEBHOOK_BYTES
from runstream.subjects import webhook_address
from tests.gateway.owners import Owners

SECRET = "hook"
"""Of every project of `Owners`."""
COMMIT = "1f2e3d4c5b" * 4


def push(ref: str = "refs/heads/main", **changes: Any) -> bytes:
    return json.dumps(
        {
            "ref": ref,
            "after": COMMIT,
            "repository": {"id": 7},
            "sender": {"login": "ada"},
            "head_commit": {"id": COMMIT, "message": "a change"},
            **changes,
        }
    ).encode()


@dataclass
class Hooks:
    """A gateway with a project."""

    owners: Owners
    project: str

    async def send(
        self, body: bytes, delivery: str = "d-1", *, event: str = "push", secret: str | None = SECRET, project: str = ""
    ) -> httpx2.Response:
        headers = {"X-GitHub-Event": event, "X-GitHub-Delivery": delivery}
        if secret is not None:
            headers["X-Hub-Signature-256"] = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        return await self.post(headers, body, project)

    async def post(self, headers: dict[str, str], body: bytes, project: str = "") -> httpx2.Response:
        async with httpx2.AsyncClient() as http:
            url = f"{self.owners.url}/webhooks?projectid={project or self.project}&agolaid=agola"
            return await http.post(url, content=body, headers=headers)

    async def events(self, answer: httpx2.Response) -> list[WebhookEvent]:
        """The events of the webhook that an answer names."""
        log = self.owners.world.log
        address = webhook_address(self.project, answer.json()["id"], log.partitions)
        return [event for stored in await log.history(address) for event in stored.commit.events]  # type: ignore[misc]

    async def received(self) -> list[tuple[WebhookEvent, ...]]:
        """The events of each webhook of the project."""
        log = self.owners.world.log
        partition = webhook_address(self.project, "", log.partitions).partition
        found = await log.messages(partition, [log.subjects.webhooks(partition, self.project)])
        ids = [message.subject.rpartition(".")[2] for message in found]
        histories = [
            await log.history(webhook_address(self.project, one, log.partitions)) for one in dict.fromkeys(ids)
        ]
        return [tuple(event for stored in one for event in stored.commit.events) for one in histories]  # type: ignore[misc]


@pytest.fixture
async def hooks(tmp_path: Path) -> AsyncIterator[Hooks]:
    async with Owners.serving(tmp_path) as owners:
        await owners.user("ann")
        yield Hooks(owners, await owners.project("user/ann", "https://git.example.com/web.git"))


def refused(answer: httpx2.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()[0]["code"]) == (status, code), answer.text


async def test_a_signed_push_is_in_the_log_once_however_often_it_is_sent(hooks: Hooks) -> None:
    answers = await asyncio.gather(*(hooks.send(push()) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    ((received,),) = await hooks.received()
    assert isinstance(received, WebhookReceived)
    assert (received.host, received.delivery, received.event, received.sender) == ("github", "d-1", "push", "ada")
    assert received.change is not None
    assert (received.change.kind, received.change.ref, received.change.commit) == ("push", "refs/heads/main", COMMIT)
    assert received.change.message == "a change"
    await hooks.send(push(), "d-2")
    assert len(await hooks.received()) == 2


async def test_what_is_not_signed_with_the_projects_secret_is_refused_and_leaves_nothing(hooks: Hooks) -> None:
    refused(await hooks.send(push(), secret=None), 400, "webhookNotSigned")
    refused(await hooks.send(push(), secret="of another project"), 400, "invalidWebhookSignature")
    refused(await hooks.send(push(), secret=""), 400, "invalidWebhookSignature")
    refused(await hooks.post({}, push()), 400, "webhookNotSigned")
    refused(
        await hooks.post({"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": "guess"}, push()),
        400,
        "invalidWebhookSignature",
    )
    refused(await hooks.send(push(), project="0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"), 404, "projectDoesNotExist")
    assert await hooks.received() == []


async def test_what_starts_nothing_says_why_and_is_in_the_log(hooks: Hooks) -> None:
    answer = await hooks.send(b'{"zen": "be quiet"}', event="ping")
    assert answer.status_code == 200
    assert "ping" in answer.json()["ignored"]
    received, handled = await hooks.events(answer)
    assert isinstance(received, WebhookReceived)
    assert received.change is None
    assert handled == WebhookHandled((), "webhookIgnored", answer.json()["ignored"])


@pytest.mark.parametrize("body", [b"payload=%7B%7D", b"[" * 100_000, b'{"ref": 7}'], ids=["form", "nested", "number"])
async def test_a_body_that_cannot_be_read_is_refused_and_the_project_shows_why(hooks: Hooks, body: bytes) -> None:
    for _ in range(2):
        refused(await hooks.send(body), 400, "invalidWebhook")
    ((received, handled),) = await hooks.received()
    assert isinstance(received, WebhookReceived)
    assert received.event == "push"
    assert isinstance(handled, WebhookHandled)
    assert (handled.runs, handled.code) == ((), "invalidWebhook")


async def test_a_webhook_of_ten_mebibytes_is_taken_and_a_larger_one_is_refused(hooks: Hooks) -> None:
    padding = MAX_WEBHOOK_BYTES - len(push(commits=[{"id": COMMIT, "message": ""}]))
    body = push(commits=[{"id": COMMIT, "message": "x" * padding}])
    assert (await hooks.send(body)).status_code == 200
    assert len(hooks.owners.appended()) < 10_000
    refused(await hooks.send(body + b" ", "d-2"), 413, "bodyTooLarge")


@pytest.fixture
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstream.gateway.routes.webhooks.MAX_UNVERIFIED_BYTES", 3_000)


class BegunPost:
    """A webhook of which the beginning is sent: a client that reads the answer before it has sent all."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.answer = asyncio.create_task(reader.read())

    @classmethod
    async def send(cls, hooks: Hooks, beginning: bytes, size: int) -> BegunPost:
        url = httpx2.URL(hooks.owners.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        head = f"POST /webhooks?projectid={hooks.project} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        writer.write(f"{head}X-GitHub-Event: push\r\nContent-Length: {size}\r\n\r\n".encode() + beginning)
        return cls(reader, writer)

    async def answered(self) -> bytes:
        answer = await self.answer
        self.writer.close()
        return answer


@pytest.mark.usefixtures("_little_memory")
async def test_bodies_of_unknown_senders_are_bounded_together(hooks: Hooks) -> None:
    body = push(padding="x" * 2_000)
    both = {(post := await BegunPost.send(hooks, body[:2_000], len(body))).answer: post for _ in range(2)}
    (refused_one,), (waiting,) = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    answer = await both[refused_one].answered()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after" in answer
    assert b"webhooksBusy" in answer
    both[waiting].writer.write(body[2_000:])
    assert b"webhookNotSigned" in await both[waiting].answered()
    assert (await hooks.send(body)).status_code == 200


async def test_a_body_that_does_not_arrive_in_time_is_refused(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstream.gateway.routes.webhooks.BODY_SECONDS", 0.05)
    post = await BegunPost.send(hooks, b"{", 10)
    answer = await post.answered()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"requestTimeout" in answer


async def test_the_same_delivery_without_an_id_is_the_same_webhook(hooks: Hooks) -> None:
    headers = {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": SECRET}
    body = json.dumps({"ref": "refs/heads/main", "after": "0" * 40, "project": {"id": 7}}).encode()
    first, second = [await hooks.post(headers, body) for _ in range(2)]
    assert first.status_code == 200, first.text
    assert first.json() == second.json()
    ((received,),) = await hooks.received()
    assert isinstance(received, WebhookReceived)
    assert received.delivery == hashlib.sha256(body).hexdigest()
    assert received.change is not None
    assert (received.change.kind, received.change.commit) == ("delete", "")
    assert SECRET not in received.delivery + received.event

"""POST /webhooks: a git host reports a push, a tag or a pull request of a project.

One append and the response; nothing is started by it yet. The id of the webhook is derived from the host's id of the
delivery, so that one that is sent again is the same webhook.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream.commits import Head
from runstream.config.sealed import open_text
from runstream.errors import BadRequestError, InternalError, NotExistError
from runstream.events.webhook import WebhookChange, WebhookEvent, WebhookHandled, WebhookReceived
from runstream.gateway.context import GatewayContext, json_response
from runstream.gateway.requests import read_content
from runstream.hosts.port import HostType
from runstream.hosts.webhooks import (
    MAX_WEBHOOK_BYTES,
    PullRequestPushed,
    ReceivedWebhook,
    RefDeleted,
    RefPushed,
    check_signature,
    event_of,
    parse_webhook,
    sending_host,
)
from runstream.ids import commit_id, content_hash, derived_id
from runstream.limits import MAX_WORD_BYTES
from runstream.log.port import AppendConflictError
from runstream.subjects import webhook_address
from runstream.telemetry import current_traceparent

PATH = "/webhooks"
ACTOR = "webhook"
"""The author of what a webhook appends, and of its runs."""
MAX_UNVERIFIED_BYTES = 64 << 20
"""Maximum size of the bodies, together, whose signatures are not checked yet."""
BODY_SECONDS = 30.0
"""Maximum time for a body to arrive."""
_MESSAGE_BYTES = 16 << 10
_WORD_BYTES = 1024


def receiving_routes(context: GatewayContext) -> APIRouter:
    """Return the route that takes webhooks. It is for hosts, not for clients: a signature is its login."""
    router = APIRouter(include_in_schema=False)
    bodies = UnverifiedBodies(MAX_UNVERIFIED_BYTES)

    @router.post(PATH)
    async def receive(
        request: Request,
        projectid: Annotated[str, Query(max_length=MAX_WORD_BYTES, description="the project's id")] = "",
    ) -> Response:
        """Take a webhook that is signed with the project's webhook secret. Responds once it is durable."""
        project = context.config.state.projects.get(projectid)
        if project is None:
            raise NotExistError(
                f"there is no project with the id {projectid[:80]!r}",
                code="projectDoesNotExist",
                hint="the URL of a webhook ends with ?projectid= and the project's id",
            )
        secret = open_text(context.keyring, project.webhook_secret, "project", project.id, "webhook_secret")
        host = sending_host(request.headers)
        async with bodies.of(request) as body:
            # Ten megabytes take tens of milliseconds.
            received, refusal = await asyncio.to_thread(_read, project.id, secret, host, dict(request.headers), body)
        webhook_id = await _append(context, received, refusal)
        if refusal is not None and refusal.code == "invalidWebhook":
            raise refusal
        return json_response({"id": webhook_id, "ignored": "" if refusal is None else refusal.message})

    return router


class UnverifiedBodies:
    """The bodies of webhooks whose senders are not known yet: anyone can send them, so their sum is bounded."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0

    @asynccontextmanager
    async def of(self, request: Request) -> AsyncIterator[bytes]:
        """Read a body, which counts while the block lasts.

        Raises BadRequestError `bodyTooLarge` or `requestTimeout`, and InternalError `webhooksBusy` while there are too
        many.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            taken += size
            self._held += size
            if self._held > self._limit:
                raise InternalError("too many webhooks arrive at once", code="webhooksBusy", hint="send it again soon")

        try:
            yield await _body(request, take)
        finally:
            self._held -= taken


async def _body(request: Request, take: Callable[[int], None]) -> bytes:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await read_content(request, MAX_WEBHOOK_BYTES, "push fewer commits at once", take)
    except TimeoutError as error:
        raise BadRequestError(
            f"the webhook did not arrive within {BODY_SECONDS:.0f} s", code="requestTimeout", hint="send it again"
        ) from error


def _read(
    project_id: str, secret: str, host: HostType, headers: Mapping[str, str], body: bytes
) -> tuple[WebhookReceived, BadRequestError | None]:
    """Return a webhook, and why it starts nothing. Raises BadRequestError for one without the right signature."""
    check_signature(host, secret, headers, body, now=datetime.now(UTC).timestamp())
    event, delivery = event_of(host, headers)
    refusal: BadRequestError | None = None
    try:
        found = parse_webhook(host, headers, body)
        if found.ignored:
            refusal = BadRequestError(found.ignored, code="webhookIgnored")
    except BadRequestError as error:
        found, refusal = ReceivedWebhook(delivery, event, "", "", None), error
    received = WebhookReceived(
        project_id,
        host,
        _word(delivery) or content_hash(body),
        _word(event),
        _word(found.sender),
        _word(found.repository_id),
        _change(found),
    )
    return received, refusal


def _change(found: ReceivedWebhook) -> WebhookChange | None:
    match found.change:
        case None:
            return None
        case RefPushed(ref, commit, message):
            return WebhookChange(
                "push", ref.ref, _word(commit), _cut(message, _MESSAGE_BYTES), "", same_repository=True, link=""
            )
        case RefDeleted(ref):
            return WebhookChange("delete", ref.ref, "", "", "", same_repository=True, link="")
        case PullRequestPushed(number, ref, commit, title, same_repository, link):
            return WebhookChange(
                "pull_request",
                ref.ref,
                _word(commit),
                _cut(title, _MESSAGE_BYTES),
                number,
                same_repository=same_repository,
                link=_word(link),
            )


async def _append(context: GatewayContext, received: WebhookReceived, refusal: BadRequestError | None) -> str:
    """Append a webhook once, however often it is sent; return its id."""
    webhook_id = derived_id("webhook", received.project_id, received.host, received.delivery)
    address = webhook_address(received.project_id, webhook_id, context.log.partitions)
    events: list[WebhookEvent] = [received]
    if refusal is not None:
        events.append(WebhookHandled((), refusal.code, refusal.message))
    identity = commit_id("received", address.aggregate, 1)
    commit = Head().next_commit(
        address, events, time=datetime.now(UTC), actor=ACTOR, identity=identity, trace=current_traceparent()
    )
    with suppress(AppendConflictError):  # it was received before, and handled since
        await context.log.append(commit)
    return webhook_id


def _word(text: str) -> str:
    return _cut(text, _WORD_BYTES)


def _cut(text: str, size: int) -> str:
    """Return the beginning of a text, in at most `size` bytes of UTF-8."""
    return text.encode(errors="replace")[:size].decode(errors="ignore")

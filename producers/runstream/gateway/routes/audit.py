"""GET /audit: who changed users, organizations, projects, secrets, variables and remote sources."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from runstream import api
from runstream.commits import Position
from runstream.config.audit import AuditedCommit, ThingKey
from runstream.config_folding import PARTITION
from runstream.domain.config.permissions import OK, Action, Actor, status
from runstream.domain.config.references import find_project
from runstream.domain.config.refusals import missing
from runstream.domain.config.state import ConfigState
from runstream.errors import BadRequestError
from runstream.gateway.config_requests import ConfigRequest
from runstream.gateway.context import GatewayContext, documented, json_response
from runstream.gateway.cursors import CURSOR_HEADER, decode_cursor, encode_cursor
from runstream.gateway.routers import api_router
from runstream.limits import MAX_WORD_BYTES

MAX_ENTRIES = 500


class _AuditCursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    start: str
    """The position behind which the page begins."""
    project: str
    user: str
    since: str


def audit_routes(context: GatewayContext) -> APIRouter:
    """Return the route of the audit trail."""
    router = api_router("audit")

    @router.get("/audit", openapi_extra=documented(None, list[api.AuditEntry]))
    async def read_audit(
        request: Request,
        project: Annotated[str, Query(max_length=MAX_WORD_BYTES, description="only of this project: id or path")] = "",
        user: Annotated[str, Query(max_length=MAX_WORD_BYTES, description="only by the user of this name")] = "",
        since: Annotated[str, Query(max_length=100, description="only at this time or later, with its zone")] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_ENTRIES, description="of entries, at most")] = 100,
        cursor: Annotated[str, Query(max_length=1 << 15, description="of the page before")] = "",
    ) -> Response:
        """Return changes, the earliest first: an administrator sees all, an owner those of what the owner has.

        A page may have fewer entries than the limit, and another one behind it, as the cursor says.
        """
        asked = ConfigRequest(context, request)
        state = await asked.fresh()
        project_id = _project_id(asked, state, project) if project else ""
        visible = _Visibility(state, asked.actor)

        def wanted(one: AuditedCommit) -> bool:
            return (
                (not user or user in one.author_names)
                and (not project_id or any(thing == ("project", project_id) for thing, _ in one.places))
                and visible.of(one.owner)
            )

        epoch, of = context.config.position.epoch, (project, user, since)
        found, more = await context.config.trail.page(_after(cursor, epoch, of), _time(since), wanted, limit)
        if user and not found and not cursor and not _known(context, asked, user, more):
            raise missing("user", user, code="userDoesNotExist")
        following = "" if more is None else encode_cursor(_AuditCursor(str(Position(epoch, PARTITION, more)), *of))
        return json_response([_entry(one) for one in found], headers={CURSOR_HEADER: following})

    return router


def _known(context: GatewayContext, asked: ConfigRequest, user: str, more: int | None) -> bool:
    """Return whether a user without changes on a page exists, or did as far as the sender may know."""
    if asked.state.named("user", "", user) is not None:
        return True
    return (asked.actor.admin or more is not None) and context.config.trail.knows_user(user)


class _Visibility:
    """Which changes a user may see: by the user or organization that they belong to."""

    def __init__(self, state: ConfigState, actor: Actor) -> None:
        self._state = state
        self._actor = actor
        self._known: dict[ThingKey, bool] = {}

    def of(self, owner: ThingKey) -> bool:
        """Return whether changes of what this owner has are visible."""
        if owner not in self._known:
            kind, key = owner
            user = self._state.users.get(key) if kind == "user" else None
            thing = self._state.organizations.get(key) if kind == "org" else user
            self._known[owner] = status(self._state, self._actor, Action.READ_AUDIT, thing) == OK
        return self._known[owner]


def _project_id(asked: ConfigRequest, state: ConfigState, project: str) -> str:
    """Return the id of a project that the sender owns. Raises NotExistError, ForbiddenError."""
    found = asked.seen(state, find_project, project)
    asked.require(state, Action.READ_AUDIT, found)
    return found.id


def _after(cursor: str, epoch: int, of: tuple[str, str, str]) -> int:
    """Return the sequence behind which a page begins. Raises BadRequestError for the cursor of another list."""
    if not cursor:
        return 0

    def fits(found: _AuditCursor) -> bool:
        return (found.project, found.user, found.since) == of and Position.parse(found.start).epoch == epoch

    return Position.parse(decode_cursor(cursor, _AuditCursor, fits).start).sequence


def _time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise BadRequestError(
            f"since must be a time with its zone (got {text!r})",
            code="invalidTime",
            hint="such as 2026-11-23T09:30:00Z",
        )
    return time


def _entry(one: AuditedCommit) -> api.AuditEntry:
    commit, (kind, key) = one.stored.commit, one.thing
    events = tuple(api.AuditedEvent(type(event).__name__, fields) for event, fields in one.events)
    return api.AuditEntry(
        str(one.stored.position), commit.time, one.author, kind, key, one.places[0][1], one.path, events
    )

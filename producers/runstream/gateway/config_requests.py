"""One request about users, organizations, projects, secrets or variables: its sender, the state, its change.

A change looks up what it names, and asks whether the sender may do it, on the state on which it is decided: what was
true a moment before does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar
from urllib.parse import unquote

from fastapi import Path, Query
from pydantic import AfterValidator
from starlette.requests import Request
from starlette.responses import Response

from runstream.commits import Position, parse_point
from runstream.config.store import AppendedChange
from runstream.domain.config.organization import Organization
from runstream.domain.config.permissions import OK, Action, Actor, Target, reading, refusal, require, status
from runstream.domain.config.project import Project
from runstream.domain.config.project_group import ProjectGroup
from runstream.domain.config.references import owner_of
from runstream.domain.config.seeing import find_seen
from runstream.domain.config.state import ConfigState, Decision
from runstream.domain.config.tree import group_of
from runstream.domain.config.user import User
from runstream.errors import RunstreamError
from runstream.gateway.config_bodies import decoded_leniently
from runstream.gateway.context import GatewayContext, json_response
from runstream.gateway.requests import read_content
from runstream.gateway.sender import Sender, sender_of
from runstream.limits import MAX_WORD_BYTES
from runstream.telemetry import current_traceparent

POSITION_HEADER = "Runstream-Config-Position"
"""The position that a change has, and that a later request wants to see, also at another gateway."""
Ref = Annotated[
    str,
    Path(max_length=MAX_WORD_BYTES, description="one segment: a / in it is escaped as %2F"),
    AfterValidator(unquote),
]
"""A thing that a path names: an id, a name, or an escaped path such as org%2Facme%2Fweb."""
T = TypeVar("T")
SeenT = TypeVar("SeenT", User, Organization, ProjectGroup, Project, User | Project, Project | ProjectGroup)

At = Annotated[
    str,
    Query(
        max_length=MAX_WORD_BYTES,
        description="as of this time (with its zone) or position of the config log; it needs a login",
    ),
]


def _reading(state: ConfigState, found: Target) -> Action:
    return Action.READ_USER if isinstance(found, User) else reading(state, found)


def _same(state: ConfigState, thing: Target) -> Target | None:
    """Return the same thing in another state; None where it does not exist."""
    match thing:
        case User():
            return state.users.get(thing.id)
        case Organization():
            return state.organizations.get(thing.id)
        case ProjectGroup():
            return state.groups.get(thing.id)
        case Project():
            return state.projects.get(thing.id)


class ConfigRequest:
    """A request to the config service."""

    def __init__(self, context: GatewayContext, request: Request) -> None:
        self._context = context
        self._request = request
        self.sender: Sender = sender_of(request)

    @property
    def actor(self) -> Actor:
        """The sender, as permissions know it."""
        return self.sender.actor

    @property
    def state(self) -> ConfigState:
        """The state of now. Raises InternalError while it is not loaded."""
        return self._context.config.state

    async def fresh(self) -> ConfigState:
        """Return a state that includes the position which the request names. Raises InternalError `configBehind`."""
        if wanted := self._request.headers.get(POSITION_HEADER, ""):
            await self._context.config.reached(Position.parse(wanted))
        return self.state

    async def state_at(self, at: str) -> ConfigState:
        """Return the state as of a point in the past, which needs a login; for an empty text, the state of now.

        `seen` decides what the sender may see of it. Raises UnauthorizedError, BadRequestError, InternalError.
        """
        now = await self.fresh()
        if not at:
            return now
        self.require(now, Action.READ_USER)
        return await self._context.config.past.at(parse_point(at))

    def seen(
        self, state: ConfigState, find: Callable[[ConfigState, str], SeenT], reference: str, at: str = ""
    ) -> SeenT:
        """Return what a reference names in the state as of `at`, if the sender may read it.

        Raises the refusal; for something that the sender must not learn of, NotExistError as for a missing thing.
        """

        def refused(found: Target) -> RunstreamError | None:
            if self.may_see(state, found, at):
                return None
            action = _reading(state, found)
            answer = 404 if at else status(state, self.actor, action, found)
            return refusal(answer, action, found, self.actor)

        return find_seen(state, find, reference, refused)

    def may_see(self, state: ConfigState, found: Target, at: str) -> bool:
        """Return whether the sender may read something in the state as of `at`.

        The past is for the owner of now, and for those who could read it then and still can.
        """
        if not at:
            return status(state, self.actor, _reading(state, found), found) == OK
        now = self.state
        if status(now, self.actor, Action.READ_AUDIT, self.owner_now(state, found)) == OK:
            return True
        today = _same(now, found)
        if today is None or status(now, self.actor, _reading(now, today), today) != OK:
            return False
        return isinstance(found, User) or status(state, self.actor, _reading(state, found), found) == OK

    def owner_now(self, state: ConfigState, found: Target) -> Target | None:
        """Return the user or organization of something in a state, as it is now; None once it is deleted."""
        owner = owner_of(state, group_of(state, found)) if isinstance(found, ProjectGroup | Project) else found
        return _same(self.state, owner)

    def require(self, state: ConfigState, action: Action, thing: Target | None = None) -> None:
        """Raise the refusal if the sender may not do it."""
        require(state, self.actor, action, thing)

    async def body(self, kind: type[T]) -> T:
        """Decode the body. Raises BadRequestError."""
        return decoded_leniently(await read_content(self._request, self._context.settings.max_body_bytes), kind)

    async def change(
        self, decide: Callable[[ConfigState], Decision], show: Callable[[ConfigState], None] = lambda _: None
    ) -> dict[str, str]:
        """Append a change with the sender as its author; return the headers of the response.

        `show` reads the state that ends with the change.
        """
        changed: AppendedChange = await self._context.config.change(
            decide, actor=self.sender.author, trace=current_traceparent(), show=show
        )
        return {POSITION_HEADER: str(changed.position)} if changed.position else {}

    async def changed(
        self, decide: Callable[[ConfigState], Decision], view: Callable[[ConfigState], object], *, status: int = 200
    ) -> Response:
        """Append a change, and return a response with the view of the state that ends with it."""
        views: list[object] = []
        headers = await self.change(decide, lambda state: views.append(view(state)))
        return json_response(views[-1], status=status, headers=headers)

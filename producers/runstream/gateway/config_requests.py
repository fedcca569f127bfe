"""One request about users, organizations, projects, secrets or variables: its sender, the state, its change.

A change looks up what it names, and asks whether the sender may do it, on the state on which it is decided: what was
true a moment before does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar
from urllib.parse import unquote

from fastapi import Path
from pydantic import AfterValidator
from starlette.requests import Request
from starlette.responses import Response

from runstream.commits import Position
from runstream.config.store import AppendedChange
from runstream.domain.config.permissions import Action, Actor, Thing, require
from runstream.domain.config.state import ConfigState, Decision
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

    def require(self, state: ConfigState, action: Action, thing: Thing = None) -> None:
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

"""The sender of a request, as the middleware has authenticated it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from runstream.domain.config.permissions import ADMIN_TOKEN, ANONYMOUS, Actor

SENDER = "runstream.sender"
"""The key of the sender in the scope of a request."""
AUTHENTICATE = "runstream.authenticate"
"""The key of a function in the scope of a request, which authenticates it again."""


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender of a request."""

    actor: Actor
    author: str
    """The author of the commits that the request appends: `user:<name>`, or `admin` for the admin token."""
    session: str = ""
    """The id of the session whose cookies the request has."""
    headers: Sequence[tuple[str, str]] = ()
    """Headers that the response gets, such as renewed cookies."""

    @property
    def anonymous(self) -> bool:
        """True without a valid token or session."""
        return not self.actor.user_id and not self.actor.admin

    @property
    def run_author(self) -> str:
        """The author of commits about runs, where the admin token was the only sender at first: `user:admin`."""
        return self.author if self.actor.user_id else "user:admin"


NO_SENDER = Sender(ANONYMOUS, "")
HOLDER = Sender(ADMIN_TOKEN, "admin")
"""The holder of the admin token."""


def sender_of(request: Request) -> Sender:
    """Return the sender of a request."""
    sender: Sender = request.scope.get(SENDER, NO_SENDER)
    return sender

"""Who may read and push the repositories at /repos/: their user, and the tasks of that user's runs.

Git sends a user name and a password; the password is a token, and the name does not count. Clients that set headers
themselves send `Authorization: token TOKEN`. To others, a repository does not exist.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request

from runstream.config.tokens import authenticate
from runstream.domain.config.permissions import Action, require
from runstream.errors import ForbiddenError, NotExistError, UnauthorizedError
from runstream.gateway.context import GatewayContext
from runstream.gateway.git_http import Access
from runstream.gateway.runs.clone_tokens import is_clone_token, require_clone_token
from runstream.git.server import RepositoryName


@dataclass(frozen=True, slots=True)
class GitAccess:
    """The access to the repositories of users."""

    context: GatewayContext
    now: Callable[[], datetime]

    async def authorize(self, request: Request, name: RepositoryName, access: Access) -> None:
        """Raise RunstreamError unless the request may read the repository, or push to it."""
        state = self.context.config.state
        token = _token_of(request.headers.get("authorization", ""))
        if not token and access == "push" and self.context.settings.git_anonymous_push and name.user_id in state.users:
            return
        if not token:
            raise UnauthorizedError(
                "the request has no token", code="missingToken", hint="give a token of yours as the password"
            )
        if is_clone_token(token):
            if access == "push":
                raise ForbiddenError("the token of a run reads a repository, and does not push", hint="use your token")
            await require_clone_token(self.context.log, self.context.keyring, token, str(name))
            return
        actor = authenticate(state, token, self.now())
        if actor.user_id != name.user_id:
            raise NotExistError(
                f"there is no repository {name}, or it is not yours",
                code="repositoryDoesNotExist",
                hint="push to /repos/<your user id>/<repository uuid>.git",
            )
        action = Action.DIRECT_RUN if access == "push" else Action.READ_DIRECT_RUN
        require(state, actor, action, state.users[actor.user_id])


def _token_of(authorization: str) -> str:
    """Return the token of a header; empty without one. Raises UnauthorizedError for another scheme."""
    scheme, _, given = authorization.partition(" ")
    match scheme.lower():
        case "":
            return ""
        case "token" | "bearer":
            return given.strip()
        case "basic":
            try:
                return base64.b64decode(given.strip(), validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError) as error:
                raise _unreadable() from error
    raise _unreadable()


def _unreadable() -> UnauthorizedError:
    return UnauthorizedError(
        "the header Authorization is neither Basic nor a token", code="invalidToken", hint="give a token as password"
    )

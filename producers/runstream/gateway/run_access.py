"""Which sender may see runs, act on them and create them: it follows from the group root of a run.

`/project/<id>/…` is decided by the project, `/user/<id>/…` by the user. Runs of other groups, which have no owner, are
for administrators alone, who may do everything here. A run that a sender may not see does not exist for the sender.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial

from runstream.domain.config.permissions import (
    OK,
    READING,
    RUNNING,
    Action,
    Actor,
    acting_on_runs,
    owner_of_runs,
    reading_runs,
    refusal,
    require,
    status,
)
from runstream.domain.config.project import Project
from runstream.domain.config.state import ConfigState
from runstream.domain.config.tree import groups_below
from runstream.domain.config.user import User
from runstream.errors import BadRequestError, ForbiddenError, NotExistError, RunstreamError
from runstream.gateway.context import GatewayContext
from runstream.gateway.sender import Sender
from runstream.ids import is_uuid
from runstream.log.runs import find_run, locate_run
from runstream.names import project_of

_CLONE = re.compile(r"(?P<user>[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})-.*", re.DOTALL)
"""The cache group of direct runs: the user's id and that of the clone."""
MAX_ROOTS = 20_000
"""Maximum number of projects whose runs a list without a group has."""


class Wish(Enum):
    """What a sender wants to do with a run."""

    SEE = auto()
    ACT = auto()
    """Stop, cancel, pause, resume, annotate or restart it."""
    APPROVE = auto()
    DELETE = auto()
    CREATE = auto()


async def require_run(context: GatewayContext, sender: Sender, run_id: str, wish: Wish) -> Callable[[Sender], None]:
    """Raise NotExistError for a run that the sender may not see, ForbiddenError for what the sender may not do.

    Return what raises them later, by what is so then.
    """
    if sender.actor.admin:
        _require_scope(sender.actor, wish)
        if wish is not Wish.APPROVE:  # by a user, where the run has an owner
            return partial(_require_admin, wish)
    try:
        found = await find_run(context.log, await locate_run(context.log, run_id), also_deleted=True)
    except NotExistError as error:
        raise _hidden_run(run_id) from error
    group = found.run.group
    if sender.actor.admin and not is_uuid(project_of(group).rpartition("/")[2]):
        return partial(_require_admin, wish)
    _require(context, sender, group, wish, _hidden_run(run_id))
    return lambda later: _require(context, later, group, wish, _hidden_run(run_id))


def _require_admin(wish: Wish, sender: Sender) -> None:
    require(None, sender.actor, Action.ADMINISTER)
    _require_scope(sender.actor, wish)


def sees_runs(context: GatewayContext, sender: Sender, group: str) -> bool:
    """Return whether the sender may see the runs of a group, by what is so now."""
    if sender.actor.admin:
        return True
    state = context.config.state
    owner = owner_of_runs(state, group)
    return owner is not None and status(state, sender.actor, reading_runs(state, owner), owner) == OK


def require_seen(context: GatewayContext, sender: Sender, run_id: str, group: str) -> None:
    """Raise NotExistError for a run, read already, that the sender may not see."""
    if not sender.actor.admin:
        _require(context, sender, group, Wish.SEE, _hidden_run(run_id))


def require_group(context: GatewayContext, sender: Sender, group: str, wish: Wish = Wish.SEE) -> None:
    """Raise NotExistError for a group whose runs the sender may not see, ForbiddenError for other wishes."""
    if sender.actor.admin:
        _require_scope(sender.actor, wish)
        return
    hidden = NotExistError(
        f"there is no project or user of group {group[:80]!r}, or you may not see it",
        code="projectDoesNotExist",
        hint="a group is /project/<id>/branch/<name> or /user/<id>/branch/<name>",
    )
    _require(context, sender, group, wish, hidden)


def require_cache_group(context: GatewayContext, sender: Sender, group: str, cache_group: str) -> None:
    """Raise ForbiddenError for a run with the caches of a group for which the sender may not create runs."""
    if not cache_group or sender.actor.admin or project_of(cache_group) == project_of(group):
        return
    try:
        require_group(context, sender, cache_group, Wish.CREATE)
    except RunstreamError as error:
        raise ForbiddenError(
            f"the caches of {cache_group[:80]!r} are not yours to share",
            hint="leave cache_group out, or name /project/<id> or /user/<id> of which you may create runs",
        ) from error


def require_caches(context: GatewayContext, sender: Sender, group: str) -> None:
    """Raise NotExistError or ForbiddenError unless the sender may act on the runs that own the caches of a group.

    Caches of all groups, and of groups that no project or user owns, are for administrators.
    """
    if sender.actor.admin:
        require(None, sender.actor, Action.ADMINISTER)
        return
    if not group:
        raise ForbiddenError(
            "only administrators may list the caches of all groups",
            hint="name a group with `group` (`--group`): /project/<id> or /user/<id>",
        )
    clone = _CLONE.fullmatch(group)
    require_group(context, sender, f"/user/{clone['user']}" if clone else group, Wish.ACT)


def own_roots(context: GatewayContext, sender: Sender) -> tuple[str, ...]:
    """Return the group roots of a user's runs: direct ones, and those of projects of the user and the organizations.

    Raises BadRequestError for too many of them.
    """
    state, user_id = context.config.state, sender.actor.user_id
    owners = [
        user_id,
        *(key for kind, key in state.referrers("user", user_id) if kind == "org" and _joined(state, key, user_id)),
    ]
    roots = [f"/user/{user_id}"]
    for group in (key for owner in owners for key in groups_below(state, state.root_group(owner))):
        roots += [f"/project/{key}" for key in state.names("project", group).values()]
        if len(roots) > MAX_ROOTS:
            raise BadRequestError(
                f"your projects are more than {MAX_ROOTS}", code="tooManyProjects", hint="name a group, /project/<id>"
            )
    return tuple(roots)


def _joined(state: ConfigState, organization_id: str, user_id: str) -> bool:
    return user_id in state.organizations[organization_id].members


def _require_scope(actor: Actor, wish: Wish) -> None:
    action = Action.READ_DIRECT_RUN if wish is Wish.SEE else Action.ACT_ON_RUN
    if wish is Wish.DELETE:
        action = Action.DELETE_LOGS
    if actor.scope != "admin" and action not in (READING if actor.scope == "read" else RUNNING):
        raise refusal(403, action, None, actor)


def _require(context: GatewayContext, sender: Sender, group: str, wish: Wish, hidden: NotExistError) -> None:
    if not sees_runs(context, sender, group):
        raise hidden
    state = context.config.state
    owner = owner_of_runs(state, group)
    if wish is not Wish.SEE and owner is not None:
        action = _action(owner, wish)
        if status(state, sender.actor, action, owner) != OK:
            raise refusal(403, action, owner, sender.actor)


def _action(owner: Project | User, wish: Wish) -> Action:
    if wish is Wish.APPROVE:
        return Action.APPROVE
    if wish is Wish.DELETE:
        return Action.DELETE_LOGS
    if wish is Wish.CREATE:
        return Action.DIRECT_RUN if isinstance(owner, User) else Action.CREATE_RUN
    return acting_on_runs(owner)


def _hidden_run(run_id: str) -> NotExistError:
    return NotExistError(
        f"run {run_id[:80]} does not exist, or you may not see it",
        code="runDoesNotExist",
        hint="`runstream run list` shows the runs that you may see",
    )


def require_groups(context: GatewayContext, sender: Sender, groups: Sequence[str]) -> tuple[str, ...]:
    """Return the groups of a list: those that the request names, for others than administrators at least their own."""
    if sender.actor.admin or groups:
        for group in groups:
            require_group(context, sender, group)
        return tuple(groups)
    return own_roots(context, sender)

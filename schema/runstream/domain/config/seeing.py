"""Lookups for a sender. What the sender must not learn of gives the error of a reference to nothing, word for word.

Such a refusal has the status 404. A path through an organization that is hidden is one through a missing organization,
whatever the rest of the path names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, assert_never

from runstream.domain.config.organization import Organization
from runstream.domain.config.permissions import Target
from runstream.domain.config.project import Project
from runstream.domain.config.project_group import ProjectGroup
from runstream.domain.config.references import path_elements
from runstream.domain.config.refusals import missing
from runstream.domain.config.state import ConfigState
from runstream.domain.config.user import User
from runstream.errors import Kind, NotExistError, RunstreamError

T = TypeVar("T", User, Organization, ProjectGroup, Project, User | Project, Project | ProjectGroup)
Refusal = Callable[[Target], RunstreamError | None]
"""Return the error of reading a thing; None for a thing that the sender may read."""


def find_seen(state: ConfigState, find: Callable[[ConfigState, str], T], reference: str, refused: Refusal) -> T:
    """Return what a reference names, if the sender may read it. Raises the refusal, and as `find` does."""
    _require_seen_organization(state, reference, refused)
    found = find(state, reference)
    error = refused(found)
    if error is None:
        return found
    raise missing_thing(found, reference) if error.kind is Kind.NOT_EXIST else error


def missing_thing(thing: User | Organization | ProjectGroup | Project, reference: str) -> NotExistError:
    """Return the error of a reference to a thing that does not exist."""
    match thing:
        case Project():
            return missing("project", reference, code="projectDoesNotExist")
        case ProjectGroup():
            return missing("project group", reference, code="projectGroupDoesNotExist")
        case Organization():
            return missing("organization", reference, code="organizationDoesNotExist")
        case User():
            return missing("user", reference, code="userDoesNotExist")
    assert_never(thing)


def _require_seen_organization(state: ConfigState, reference: str, refused: Refusal) -> None:
    if "/" not in reference or (elements := path_elements(reference))[:1] != ["org"] or len(elements) < 2:
        return
    organization = state.organizations.get(state.named("org", "", elements[1]) or "")
    if organization is None:
        return
    error = refused(organization)
    if error is not None and error.kind is Kind.NOT_EXIST:
        raise missing_thing(organization, elements[1])

"""A config state for tests: commands as in the reference, and decisions that are applied at once."""

from __future__ import annotations

from datetime import datetime
from itertools import count
from typing import Any

from runstream.domain.config.organization import Organization
from runstream.domain.config.project import Project
from runstream.domain.config.project_group import ProjectGroup
from runstream.domain.config.references import find_organization, find_project, find_project_group, find_user
from runstream.domain.config.state import ConfigState, Decision
from runstream.domain.config.user import User
from tests.domain.config.commands import decide
from tests.domain.world import START


class ConfigWorld:
    """A state, with ids `id-1`, `id-2`, …"""

    def __init__(self, *commands: tuple[Any, ...]) -> None:
        self.state = ConfigState()
        self._ids = count(1)
        for command in commands:
            self.do(*command)

    def new_id(self) -> str:
        return f"id-{next(self._ids)}"

    def do(self, *command: Any) -> None:
        """Perform a command of the reference."""
        self.apply(decide(self.state, self.new_id, *command))

    def apply(self, decision: Decision, at: datetime = START) -> None:
        for change in decision:
            self.state.apply(change.kind, change.id, change.events, at)

    def user(self, name: str) -> User:
        return find_user(self.state, name)

    def org(self, name: str) -> Organization:
        return find_organization(self.state, name)

    def group(self, path: str) -> ProjectGroup:
        return find_project_group(self.state, path)

    def project(self, path: str) -> Project:
        return find_project(self.state, path)


ACME = (
    ("create_user", "ada"),
    ("create_user", "bob"),
    ("create_user", "eve"),
    ("create_org", "acme", "public", "ada"),
    ("set_member", "acme", "bob", "member"),
    ("create_group", "org/acme", "tools", "public"),
    ("create_project", "org/acme/tools", "web", "public"),
    ("create_project", "user/ada", "own", "public"),
)
"""An organization with the owner ada and the member bob, and eve outside; a project of each kind of owner."""

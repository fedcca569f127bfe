"""A gateway with users, projects and git repositories: over logs in memory, with real git."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2

from runstream.config.sealed import seal_secret, seal_text
from runstream.config.store import ConfigFollower, ConfigStore
from runstream.config.tokens import new_token
from runstream.domain.config.decisions import organizations, projects, secrets, users
from runstream.domain.config.references import find_parent_group
from runstream.domain.config.user import User
from runstream.events.organization import Visibility
from runstream.events.project import ProjectSettings, Repository
from runstream.events.secret import TreePlace
from runstream.events.user import TokenScope
from runstream.events.variable import SecretValue
from runstream.gateway.context import GitRepositories
from runstream.gateway.reads import Reads
from runstream.gateway.runs.restart import Restarts
from runstream.git.mirrors import Mirrors
from runstream.git.server import GitServer
from runstream.git.sources import AllowedSources
from runstream.ids import new_id
from runstream.settings import Settings
from runstream.telemetry.http_server import HttpServer
from tests.gateway.world import KEYRING, TOKEN, World
from tests.log.memory import MemoryLog


@dataclass
class Owners:
    """The gateway, with means to make what it serves."""

    world: World
    config_log: MemoryLog
    store: ConfigStore
    following: ConfigFollower
    git: GitRepositories
    url: str = ""

    @classmethod
    @asynccontextmanager
    async def serving(
        cls, folder: Path, *, reads: Callable[[MemoryLog], Reads] | None = None, **settings: Any
    ) -> AsyncIterator[Owners]:
        """Serve such a gateway; repositories below `folder / "hosts"` may be used by their path."""
        world = World.make()
        config_log = MemoryLog(service="config", partitions=1)
        store = ConfigStore(config_log)
        following = ConfigFollower(store)
        allowed = AllowedSources(folders=(folder / "hosts",))
        git = GitRepositories(Mirrors(folder / "mirrors", allowed), GitServer(folder / "repositories"))
        async with following.serving():
            changed = Settings(data_dir=folder, token=TOKEN, exposed_url="http://runstream.example", **settings)
            world.context = replace(world.context, store=store, git=git, settings=changed)
            if reads is not None:
                found = reads(world.log)
                restarts = Restarts(world.log, found, world.context.configs)
                world.context = replace(world.context, reads=found, restarts=restarts)
            owners = cls(world, config_log, store, following, git)
            server = HttpServer(world.app)
            await server.start()
            owners.url = server.url
            try:
                yield owners
            finally:
                await server.stop()

    def http(self, token: str) -> httpx2.AsyncClient:
        headers = {"Authorization": f"token {token}"} if token else {}
        return httpx2.AsyncClient(base_url=f"{self.url}/api/v1alpha", headers=headers)

    async def user(self, name: str, *, scope: TokenScope = "admin") -> tuple[User, str]:
        """Make a user with a token; return both."""
        key = new_id()
        await self.store.change(
            lambda state: users.decide_create_user(state, user_id=key, root_group_id=new_id(), name=name), actor="test"
        )
        return self.store.state.users[key], await self.token(key, scope=scope)

    async def token(self, user_id: str, *, scope: TokenScope = "admin") -> str:
        token, digest = new_token()
        made = users.NewToken(new_id(), f"token {new_id()}", digest, scope, None)
        await self.store.change(
            lambda state: users.decide_create_token(state.users[user_id], made, self.store.now()), actor="test"
        )
        return token

    async def organization(self, name: str, owner: User, *members: User, visibility: Visibility = "public") -> str:
        key = new_id()
        await self.store.change(
            lambda state: organizations.decide_create_organization(
                state,
                organization_id=key,
                root_group_id=new_id(),
                name=name,
                visibility=visibility,
                creator=state.users[owner.id],
            ),
            actor="test",
        )
        for member in members:
            await self.store.change(
                lambda state, member=member: organizations.decide_set_member(  # type: ignore[misc]
                    state.organizations[key], state.users[member.id], "member"
                ),
                actor="test",
            )
        return key

    async def project(
        self,
        parent: str,
        url: str = "",
        *,
        name: str = "web",
        kind: Any = "git",
        visibility: Visibility = "public",
        password: str = "",
        members_act: bool = False,
    ) -> str:
        """Make a project with this repository; return its id."""
        key = new_id()
        sealed = seal_text(KEYRING, password, "project", key, "password") if password else None
        repository = Repository(kind, "", "", "", "", url, "robot" if password else "", sealed, None, "", False)
        await self.store.change(
            lambda state: projects.decide_create_project(
                state,
                project_id=key,
                name=name,
                parent=find_parent_group(state, parent),
                visibility=visibility,
                repository=repository,
                settings=ProjectSettings(False, "", members_act),
                webhook_secret=seal_text(KEYRING, "hook", "project", key, "webhook_secret"),
            ),
            actor="test",
        )
        return key

    async def secret(self, project: str, name: str, data: Mapping[str, str]) -> None:
        key, parent = new_id(), TreePlace("project", project)
        sealed = seal_secret(KEYRING, key, parent, data)
        await self.store.change(
            lambda state: secrets.decide_create_secret(state, secret_id=key, parent=parent, name=name, data=sealed),
            actor="test",
        )

    async def variable(self, project: str, name: str, *values: SecretValue) -> None:
        key, parent = new_id(), TreePlace("project", project)
        await self.store.change(
            lambda state: secrets.decide_create_variable(
                state, variable_id=key, parent=parent, name=name, values=values
            ),
            actor="test",
        )

    def repository_url(self, path: str, token: str = "") -> str:
        """The URL of a user's repository, with a token as its password."""
        base = self.url.replace("://", f"://git:{token}@") if token else self.url
        return f"{base}/repos/{path}.git"

    def appended(self) -> str:
        """Everything that is in both logs."""
        return "".join(
            message.data.decode(errors="replace")
            for log in (self.world.log, self.config_log)
            for stream in log.streams
            for message in stream.messages
        )


def basic(token: str) -> str:
    return f"Basic {base64.b64encode(f'git:{token}'.encode()).decode()}"

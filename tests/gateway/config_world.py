"""A gateway over a config log in memory, and senders of requests to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2

from runstream.config.store import ConfigFollower, ConfigStore
from tests.gateway.world import TOKEN, World
from tests.log.memory import MemoryLog

V1 = "http://gateway/api/v1alpha"


@dataclass
class ConfigWorld:
    """A gateway with users, and their tokens."""

    world: World
    store: ConfigStore
    log: MemoryLog
    http: httpx2.AsyncClient
    tokens: dict[str, str] = field(default_factory=dict)
    """By the name of the user; `admin` for the admin token."""

    async def ask(
        self, who: str, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """Send a request as a user, as `admin`, or as nobody (empty)."""
        sent = {**({"Authorization": f"token {self.tokens[who]}"} if who else {}), **(headers or {})}
        return await self.http.request(method, f"{V1}{path}", json=body, headers=sent)

    async def done(self, who: str, method: str, path: str, body: Any = None) -> Any:
        """Send a request that has to succeed; return its JSON."""
        answer = await self.ask(who, method, path, body)
        assert answer.is_success, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    async def user(self, name: str) -> str:
        """Create a user with a token; return the id."""
        created = await self.done("admin", "POST", "/users", {"username": name})
        made = await self.done("admin", "POST", f"/users/{name}/tokens", {"token_name": "test"})
        self.tokens[name] = made["token"]
        return str(created["id"])


@asynccontextmanager
async def config_world(log: MemoryLog | None = None, **settings: Any) -> AsyncIterator[ConfigWorld]:
    """A gateway with no users."""
    log = log or MemoryLog(service="config", partitions=1)
    store = ConfigStore(log)
    world = World.make()
    world.context = replace(world.context, store=store, settings=replace(world.context.settings, **settings))
    transport = httpx2.ASGITransport(app=world.app)
    async with ConfigFollower(store).serving(), httpx2.AsyncClient(transport=transport) as http:
        yield ConfigWorld(world, store, log, http, {"admin": TOKEN})

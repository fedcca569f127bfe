"""A gateway over a config log in memory, and senders of requests to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2

from runstream.config.store import ConfigFollower, ConfigStore
from runstream.config.tokens import new_token
from runstream.domain.config.decisions.users import NewToken, decide_create_token
from runstream.domain.config.references import find_user
from runstream.gateway.sessions import Record, Sessions
from runstream.ids import new_id
from tests.gateway.world import TOKEN, World
from tests.log.memory import MemoryLog

V1 = "http://gateway/api/v1alpha"
EXPIRED = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass
class Clock:
    """A clock that a test moves."""

    now: datetime = datetime(2025, 3, 1, 12, tzinfo=UTC)

    def read(self) -> datetime:
        return self.now


@dataclass
class ConfigWorld:
    """A gateway with users, and their tokens."""

    world: World
    store: ConfigStore
    log: MemoryLog
    http: httpx2.AsyncClient
    tokens: dict[str, str] = field(default_factory=dict)
    """By the name of the user; `admin` for the admin token."""
    clock: Clock = field(default_factory=Clock)
    """Of sessions."""

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

    async def expired_token(self, name: str) -> str:
        """Give a user a token that has expired; return its text."""
        text, digest = new_token()
        made, before = NewToken(new_id(), f"expired {new_id()}", digest, "admin", EXPIRED), EXPIRED - timedelta(days=1)
        await self.store.change(
            lambda state: decide_create_token(find_user(state, name), made, before), actor=f"user:{name}"
        )
        return text


@dataclass
class MemoryRecords:
    """Records of sessions in this process; they do not expire by themselves."""

    kept: dict[str, Record] = field(default_factory=dict)
    revision: int = 0

    async def read(self, key: str) -> Record | None:
        return self.kept.get(key)

    async def keep(self, key: str, value: bytes, seconds: int, revision: int | None = None) -> bool:
        if revision is not None and revision != (self.kept[key].revision if key in self.kept else 0):
            return False
        self.revision += 1
        self.kept[key] = Record(value, self.revision)
        return True

    async def remove(self, key: str, revision: int | None = None) -> bool:
        if revision is not None and (key not in self.kept or self.kept[key].revision != revision):
            return False
        self.kept.pop(key, None)
        return True

    async def below(self, prefix: str) -> Mapping[str, bytes]:
        return {key: one.value for key, one in self.kept.items() if key.startswith(f"{prefix}.")}


@asynccontextmanager
async def config_world(log: MemoryLog | None = None, **settings: Any) -> AsyncIterator[ConfigWorld]:
    """A gateway with no users."""
    log = log or MemoryLog(service="config", partitions=1)
    store = ConfigStore(log)
    world = World.make()
    made = replace(world.context.settings, **settings)
    clock = Clock()
    sessions = Sessions(
        MemoryRecords(), made.token, store, secure=not made.insecure_cookies, origins=made.cors_origins, now=clock.read
    )
    world.context = replace(world.context, store=store, settings=made, sessions=sessions)
    transport = httpx2.ASGITransport(app=world.app)
    async with ConfigFollower(store).serving(), httpx2.AsyncClient(transport=transport) as http:
        yield ConfigWorld(world, store, log, http, {"admin": TOKEN}, clock)

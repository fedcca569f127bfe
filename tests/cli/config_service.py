"""A service with users, projects and secrets for the command line: a gateway in a thread, over logs in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from runstream.config.store import ConfigFollower, ConfigStore
from runstream.gateway.context import GitRepositories
from runstream.gateway.sessions import Sessions
from runstream.git.mirrors import Mirrors
from runstream.git.server import GitServer
from runstream.git.sources import AllowedSources
from tests.gateway.config_world import MemoryRecords
from tests.gateway.folding import FoldedLog
from tests.gateway.world import TOKEN, World
from tests.log.memory import MemoryLog


@contextmanager
def config_service(folder: Path | None = None, **settings: Any) -> Iterator[str]:
    """A service without users; yield its URL. The administrator's token is `world.TOKEN`.

    With `folder` it has git repositories in it, and lists runs; projects may name those below `folder / "hosts"`.
    """
    urls: list[str] = []
    started, loops = threading.Event(), list[asyncio.AbstractEventLoop]()
    stop = asyncio.Event()

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        store = ConfigStore(MemoryLog(service="config", partitions=1))
        world = World.make()
        world.context = replace(world.context, store=store, settings=replace(world.context.settings, **settings))
        sessions = Sessions(MemoryRecords(), TOKEN, store, secure=False)
        world.context = replace(world.context, sessions=sessions)
        if folder is not None:
            allowed = AllowedSources(folders=(folder / "hosts",))
            git = GitRepositories(Mirrors(folder / "mirrors", allowed), GitServer(folder / "repositories"))
            world.context = replace(world.context, git=git, reads=FoldedLog(world.log))
        async with ConfigFollower(store).serving(), world.served() as url:
            urls.append(url)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(10)
    try:
        yield urls[0]
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)

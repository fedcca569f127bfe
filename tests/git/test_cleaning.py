"""The clean-up of a gateway's repositories."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from runstream.git.cleaning import RepositoryCleaning
from runstream.git.mirrors import GitSource, Mirrors
from runstream.git.server import GitServer, GitService, RepositoryName
from runstream.git.sources import AllowedSources
from tests.git.repositories import git, new_repository

ID = "11111111-1111-4111-8111-111111111111"
NAME = RepositoryName(ID, "22222222-2222-4222-8222-222222222222")


async def test_refs_expire_and_unused_mirrors_go(tmp_path: Path) -> None:
    host = new_repository(tmp_path / "hosts" / "web", {"file": "one"})
    mirrors = Mirrors(tmp_path / "mirrors", AllowedSources(folders=(tmp_path / "hosts",)))
    server = GitServer(tmp_path / "repositories")
    await mirrors.fetch(ID, GitSource(str(host)), "refs/heads/main")
    await server.advertise(NAME, GitService.PUSH)
    git(host, "push", "-q", str(server.path(NAME)), "main")
    now = datetime.now(UTC)
    kept = {path.name for path in (tmp_path / "mirrors").glob("*.git")}
    for expiry, later, left in (
        (timedelta(days=30), timedelta(days=29), True),
        (None, timedelta(days=29), True),
        (timedelta(days=30), timedelta(days=31), False),
    ):
        cleaning = RepositoryCleaning(mirrors, server, expiry, lambda later=later: now + later)  # type: ignore[misc]
        await cleaning.clean()
        assert list((tmp_path / "repositories").glob("*/*.git")) == ([server.path(NAME)] if left else [])
        assert {path.name for path in (tmp_path / "mirrors").glob("*.git")} == (kept if left else set())


async def test_the_cleaning_runs_until_it_is_stopped(tmp_path: Path) -> None:
    cleaning = RepositoryCleaning(
        Mirrors(tmp_path / "mirrors"), GitServer(tmp_path / "repositories"), None, lambda: datetime.now(UTC)
    )
    await cleaning.start()
    await cleaning.stop()
    await cleaning.stop()

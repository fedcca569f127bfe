"""Several gateways: what is pushed to one is cloned from another, as they share the repositories of users."""

from __future__ import annotations

from pathlib import Path

import pytest

from runstream.errors import NotExistError
from runstream.git.server import GitServer, GitService
from runstream.service.wiring.gateway import git_repositories
from runstream.settings import Settings
from tests.git.repositories import commit, new_repository
from tests.git.test_server import NAME, run, served


def server_of(folder: Path, shared: Path | None = None) -> GitServer:
    return git_repositories(Settings(data_dir=folder, git_repositories_dir=shared), folder).server


async def test_a_push_to_one_gateway_is_cloned_from_another(tmp_path: Path) -> None:
    shared, work = tmp_path / "shared", new_repository(tmp_path / "work")
    async with (
        served(server_of(tmp_path / "first", shared), shared) as first,
        served(server_of(tmp_path / "second", shared), shared) as second,
    ):
        for pushed_to, cloned_from in ((first, second), (second, first)):
            pushed = commit(work, {"file": pushed_to.url})
            await run(work, "push", "-q", "-f", pushed_to.repository(), "HEAD:refs/heads/main")
            found = await run(work, "ls-remote", cloned_from.repository(), "refs/heads/main")
            assert found.split() == [pushed, "refs/heads/main"]
            target = tmp_path / f"clone-{pushed[:7]}"
            await run(tmp_path, "clone", "-q", "-b", "main", cloned_from.repository(), str(target))
            assert (target / "file").read_text() == pushed_to.url


async def test_without_a_shared_directory_each_gateway_has_its_own(tmp_path: Path) -> None:
    first, second = server_of(tmp_path / "first"), server_of(tmp_path / "second")
    await first.advertise(NAME, GitService.PUSH)
    await first.advertise(NAME, GitService.FETCH)
    with pytest.raises(NotExistError):
        await second.advertise(NAME, GitService.FETCH)

"""gitserver_test.json: which refs and repositories a cleaning removes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runstream.git.server import GitServer, GitService, RepositoryName
from tests.git.repositories import git, new_repository

from .cases import cases

NAME = RepositoryName("11111111-1111-4111-8111-111111111111", "33333333-3333-4333-8333-333333333333")
EXPIRY = timedelta(days=30)


@cases("gitserver_test.json")
async def test_cleaning(case: dict[str, Any], tmp_path: Path) -> None:
    now = datetime.now(UTC)
    server = GitServer(tmp_path / "served")
    await server.advertise(NAME, GitService.PUSH)
    path, clone = server.path(NAME), new_repository(tmp_path / "clone", {"file": "one"})
    for ref, old in (("refs/heads/branch", case["branch_old"]), ("refs/tags/tag", case["tag_old"])):
        date = f"@{int((now - EXPIRY * (2 if old else 0)).timestamp())} +0000"
        made = git(clone, "commit-tree", "-m", ref, "main^{tree}", GIT_COMMITTER_DATE=date, GIT_AUTHOR_DATE=date)
        git(clone, "push", "-q", str(path), f"{made}:{ref}")
    await server.clean(now, EXPIRY)
    expected = case["expect"]
    assert path.exists() is expected["repository_exists"]
    left = git(path, "for-each-ref", "--format=%(refname)").splitlines() if path.exists() else []
    assert ("refs/heads/branch" in left) is expected.get("branch_exists", False)
    assert ("refs/tags/tag" in left) is expected.get("tag_exists", False)

"""Which commit of which repository a run is about."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runstream.cli.create_command import _group_of
from runstream.cli.repository import enclosing_source, find_source
from runstream.errors import BadRequestError, NotExistError


def _git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=me", "-c", "user.email=me@example.com")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "my project"
    folder.mkdir()
    _git(folder, "init", "-q", "-b", "main")
    (folder / "file").write_text("one")
    _git(folder, "add", "file")
    _git(folder, "commit", "-q", "-m", "the first")
    _git(folder, "tag", "v1")
    _git(folder, "checkout", "-q", "-b", "feature/x")
    return folder


def test_what_is_checked_out(repository: Path) -> None:
    source = find_source(str(repository), "")
    assert (source.url, source.branch, source.tag, source.message) == (str(repository), "feature/x", "", "the first")
    assert source.commit == _git(repository, "rev-parse", "HEAD")
    assert _group_of(source) == "/project/my-project/branch/feature%2Fx"


def test_branch_tag_and_commit(repository: Path) -> None:
    commit = _git(repository, "rev-parse", "HEAD")
    assert find_source(str(repository), "main").branch == "main"
    tag = find_source(str(repository), "v1")
    assert (tag.tag, tag.commit, _group_of(tag)) == ("v1", commit, "/project/my-project/tag/v1")
    plain = find_source(str(repository), commit[:10])
    assert (plain.branch, plain.tag, plain.commit) == ("", "", commit)
    assert _group_of(plain) == f"/project/my-project/ref/{commit}"


def test_a_url_is_asked_without_cloning(repository: Path) -> None:
    url = f"file://{str(repository).replace(' ', '%20')}"
    _git(repository, "checkout", "-q", "main")
    default, named, tagged = find_source(url, ""), find_source(url, "feature/x"), find_source(url, "v1")
    assert (default.branch, named.branch, tagged.tag) == ("main", "feature/x", "v1")
    assert default.commit == _git(repository, "rev-parse", "main")
    with pytest.raises(NotExistError, match="has no ref nothing"):
        find_source(url, "nothing")


def test_the_repository_around_a_file(repository: Path, tmp_path: Path) -> None:
    (repository / "sub").mkdir()
    found = enclosing_source(repository / "sub" / "config.yml")
    assert found is not None
    assert found.url == str(repository)
    assert enclosing_source(tmp_path / "config.yml") is None


@pytest.mark.parametrize(("path", "ref"), [("nowhere", ""), ("my project", "nothing"), (".", "")])
def test_what_is_not_there_is_told(repository: Path, tmp_path: Path, path: str, ref: str) -> None:
    with pytest.raises(NotExistError) as caught:
        find_source(str(tmp_path / path), ref)
    assert caught.value.hint


def test_options_of_git_are_not_taken(repository: Path) -> None:
    with pytest.raises(BadRequestError):
        find_source("--upload-pack=touch x", "")
    with pytest.raises(BadRequestError):
        find_source(str(repository), "--output=x")

"""Which commit of which repository a run is about."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runstream.cli.config_inputs import read_config
from runstream.cli.repository import enclosing_commit, find_commit
from runstream.cli.run_commands import group_of_commit
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
    source = find_commit(str(repository), "")
    assert (source.url, source.branch, source.tag, source.message) == (str(repository), "feature/x", "", "the first")
    assert source.commit == _git(repository, "rev-parse", "HEAD")
    assert group_of_commit(source) == "/project/my-project/branch/feature%2Fx"


def test_branch_tag_and_commit(repository: Path) -> None:
    commit = _git(repository, "rev-parse", "HEAD")
    assert find_commit(str(repository), "main").branch == "main"
    tag = find_commit(str(repository), "v1")
    assert (tag.tag, tag.commit, group_of_commit(tag)) == ("v1", commit, "/project/my-project/tag/v1")
    plain = find_commit(str(repository), commit[:10])
    assert (plain.branch, plain.tag, plain.commit) == ("", "", commit)
    assert group_of_commit(plain) == f"/project/my-project/ref/{commit}"


def test_a_url_is_asked_without_cloning(repository: Path) -> None:
    url = f"file://{str(repository).replace(' ', '%20')}"
    _git(repository, "checkout", "-q", "main")
    default, named, tagged = find_commit(url, ""), find_commit(url, "feature/x"), find_commit(url, "v1")
    assert (default.branch, named.branch, tagged.tag) == ("main", "feature/x", "v1")
    assert default.commit == _git(repository, "rev-parse", "main")
    with pytest.raises(NotExistError, match="has no ref nothing"):
        find_commit(url, "nothing")


@pytest.mark.parametrize("fetching", ["true", "false"])
def test_every_name_of_a_tag_leads_to_its_commit(tmp_path: Path, fetching: str) -> None:
    folder = repository_at(tmp_path / "own", "first", "second")
    _git(folder, "config", "uploadpack.allowAnySHA1InWant", fetching)
    _git(folder, "tag", "-a", "-m", "a tag", "one", "HEAD^")
    _git(folder, "tag", "-a", "-m", "a tag of a tag", "two", "one")
    commit = _git(folder, "rev-parse", "HEAD^")
    for tag in ("one", "two"):
        tag_id = _git(folder, "rev-parse", f"refs/tags/{tag}")
        for name in (tag, f"tags/{tag}", f"refs/tags/{tag}", tag_id, tag_id.upper()):
            for repository in both(folder):
                found = find_commit(repository, name)
                assert (found.commit, found.message) == (commit, "first"), (repository, name)


def test_a_ref_that_leads_to_no_commit_is_refused(tmp_path: Path) -> None:
    folder = repository_at(tmp_path / "own", "first")
    _git(folder, "tag", "tree", "HEAD^{tree}")
    _git(folder, "tag", "-a", "-m", "a tag of a tree", "annotated", "HEAD^{tree}")
    for name in ("tree", "annotated"):
        for ref in (name, _git(folder, "rev-parse", f"refs/tags/{name}")):
            for repository in both(folder):
                with pytest.raises(NotExistError, match="commit"):
                    find_commit(repository, ref)


def test_the_repository_around_a_file(repository: Path, tmp_path: Path) -> None:
    (repository / "sub").mkdir()
    found = enclosing_commit(repository / "sub" / "config.yml")
    assert found is not None
    assert found.url == str(repository)
    assert enclosing_commit(tmp_path / "config.yml") is None


def test_the_repository_around_a_file_may_have_no_work_tree(repository: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    _git(tmp_path, "clone", "-q", "--bare", str(repository), str(bare))
    found = enclosing_commit(bare / "info" / "config.yml")
    assert found is not None
    assert (found.url, found.commit) == (str(bare), _git(repository, "rev-parse", "HEAD"))
    for name in ("objects", "refs"):
        (tmp_path / "other" / name).mkdir(parents=True)
    (tmp_path / "other" / "HEAD").write_text("no repository")
    assert enclosing_commit(tmp_path / "other" / "config.yml") is None


@pytest.mark.parametrize(("path", "ref"), [("nowhere", ""), ("my project", "nothing"), (".", "")])
def test_a_missing_repository_or_ref_is_reported(repository: Path, tmp_path: Path, path: str, ref: str) -> None:
    with pytest.raises(NotExistError) as caught:
        find_commit(str(tmp_path / path), ref)
    assert caught.value.hint


def test_options_of_git_are_not_taken(repository: Path) -> None:
    with pytest.raises(BadRequestError):
        find_commit("--upload-pack=touch x", "")
    with pytest.raises(BadRequestError):
        find_commit(str(repository), "--output=x")


def repository_at(folder: Path, *messages: str) -> Path:
    folder.mkdir()
    _git(folder, "init", "-q", "-b", "main")
    for message in messages:
        _git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return folder


def both(folder: Path) -> tuple[str, str]:
    return str(folder), f"file://{folder}"


def test_a_ref_is_the_one_that_was_named_and_no_other_that_ends_like_it(tmp_path: Path) -> None:
    folder = repository_at(tmp_path / "r", "old")
    _git(folder, "branch", "zz/main")
    _git(folder, "branch", "refs/heads/main")
    _git(folder, "tag", "zz/v1")
    _git(folder, "commit", "-q", "--allow-empty", "-m", "new")
    _git(folder, "tag", "v1")
    for url in both(folder):
        for ref in ("main", "refs/heads/main", "heads/main", ""):
            source = find_commit(url, ref)
            assert (source.message, source.branch, group_of_commit(source)) == ("new", "main", "/project/r/branch/main")
        assert (find_commit(url, "v1").message, find_commit(url, "v1").tag) == ("new", "v1")
        assert find_commit(url, "zz/main").message == "old"
        with pytest.raises(NotExistError):
            find_commit(url, "ain")


def test_a_name_that_fits_a_branch_and_a_tag_is_reported_with_both(tmp_path: Path) -> None:
    folder = repository_at(tmp_path / "r", "one")
    _git(folder, "branch", "both")
    _git(folder, "tag", "both")
    for url in both(folder):
        with pytest.raises(BadRequestError, match="both is ambiguous: refs/heads/both and refs/tags/both"):
            find_commit(url, "both")
        assert find_commit(url, "refs/tags/both").tag == "both"


def test_an_annotated_tag_is_its_commit(tmp_path: Path) -> None:
    folder = repository_at(tmp_path / "r", "of the commit")
    _git(folder, "tag", "-a", "v1", "-m", "of the tag")
    for url in both(folder):
        source = find_commit(url, "v1")
        assert (source.commit, source.message) == (_git(folder, "rev-parse", "HEAD"), "of the commit")


def test_the_whole_message_is_read_wherever_the_repository_is(tmp_path: Path) -> None:
    folder = repository_at(tmp_path / "r", "docs\n\nmore\n\n[ci skip]")
    for url in both(folder):
        for ref in ("", "main"):
            assert find_commit(url, ref).message == "docs\n\nmore\n\n[ci skip]"


@pytest.mark.parametrize(
    "variable", ["GIT_DIR", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_QUARANTINE_PATH", "GIT_NAMESPACE"]
)
def test_variables_of_a_hook_do_not_lead_to_another_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    folder, other = repository_at(tmp_path / "r", "ours"), repository_at(tmp_path / "other", "theirs")
    monkeypatch.setenv(variable, str(other / ".git"))
    for url in both(folder):
        assert find_commit(url, "main").message == "ours"
    found = enclosing_commit(folder / "config.yml")
    assert found is not None
    assert (found.url, found.message) == (str(folder), "ours")


def test_settings_in_the_environment_reach_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = repository_at(tmp_path / "r", "one")
    for name, value in (
        ("COUNT", "1"),
        ("KEY_0", f"url.file://{folder}.insteadOf"),
        ("VALUE_0", "https://h.invalid/r"),
    ):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    assert find_commit("https://h.invalid/r", "").message == "one"


def test_a_repository_of_another_user_is_refused_in_the_words_of_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    folder = tmp_path / "r"
    subprocess.run(["git", "init", "-q", str(folder)], check=True, env={"PATH": "/usr/bin:/bin"})
    finders: list[Callable[[], object]] = [
        lambda: find_commit(str(folder), ""),
        lambda: enclosing_commit(folder / "config.yml"),
    ]
    for find in finders:
        with pytest.raises(NotExistError, match="dubious ownership") as refused:
            find()
        assert f"git config --global --add safe.directory {folder}" in str(refused.value.hint)


def test_changed_and_new_files_are_named_but_not_the_configuration(repository: Path) -> None:
    for name in ("file", "new ü", ".runstream/config.yml"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text("two")
    assert find_commit(str(repository), "").changed == ("file", "new ü")
    assert find_commit(str(repository), "main").changed == ()


def test_a_configuration_is_found_above_up_to_the_top_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / ".runstream").mkdir()
    (tmp_path / ".runstream" / "config.yml").write_text("runs: []")
    folder = repository_at(tmp_path / "r")
    (folder / "a" / "b").mkdir(parents=True)
    with pytest.raises(NotExistError, match="or above it up to"):
        read_config(None, folder / "a" / "b")
    (folder / ".agola").mkdir()
    (folder / ".agola" / "config.yml").write_text("runs: []")
    assert read_config(None, folder / "a" / "b").path == folder / ".agola" / "config.yml"

"""A working tree is saved as it is, and nothing in it or in the repository's state is changed."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runstream.errors import BadRequestError, NotExistError
from runstream.git.save import SavedTree, push_saved, save_working_tree
from tests.git.repositories import commit, git, new_repository

START = {"a": "1", "d/b": "2", "d/run.sh": "#!/bin/sh\n", ".gitignore": "*.o\nbuild/\n"}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "clone", START)


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Check that the block changes neither the index, HEAD, the files, nor what git says of them."""
    before = state(folder)
    yield
    assert state(folder) == before


def state(folder: Path) -> tuple[object, ...]:
    directory = Path(git(folder, "rev-parse", "--absolute-git-dir"))
    index = directory / "index"
    status = git(folder, "status", "--porcelain", "-z", "--ignored", GIT_OPTIONAL_LOCKS="0")
    kept = ("index", "HEAD", "ORIG_HEAD", "logs")
    others = sorted(path.name for path in directory.iterdir() if path.name.startswith(("runstream", *kept)))
    heads = git(folder, "for-each-ref", "refs/heads", "refs/tags")
    return status, index.read_bytes() if index.exists() else None, others, (directory / "HEAD").read_text(), heads


def entries(folder: Path, saved: SavedTree) -> dict[str, tuple[str, str]]:
    """The mode and the content of each path of a commit."""
    found = {}
    for line in git(folder, "ls-tree", "-r", "-z", saved.commit).split("\0"):
        if line:
            (mode, _, object_id), name = line.partition("\t")[0].split(), line.partition("\t")[2]
            found[name] = (mode, "" if mode == "160000" else git(folder, "cat-file", "blob", object_id))
    return found


def names(folder: Path, saved: SavedTree) -> set[str]:
    return set(entries(folder, saved))


def test_a_dirty_tree_is_saved_as_it_is(clone: Path) -> None:
    (clone / "a").write_text("changed")
    (clone / "d/b").unlink()
    (clone / "d/run.sh").chmod(0o755)
    (clone / "link").symlink_to("a")
    (clone / "new").write_text("new")
    (clone / "staged").write_text("staged")
    git(clone, "add", "staged")
    (clone / "staged").write_text("changed after it was staged")
    (clone / "x.o").write_text("ignored")
    with unchanged(clone):
        saved = save_working_tree(clone / "d")
    assert entries(clone, saved) == {
        ".gitignore": ("100644", "*.o\nbuild/"),
        "a": ("100644", "changed"),
        "d/run.sh": ("100755", "#!/bin/sh"),
        "link": ("120000", "a"),
        "new": ("100644", "new"),
        "staged": ("100644", "changed after it was staged"),
    }
    assert (saved.branch, saved.top, saved.nested) == ("main", clone, ())
    assert git(clone, "rev-parse", saved.ref) == saved.commit
    assert git(clone, "log", "--format=%P %s", saved.commit) == " runstream direct run"


def test_untracked_and_ignored_files_are_saved_if_asked_for(clone: Path) -> None:
    for name in ("new", "x.o", "build/deep/y"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(name)
    tracked = set(START)
    for untracked in (True, False):
        for ignored in (True, False):
            with unchanged(clone):
                saved = save_working_tree(clone, untracked=untracked, ignored=ignored)
            more = ({"new"} if untracked else set()) | ({"x.o", "build/deep/y"} if ignored else set())
            assert names(clone, saved) == tracked | more


NAMES = st.sampled_from(["a", "d/b", "d", "new", "a/below", "line\nbreak", "ü", "-n", ":(top)x", "x.o", "*", " "])
STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "remove", "link", "exec", "stage", "unstage", "intend"]), NAMES), max_size=8
)


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(STEPS, st.booleans())
def test_any_tree_is_saved_and_stays_what_it_was(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]], untracked: bool
) -> None:
    clone = new_repository(tmp_path_factory.mktemp("any") / "clone", START)
    for number, (step, name) in enumerate(steps):
        apply(clone, step, name, str(number % 3))
    with unchanged(clone):
        saved = save_working_tree(clone, untracked=untracked)
    assert entries(clone, saved) == dict(expected(clone, untracked=untracked))


def apply(clone: Path, step: str, name: str, content: str) -> None:
    path = clone / name
    if step in ("write", "link"):
        for parent in path.parents:
            if parent.is_symlink() or parent.is_file():
                parent.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            subprocess.run(["rm", "-r", str(path)], check=True)
        path.unlink(missing_ok=True)
        if step == "write":
            path.write_text(content)
        else:
            path.symlink_to(content)
    elif step == "remove" and (path.is_file() or path.is_symlink()):
        path.unlink()
    elif step == "exec" and path.is_file() and not path.is_symlink():
        path.chmod(0o755)
    elif step == "stage":
        git(clone, "--literal-pathspecs", "add", "--", name, check=False)
    elif step == "unstage":
        git(clone, "--literal-pathspecs", "rm", "-q", "--cached", "--", name, check=False)
    elif step == "intend":
        git(clone, "--literal-pathspecs", "add", "-N", "--", name, check=False)


def expected(clone: Path, *, untracked: bool) -> Iterator[tuple[str, tuple[str, str]]]:
    for folder, folders, files in os.walk(clone):
        if ".git" in folders:
            folders.remove(".git")
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for path in (Path(folder) / name for name in [*files, *links]):
            name = str(path.relative_to(clone))
            if name in START or (untracked and not name.endswith(".o")):
                status = path.lstat()
                if stat.S_ISLNK(status.st_mode):
                    yield name, ("120000", str(path.readlink()))
                else:
                    mode = "100755" if status.st_mode & 0o100 else "100644"
                    yield name, (mode, path.read_text().removesuffix("\n"))


def test_a_change_in_the_same_moment_as_the_index_is_saved(clone: Path) -> None:
    git(clone, "config", "core.trustctime", "false")
    moment = ((clone / "a").stat().st_mtime_ns,) * 2
    (clone / "a").write_text("7")
    for path in (clone / "a", clone / ".git/index"):
        os.utime(path, ns=moment)
    assert entries(clone, save_working_tree(clone))["a"][1] == "7"


def test_a_repository_without_a_commit_or_an_index_is_saved(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "trunk")
    (folder / "a").write_text("1")
    with unchanged(folder):
        saved = save_working_tree(folder)
    assert (names(folder, saved), saved.branch) == ({"a"}, "trunk")
    git(folder, "add", "a")
    with unchanged(folder):
        assert names(folder, save_working_tree(folder, untracked=False)) == set()


def test_a_missing_index_is_made_of_the_branch(clone: Path) -> None:
    (clone / ".git/index").unlink()
    (clone / "a").write_text("changed")
    with unchanged(clone):
        saved = save_working_tree(clone, untracked=False)
    assert entries(clone, saved)["a"][1] == "changed"
    assert names(clone, saved) == set(START)


def test_a_merge_with_conflicts_is_saved_with_its_marks(clone: Path) -> None:
    git(clone, "checkout", "-q", "-b", "other")
    commit(clone, {"a": "other"})
    git(clone, "checkout", "-q", "main")
    commit(clone, {"a": "main"})
    git(clone, "merge", "other", check=False)
    with unchanged(clone):
        saved = save_working_tree(clone)
    assert "<<<<<<< HEAD" in entries(clone, saved)["a"][1]


def test_a_detached_head_is_refused_with_the_way_out(clone: Path) -> None:
    git(clone, "checkout", "-q", "--detach")
    with pytest.raises(BadRequestError, match="no branch is checked out") as refused:
        save_working_tree(clone)
    assert refused.value.code == "detachedHead"
    assert "git switch" in refused.value.hint


def test_a_folder_without_a_working_tree_is_refused(tmp_path: Path, clone: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(clone), "bare.git")
    for folder in (tmp_path / "bare.git", tmp_path):
        with pytest.raises(NotExistError, match="there is no working tree"):
            save_working_tree(folder)


def test_a_submodule_is_saved_as_its_commit_and_a_nested_repository_is_named(tmp_path: Path, clone: Path) -> None:
    inner = new_repository(tmp_path / "inner", {"x": "1"})
    git(clone, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "module")
    commit(clone, {})
    moved = commit(clone / "module", {"x": "2"})
    (clone / "module/x").write_text("dirty")
    new_repository(clone / "nested", {"y": "1"})
    (clone / "empty").mkdir()
    git(clone / "empty", "init", "-q")
    with unchanged(clone):
        saved = save_working_tree(clone)
    assert f"160000 commit {moved}\tmodule" in git(clone, "ls-tree", saved.commit)
    assert saved.nested == ("empty/", "nested/")
    assert not any(name.startswith("nested") for name in names(clone, saved))


@pytest.mark.parametrize("cone", ["--cone", "--no-cone"])
def test_files_outside_a_sparse_checkout_stay_in_the_commit(clone: Path, cone: str) -> None:
    commit(clone, {"e/f": "3"})
    git(clone, "sparse-checkout", "set", cone, "d" if cone == "--cone" else "/d/")
    assert not (clone / "e").exists()
    (clone / "d/b").write_text("changed")
    (clone / "e").mkdir()
    (clone / "e/new").write_text("outside")
    with unchanged(clone):
        saved = save_working_tree(clone)
    assert {"a", "e/f", "d/b"} <= names(clone, saved)
    assert entries(clone, saved)["d/b"][1] == "changed"
    assert entries(clone, saved)["e/f"][1] == "3"
    assert entries(clone, saved)["e/new"][1] == "outside"


def test_the_second_working_tree_of_a_repository_has_its_own_index(tmp_path: Path, clone: Path) -> None:
    git(clone, "worktree", "add", "-q", "-b", "other", str(tmp_path / "second"))
    (tmp_path / "second" / "a").write_text("second")
    with unchanged(clone), unchanged(tmp_path / "second"):
        saved = save_working_tree(tmp_path / "second")
    assert (entries(clone, saved)["a"][1], saved.branch) == ("second", "other")


def test_a_split_index_is_read_and_not_written(clone: Path) -> None:
    git(clone, "update-index", "--split-index")
    shared = sorted(path.name for path in (clone / ".git").glob("sharedindex*"))
    (clone / "a").write_text("changed")
    with unchanged(clone):
        assert entries(clone, save_working_tree(clone))["a"][1] == "changed"
    assert sorted(path.name for path in (clone / ".git").glob("sharedindex*")) == shared


def test_no_hook_is_run_and_filters_of_the_user_are(clone: Path) -> None:
    for name in ("reference-transaction", "post-index-change", "pre-commit", "pre-push"):
        hook = clone / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\ntouch hook-ran\nexit 1\n")
        hook.chmod(0o755)
    git(clone, "config", "filter.upper.clean", "tr a-z A-Z")
    (clone / ".git/info").mkdir(exist_ok=True)
    (clone / ".git/info/attributes").write_text("loud filter=upper\n")
    (clone / "loud").write_text("quiet")
    saved = save_working_tree(clone)
    assert entries(clone, saved)["loud"][1] == "QUIET"
    assert not list(clone.rglob("hook-ran"))


def test_settings_of_the_user_refuse_no_file(clone: Path) -> None:
    for name, value in (("core.autocrlf", "true"), ("core.safecrlf", "true")):
        git(clone, "config", name, value)
    (clone / "lines").write_text("a\nb\n")
    assert "lines" in names(clone, save_working_tree(clone))


def test_a_file_that_cannot_be_read_is_named(clone: Path) -> None:
    (clone / "loud").write_text("x")
    (clone / ".git/info").mkdir(exist_ok=True)
    (clone / ".git/info/attributes").write_text("loud filter=broken\n")
    git(clone, "config", "filter.broken.clean", "exit 1")
    git(clone, "config", "filter.broken.required", "true")
    with unchanged(clone), pytest.raises(BadRequestError, match=r"git cannot save the untracked files: .*loud"):
        save_working_tree(clone)


def test_a_large_file_is_saved(clone: Path) -> None:
    with (clone / "large").open("wb") as file:
        file.truncate(64 << 20)
    saved = save_working_tree(clone)
    assert git(clone, "cat-file", "-s", f"{saved.commit}:large") == str(64 << 20)


def test_a_clone_keeps_its_id_and_takes_that_of_the_other_command(clone: Path, tmp_path: Path) -> None:
    first = save_working_tree(clone)
    assert save_working_tree(clone).clone_id == first.clone_id == git(clone, "config", "agola.repouuid")
    assert git(clone, "rev-parse", f"refs/gitsave/gitsavebranch-{first.clone_id}")
    git(tmp_path, "clone", "-q", str(clone), "second")
    assert save_working_tree(tmp_path / "second").clone_id != first.clone_id
    third = new_repository(tmp_path / "third", START)
    git(third, "config", "agola.repouuid", "44444444-4444-4444-8444-444444444444")
    assert save_working_tree(third).clone_id == "44444444-4444-4444-8444-444444444444"
    git(third, "config", "agola.repouuid", "../../x")
    assert save_working_tree(third).clone_id not in ("../../x", first.clone_id)


def test_only_http_is_pushed_to(clone: Path, tmp_path: Path) -> None:
    saved = save_working_tree(clone)
    for url in (str(tmp_path), f"file://{tmp_path}", "ext::touch ran", "--exec=touch ran", "ssh://127.0.0.1:1/x"):
        with pytest.raises(BadRequestError, match="git cannot push to") as refused:
            push_saved(saved, url, "refs/heads/main")
        assert refused.value.code == "gitFailed"
    assert not list(tmp_path.rglob("ran"))

"""The configuration of a commit is the file that a working tree of it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from runstream.cli.config_inputs import read_config
from runstream.errors import BadRequestError, RunstreamError
from runstream.evaluation.files import FOLDERS, NAMES
from runstream.git.command import Git, service_git
from runstream.git.committed import CommittedConfig, committed_config
from runstream.limits import MAX_FILE_BYTES
from tests.git.repositories import commit, git, new_repository


@pytest.fixture
def own(tmp_path: Path) -> Git:
    return service_git(tmp_path / "own")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return new_repository(tmp_path / "clone", {"ci.yml": "in: ci.yml\n"})


async def config(own: Git, clone: Path) -> CommittedConfig | None:
    return await committed_config(own, clone, git(clone, "rev-parse", "HEAD"))


async def test_the_first_file_of_the_search_is_read(own: Git, clone: Path) -> None:
    assert await config(own, clone) is None
    for path in reversed([f"{folder}/{name}" for folder in FOLDERS for name in NAMES]):
        commit(clone, {path: f"# {path}\n"})
        found = await config(own, clone)
        assert found is not None
        assert (found.path, found.name, found.content) == (path, path.rpartition("/")[2], f"# {path}\n")
        assert read_config(None, clone).path == clone / path


async def test_a_link_to_a_file_of_the_commit_is_followed_and_any_other_is_passed_over(own: Git, clone: Path) -> None:
    (clone / ".runstream").mkdir()
    for name, target in {
        "config.star": "/etc/passwd",
        "config.jsonnet": "../nowhere",
        "config.json": "config.json",
        "config.yml": "../ci.yml",
    }.items():
        (clone / ".runstream" / name).symlink_to(target)
    commit(clone, {})
    found = await config(own, clone)
    assert found is not None
    assert (found.path, found.content) == (".runstream/config.yml", "in: ci.yml\n")


async def test_a_folder_in_place_of_the_file_is_passed_over(own: Git, clone: Path) -> None:
    commit(clone, {".runstream/config.star/x": "", ".agola/config.yml": "runs: []"})
    found = await config(own, clone)
    assert found is not None
    assert found.path == ".agola/config.yml"


async def test_a_file_that_is_too_large_or_no_text_is_refused(own: Git, clone: Path) -> None:
    commit(clone, {".runstream/config.yml": "#" * (MAX_FILE_BYTES + 1)})
    with pytest.raises(BadRequestError) as refused:
        await config(own, clone)
    assert refused.value.code == "configTooLarge"
    (clone / ".runstream/config.yml").write_bytes(b"\xff\xfe")
    commit(clone, {})
    with pytest.raises(BadRequestError) as refused:
        await config(own, clone)
    assert refused.value.code == "configUnreadable"


async def test_imports_are_those_of_a_working_tree(own: Git, clone: Path) -> None:
    (clone / "secret").write_text("secret")
    (clone / ".runstream" / "lib").mkdir(parents=True)
    (clone / ".runstream" / "link").symlink_to("../secret")
    (clone / ".runstream" / "binary").write_bytes(b"\xff")
    program = "import 'lib/a.libsonnet' + importstr 'link' + importstr '../secret' + importstr 'binary' + import 'gone'"
    commit(
        clone,
        {
            ".runstream/config.jsonnet": program,
            ".runstream/lib/a.libsonnet": "importstr 'ü b' + importstr '../c'",
            ".runstream/lib/ü b": "b",
            ".runstream/c": "import 'lib/a.libsonnet'",
            ".runstream/unused": "x",
        },
    )
    found = await config(own, clone)
    assert found is not None
    assert found.imports == read_config(None, clone).imports
    assert sorted(found.imports) == ["c", "lib/a.libsonnet", "lib/ü b"]


async def test_too_many_imports_are_refused_by_both(own: Git, clone: Path) -> None:
    files = {f".runstream/{number}": f"import '{number + 1}'" for number in range(102)}
    commit(clone, {".runstream/config.jsonnet": "import '0'", **files})
    with pytest.raises(RunstreamError, match="imports more than 100 files") as refused:
        read_config(None, clone)
    assert refused.value.code == "configTooLarge"
    with pytest.raises(RunstreamError, match="imports more than 100 files") as refused:
        await config(own, clone)
    assert refused.value.code == "configTooLarge"

"""jsonnet imports what is in the configuration's folder, and nothing else, however it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from runstream.errors import BadRequestError
from runstream.evaluation.files import MAX_IMPORT_BYTES, MAX_IMPORTS, gather_imports, parse_file
from runstream.evaluation.program import EvaluationError
from runstream.runconfig.parse import ParsedConfig
from runstream.runconfig.refs import RefContext


def read(path: Path, source: str) -> ParsedConfig:
    path.write_text(source)
    imports = gather_imports(path, source)
    return parse_file("config.jsonnet", source, RefContext(), source=str(path), imports=imports)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / ".runstream"
    (folder / "lib" / "deep").mkdir(parents=True)
    (folder / "lib" / "task.libsonnet").write_text("(import 'deep/name.libsonnet') + { runtime: { type: 'host' } }")
    (folder / "lib" / "deep" / "name.libsonnet").write_text('{ name: importstr "../../name.txt" }')
    (folder / "name.txt").write_text("imported")
    (folder / "binary").write_bytes(b"\xff\xfe")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    return folder / "config.jsonnet"


@pytest.mark.parametrize("name", ["lib/task.libsonnet", "./lib/task.libsonnet", "lib/deep/../task.libsonnet"])
def test_files_of_the_folder_are_imported(path: Path, name: str) -> None:
    parsed = read(path, f"{{ runs: [{{ name: 'r', tasks: [import '{name}'] }}] }}")
    assert parsed.runs[0].tasks[0].name == "imported"


@pytest.mark.parametrize(
    "wanted",
    [
        "import '/etc/passwd'",
        "importstr '../secret.txt'",
        "importstr @'../secret.txt'",
        'importbin "lib/../../secret.txt"',
        "importstr 'link.txt'",
        "importstr 'absent.txt'",
        "importstr 'binary'",
        "importstr 'lib'",
        "importstr ''",
    ],
)
def test_nothing_else_is_imported(path: Path, wanted: str) -> None:
    with pytest.raises(EvaluationError) as refused:
        read(path, f"{{ runs: [{{ name: {wanted} }}] }}")
    assert "secret" not in refused.value.message.replace("secret.txt", "")
    assert "cannot be imported" in refused.value.message or "empty" in refused.value.message


def test_files_that_import_each_other_are_gathered_once(path: Path) -> None:
    (path.parent / "a.libsonnet").write_text("{ b: (import 'b.libsonnet').c }")
    (path.parent / "b.libsonnet").write_text("{ a: import 'a.libsonnet', c: 'both' }")
    assert read(path, "{ runs: [{ name: (import 'a.libsonnet').b }] }").runs[0].name == "both"


def test_a_chain_of_files_has_a_bound(path: Path) -> None:
    for n in range(MAX_IMPORTS + 1):
        (path.parent / f"{n}").write_text(f"import '{n + 1}'")
    with pytest.raises(BadRequestError, match="imports more than"):
        gather_imports(path, "import '0'")
    (path.parent / "big").write_text("a" * (MAX_IMPORT_BYTES + 1))
    with pytest.raises(BadRequestError, match="imports more than"):
        gather_imports(path, "importstr 'big'")


def test_a_problem_of_an_imported_file_names_its_path(path: Path) -> None:
    (path.parent / "a.libsonnet").write_text("{")
    with pytest.raises(EvaluationError, match=r"\.runstream/a\.libsonnet:1"):
        read(path, "import 'a.libsonnet'")

"""objectstorage_test, posix_test and store_test: object storage and its paths.

Not run: the cases of the minio backend, until there is an S3 backend.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from runstream.errors import BadRequestError
from runstream.objects import BytesSource, PosixObjects, paths

FOLDER = Path(os.environ.get("RUNSTREAM_CONFORMANCE") or Path(__file__).parents[3] / "shared" / "conformance")


def cases(file: str, **wanted: str) -> list[Any]:
    path = FOLDER / file
    if not path.exists():
        return [pytest.param({}, marks=pytest.mark.skip(reason=f"{path} is not there"))]
    found = json.loads(path.read_text())["cases"]
    return [pytest.param(case, id=case["id"]) for case in found if wanted.items() <= case.items()]


@pytest.mark.parametrize("case", cases("objectstorage_test.json", op="list", backend="posix"))
async def test_list(case: dict[str, Any], tmp_path: Path) -> None:
    storage = PosixObjects(tmp_path)
    for path in case["objects"]:
        await storage.write(path, BytesSource(b""), persist=True)
    for op in case["ops"]:
        found = storage.list(op["prefix"], start_after=op["start_after"], recursive=op["recursive"])
        assert [stored.path async for stored in found] == op["expect"]


@pytest.mark.parametrize("case", cases("objectstorage_test.json", op="write", backend="posix"))
async def test_write(case: dict[str, Any], tmp_path: Path) -> None:
    storage = PosixObjects(tmp_path)
    for op in case["ops"]:
        source = BytesSource(bytes(ord("a") + i % 26 for i in range(10000)))
        await storage.write(op["object"], source, size=op["size"], persist=op["persist"])
        assert (await storage.stat(op["object"])).size == op["expect"]["stat_size"]
        assert len(await source.read(20000)) == op["expect"]["unread_bytes"]


@pytest.mark.parametrize("case", cases("posix_test.json"))
async def test_delete_leaves_nothing(case: dict[str, Any], tmp_path: Path) -> None:
    storage = PosixObjects(tmp_path)
    for path in case["objects"]:
        await storage.write(path, BytesSource(b""), persist=True)
        await storage.delete(path)
    assert len(list((tmp_path / "data").rglob("*"))) == case["expect"]["data_dir_entries"]


@pytest.mark.parametrize("case", cases("store_test.json"))
def test_run_task_of_an_archive_path(case: dict[str, Any]) -> None:
    if case["expect"]["error"]:
        with pytest.raises(BadRequestError):
            paths.archive_owner(case["path"])
    else:
        assert paths.archive_owner(case["path"]) == case["expect"]["run_task_id"]

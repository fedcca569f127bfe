"""objectstorage_test, posix_test, old_posixflat_test and store_test: object storages, escaped names, paths.

The cases of the backend `minio` run against a server that speaks S3 over HTTP. The entry of `not_executed` that tells
the semantics of a flat namespace runs against posixflat, the flat one that we have.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runstream.errors import BadRequestError
from runstream.objects import BytesSource, ObjectStorage, PosixObjects, paths
from runstream.objects.posixflat import PosixFlatObjects, escape, unescape
from tests.conformance.cases import FOLDER, cases
from tests.objects.backends import Open, opener

_BACKENDS = {"posix": "posix", "minio": "s3", "posixflat": "posixflat"}
Case = dict[str, Any]


@pytest.fixture
def open_storage(case: Case, request: pytest.FixtureRequest) -> Open:
    return opener(_BACKENDS[case["backend"]], request)


@cases("objectstorage_test.json", "list")
async def test_list(case: Case, open_storage: Open) -> None:
    await check_lists(await open_storage(), case)


@cases("objectstorage_test.json", "write")
async def test_write(case: Case, open_storage: Open) -> None:
    storage = await open_storage()
    for op in case["ops"]:
        source = BytesSource(bytes(ord("a") + i % 26 for i in range(10000)))
        await storage.write(op["object"], source, size=op["size"], persist=op["persist"])
        assert (await storage.stat(op["object"])).size == op["expect"]["stat_size"]
        assert len(await source.read(20000)) == op["expect"]["unread_bytes"]


async def test_the_flat_namespace(tmp_path: Path) -> None:
    file = FOLDER / "objectstorage_test.json"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    for case in json.loads(file.read_text())["not_executed"]:
        await check_lists(PosixFlatObjects(tmp_path / case["test"]), case)


@cases("posix_test.json")
async def test_delete_leaves_nothing(case: Case, tmp_path: Path) -> None:
    await write_and_delete(PosixObjects(tmp_path), case)
    check_entries(tmp_path, case)


@cases("old_posixflat_test.json", "escape_unescape")
def test_escaped_names(case: Case) -> None:
    assert escape(case["object"]) == case["expect"]["escaped"]
    assert unescape(case["expect"]["escaped"]) == case["expect"]["unescaped"] == case["object"]


@cases("old_posixflat_test.json", "write_delete")
async def test_delete_leaves_nothing_of_escaped_names(case: Case, tmp_path: Path) -> None:
    await write_and_delete(PosixFlatObjects(tmp_path), case)
    check_entries(tmp_path, case)


@cases("store_test.json")
def test_run_task_of_an_archive_path(case: Case) -> None:
    if case["expect"]["error"]:
        with pytest.raises(BadRequestError):
            paths.run_task_id_from_path(case["path"])
    else:
        assert paths.run_task_id_from_path(case["path"]) == case["expect"]["run_task_id"]


async def check_lists(storage: ObjectStorage, case: Case) -> None:
    for path in case["objects"]:
        await storage.write(path, BytesSource(b""), persist=True)
    for op in case["ops"]:
        found = storage.list(op["prefix"], start_after=op["start_after"], recursive=op["recursive"])
        assert [stored.path async for stored in found] == op["expect"]


async def write_and_delete(storage: ObjectStorage, case: Case) -> None:
    for path in case["objects"]:
        await storage.write(path, BytesSource(b""), persist=True)
        await storage.delete(path)


def check_entries(folder: Path, case: Case) -> None:
    assert len(list((folder / "data").rglob("*"))) == case["expect"]["data_dir_entries"]

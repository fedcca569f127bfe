"""Saving files under a key, and restoring them in other runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from msgspec import structs

from runstream.api import CacheList
from runstream.codec import zstd
from runstream.errors import BadRequestError, NotExistError
from runstream.events.executor_task import ExecutorTaskPhase
from runstream.events.run_config import SaveContent, Step
from runstream.objects import paths
from runstream.objects.caches import StoredCaches, group_of
from runstream.sealing import seal_config, to_seal
from tests.executor.rig import KEYRING, SETTINGS, config_of, rig, run_step, task_of
from tests.sandboxes import needs_sandbox

SUCCESS, FAILED = ExecutorTaskPhase.SUCCESS, ExecutorTaskPhase.FAILED
GROUP = "/project/p"
ALL = (SaveContent("", "", ("**",)),)


def save(key: str, *contents: SaveContent) -> Step:
    return Step(type="save_cache", key=key, contents=contents or ALL)


def restore(*keys: str, dest_dir: str = "") -> Step:
    return Step(type="restore_cache", keys=keys, dest_dir=dest_dir)


@pytest.mark.parametrize("sandbox", [pytest.param("require", marks=needs_sandbox), "off"])
async def test_a_miss_then_a_hit_then_a_prefix(tmp_path: Path, sandbox: Literal["require", "off"]) -> None:
    key = 'deps-{{ env "KIND" }}-{{ sha256sum "lock" }}'
    contents = SaveContent("~/deps", "", ("**",))
    environment = {"environment": {"KIND": "a"}}
    async with rig(tmp_path, settings=replace(SETTINGS, sandbox=sandbox)) as it:
        first = await it.run(
            run_step("echo 1 > lock"),
            restore(key, dest_dir="~/deps"),
            run_step("mkdir -p ~/deps/x; echo one > ~/deps/x/file; ln -s x ~/deps/link"),
            save(key, contents),
            **environment,
        )
        assert first.task.phase is SUCCESS
        rendered = f"deps-a-{'4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865'}"
        assert await first.log(1) == f"no cache has a key that begins with '{rendered}'\n"
        (stored,) = [cache async for cache in StoredCaches(it.objects).list()]
        assert (stored.group, stored.key) == (GROUP, rendered)
        assert await first.log(3) == f"saved cache '{rendered}': 3 files and folders, {stored.size} bytes\n"
        again = await it.run(
            run_step("echo 1 > lock"),
            run_step("mkdir -p ~/deps/x; echo other > ~/deps/x/file"),
            restore(key, dest_dir="~/deps"),
            run_step("cat ~/deps/x/file ~/deps/link/file"),
            save(key, contents),
            **environment,
        )
        hit = f"cache hit: '{rendered}', {stored.size} bytes; restored 3 files and folders\n"
        assert [await again.log(step) for step in (2, 3)] == [hit, "one\none\n"]
        assert await again.log(4) == f"cache '{rendered}' exists already: nothing is saved\n"
        other = await it.run(
            run_step("echo 2 > lock"),
            restore(key, "deps-b", "deps-", dest_dir="d"),
            run_step("cat d/x/file"),
            **environment,
        )
        assert (await other.log(1)).startswith(f"cache hit: '{rendered}' for 'deps-', {stored.size} bytes; ")
        assert await other.log(2) == "one\n"
        assert not list(it.task_folder(other).glob("archives/*"))


async def test_the_newest_cache_of_a_prefix_is_restored(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        for number in (1, 3, 2):
            done = await it.run(run_step(f"echo {number} > file"), save(f"key-{number}"))
            assert done.task.phase is SUCCESS, await done.log(1)
        done = await it.run(restore("key-"), run_step("cat file"))
        assert await done.log(1) == "2\n"
        async for cache in StoredCaches(it.objects).list(GROUP, "key-2"):
            await StoredCaches(it.objects).delete(cache.group, cache.key)
        assert await (await it.run(restore("key-"), run_step("cat file"))).log(1) == "3\n"


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (save("{{ nothing }}"), "key '{{ nothing }}': `{{ nothing }}`: function 'nothing' does not exist"),
        (save('{{ md5sum "no" }}'), "home/project/no' cannot be read: No such file or directory"),
        (save('{{ md5sum "/etc/passwd" }}'), "'/etc/passwd' is outside of the task's own files"),
        (save('{{ env "MISSING" }}'), "the key is empty (is a variable in it not set?)"),
        (save("k" * 201), f"the key '{'k' * 80}' has 201 bytes"),
        (save("/" * 67), "has 201 bytes when it is escaped as in a URL; a key has at most 200"),
        (save("k", SaveContent("nothere", "", ("**",))), "source_dir 'nothere' is not a folder"),
        (restore("a", "{{"), "'{{' has no end"),
    ],
)
async def test_a_cache_that_cannot_be_says_why_and_leaves_nothing(tmp_path: Path, step: Step, said: str) -> None:
    async with rig(tmp_path) as it:
        done = await it.run(run_step("echo > file"), step)
        assert (done.task.phase, done.task.steps[1].exit_status) == (FAILED, 1)
        assert said in await done.log(1)
        assert done.task.fail_error.startswith("step 1 failed: ")
        assert said in done.task.fail_error
        assert [cache async for cache in StoredCaches(it.objects).list()] == []


async def test_a_stored_cache_that_is_no_archive_fails_the_step(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        whole = zstd.compress(b"x" * 100_000)
        for content, said in ((b"no tar", "the archive cannot be read"), (whole[:-9], "the archive cannot be read")):
            await it.objects.write_all({paths.cache("%2Fproject%2Fp", "bad"): content})
            done = await it.run(restore("ba"))
            assert done.task.phase is FAILED
            assert said in await done.log(0)
            assert f"cache 'bad' for 'ba', {len(content)} bytes, cannot be restored: " in await done.log(0)
            assert said in done.task.fail_error


def test_the_group_of_caches_is_the_project_or_a_name() -> None:
    assert group_of("/project/p/branch/main", "") == GROUP
    assert group_of("/user/ann/branch/main", "shared") == "shared"


@pytest.mark.parametrize("key", ["a/b c%", "é", "..", ".", "a.tar", "$&+=:@"])
async def test_any_key_is_found_again_in_its_group_alone(tmp_path: Path, key: str) -> None:
    async with rig(tmp_path) as it:
        caches = StoredCaches(it.objects)
        file = tmp_path / "file"
        file.write_bytes(b"x")
        assert await caches.create(GROUP, key, file)
        assert not await caches.create(GROUP, key, file)
        assert await caches.create(f"{GROUP}2", f"{key}2", file)
        assert [(one.group, one.key) async for one in caches.list(GROUP)] == [(GROUP, key)]
        found = await caches.newest(GROUP, key[:1])
        assert found is not None
        assert (found.key, found.size) == (key, 1)
        assert await caches.newest("/project", "") is None


@pytest.mark.parametrize("group", ["x" * 900, "ü" * 300, "/project/" + "名" * 80, "~" * 100])
async def test_a_group_with_a_long_name_has_its_caches(tmp_path: Path, group: str) -> None:
    async with rig(tmp_path) as it:
        caches = StoredCaches(it.objects)
        file = tmp_path / "file"
        file.write_bytes(b"x")
        assert await caches.create(group, "k", file)
        assert not await caches.create(group, "k", file)
        assert await caches.create(group + "2", "k2", file)
        found = await caches.newest(group, "k")
        assert found is not None
        async with await caches.read(found) as stored:
            assert await stored.read(0, 9) == b"x"
        listed = [(one.group, one.key) async for one in caches.list()]
        assert len({shown for shown, _ in listed}) == 2
        for shown, key in listed:
            await caches.delete(shown, key)
        assert await caches.find(group, "k") is None


@pytest.mark.parametrize(("secret", "said"), [("abc", "variable PIN is a secret"), ("long-enough", "is a secret")])
async def test_a_secret_is_not_part_of_a_key_however_short(tmp_path: Path, secret: str, said: str) -> None:
    task = structs.replace(task_of("task", save('s-{{ env "PIN" }}')), environment={"PIN": to_seal(secret)})
    config = seal_config(config_of(task), KEYRING)
    async with rig(tmp_path) as it:
        done = await it.assign(config.tasks["task"], config=config)
        assert (await done.settled()).phase is FAILED
        assert said in await done.log(0)
        assert [cache async for cache in StoredCaches(it.objects).list()] == []


async def test_restored_files_replace_what_is_there(tmp_path: Path) -> None:
    made = "mkdir d; echo new > d/f; echo new > file; ln -s file link"
    here = "echo old > d; echo old > file; ln -s nothere link"
    async with rig(tmp_path) as it:
        assert (await it.run(run_step(made), save("k"))).task.phase is SUCCESS
        done = await it.run(run_step(here), restore("k"), run_step("cat d/f file link"))
        assert await done.log(2) == "new\nnew\nnew\n"
        done = await it.run(run_step("mkdir file"), restore("k"))
        log = await done.log(1)
        assert log.startswith("cache 'k', ")
        assert log.endswith(" bytes, cannot be restored: 'file' cannot be restored: a folder is in its place\n")


async def test_a_list_of_caches_has_pages(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        caches = StoredCaches(it.objects)
        file = tmp_path / "file"
        file.write_bytes(b"x")
        for key in ("b", "a", "a/c"):
            await caches.create("g", key, file)
        first = await caches.page("", "", 2, "")
        second = await caches.page("", "", 2, first.cursor)
        assert ([one.key for one in (*first.caches, *second.caches)], second.cursor) == (["a/c", "a", "b"], "")
        assert [one.key for one in (await caches.page("g", "a", 9, "")).caches] == ["a/c", "a"]
        with pytest.raises(BadRequestError, match="cursor"):
            await caches.page("h", "", 2, first.cursor)
        await caches.delete("g", "a/c")
        with pytest.raises(NotExistError, match="has no cache 'a/c'"):
            await caches.delete("g", "a/c")
        assert await caches.page("h", "", 2, "") == CacheList((), "")

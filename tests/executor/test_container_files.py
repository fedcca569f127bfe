"""The files of a container, by the `tar` of GNU and of busybox; commands run on this machine in place of one."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import subprocess
import tarfile
import threading
import tracemalloc
from pathlib import Path

import pytest

from runstream.errors import BadRequestError
from runstream.events.run_config import SaveContent
from runstream.executor.drivers.container_files import ContainerCommand, ContainerFiles, Sink, read_fed
from runstream.executor.drivers.shell import in_variables, to_write
from runstream.executor.steps.archives import Packed
from runstream.executor.task import StoppedError

BUSYBOX = shutil.which("busybox")
needs_busybox = pytest.mark.skipif(BUSYBOX is None, reason="no busybox (apt-get install busybox-static)")


class LocalShell:
    """A shell with one kind of `tar`."""

    def __init__(self, programs: str) -> None:
        self.commands = 0
        self._programs = programs

    async def command(self, command: ContainerCommand) -> int:
        self.commands += 1
        process = await asyncio.create_subprocess_exec(
            *command.arguments,
            env={**command.environment, "PATH": self._programs},
            stdin=subprocess.PIPE if command.source is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

        async def feed() -> None:
            if command.source is not None and process.stdin is not None:
                async for chunk in command.source:
                    process.stdin.write(chunk)
                    await process.stdin.drain()
                process.stdin.close()

        async def read(stream: asyncio.StreamReader | None, sink: Sink) -> None:
            while stream is not None and (chunk := await stream.read(32 << 10)):
                if (room := sink(chunk)) is not None:
                    await room

        async def read_both() -> None:
            await asyncio.gather(
                read(process.stdout, command.output), read(process.stderr, command.errors or command.output)
            )

        try:
            await read_fed(read_both(), feed())
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001

    async def write_file(self, path: str, content: bytes, mode: int) -> None:
        texts = in_variables(content.decode())
        assert await self.command(ContainerCommand(to_write(path, mode, texts), texts, lambda _: None)) == 0


@pytest.fixture(params=["gnu", pytest.param("busybox", marks=needs_busybox)])
def shell(tmp_path: Path, request: pytest.FixtureRequest) -> LocalShell:
    """A shell with the `tar` of each kind."""
    programs = os.environ["PATH"]
    if request.param == "busybox":
        folder = tmp_path / "programs"
        folder.mkdir()
        for name in ("sh", "tar", "mkdir", "cat"):
            (folder / name).symlink_to(str(BUSYBOX))
        programs = str(folder)
    return LocalShell(programs)


@pytest.fixture
def files(tmp_path: Path, shell: LocalShell) -> ContainerFiles:
    """The files below the test's folder, which is the home."""
    files = ContainerFiles(shell)
    files.home = str(tmp_path / "home")
    (tmp_path / "home").mkdir()
    return files


@pytest.fixture
def home(files: ContainerFiles) -> Path:
    """Its home."""
    return Path(files.home)


def all_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def make(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)


async def packed(files: ContainerFiles, *contents: SaveContent) -> tuple[Packed, bytes]:
    target = io.BytesIO()
    return await files.pack(target, contents, "~", threading.Event()), target.getvalue()


async def saved(files: ContainerFiles, *paths: str, **fields: str) -> bytes:
    return (await packed(files, SaveContent(fields.get("source", "src"), fields.get("dest", ""), paths)))[1]


async def restored(files: ContainerFiles, archive: bytes, folder: str = "~/to", *, replace: bool = False) -> int:
    unpacking = files.unpacking(files.path(folder), threading.Event(), replace=replace)
    return await unpacking.unpack(io.BytesIO(archive), "first")


def names(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return sorted(tar.getnames())


def tar_of(*entries: tarfile.TarInfo, content: bytes = b"content") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            entry.size = len(content) if entry.isreg() else 0
            tar.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
    return target.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


async def test_what_is_saved_is_restored_with_modes_links_times_and_odd_names(
    files: ContainerFiles, home: Path
) -> None:
    source = home / "src"
    make(source, "a", "deep/b", "deep/run.sh", "with space", "line\nfeed", "-dash", "ünï")
    (source / os.fsdecode(b"bytes\xff")).write_text("odd")
    (source / "deep/run.sh").chmod(0o755)
    os.utime(source / "a", (1e9, 1e9))
    (source / "link").symlink_to("deep/b")
    (source / "dangling").symlink_to("/nowhere")
    os.link(source / "a", source / "deep/hard")
    (source / "empty").mkdir()
    (source / "closed").mkdir(0o555)
    long = "/".join(["long" * 20] * 5)
    make(source, long)
    archive = await saved(files, "**")
    assert await restored(files, archive) == len(names(archive))
    target = home / "to"
    assert {os.fsencode(p.relative_to(target)) for p in target.rglob("*")} == {
        os.fsencode(p.relative_to(source)) for p in source.rglob("*")
    }
    assert (target / "deep/run.sh").stat().st_mode & 0o777 == 0o755
    assert (target / "closed").stat().st_mode & 0o777 == 0o555
    assert (target / "a").stat().st_mtime == 1e9
    assert (target / "dangling").readlink() == Path("/nowhere")
    assert (target / "deep/hard").samefile(target / "a")
    assert (target / long).read_text() == long


@pytest.mark.parametrize(
    ("patterns", "selected"),
    [
        (("dist/**",), ["dist", "dist/a.txt", "dist/sub", "dist/sub/b.txt"]),
        (("dist/*.txt", "top"), ["dist/a.txt", "top"]),
        (("**/*.txt",), ["dist/a.txt", "dist/sub/b.txt", "other/c.txt"]),
        (("dist/sub",), ["dist/sub", "dist/sub/b.txt"]),
        (("link/**",), ["link"]),
    ],
)
async def test_patterns_select_as_for_host_tasks(
    files: ContainerFiles, home: Path, patterns: tuple[str, ...], selected: list[str]
) -> None:
    make(home / "src", "dist/a.txt", "dist/sub/b.txt", "other/c.txt", "top")
    (home / "src/link").symlink_to("dist")
    assert names(await saved(files, *patterns)) == selected
    assert names(await saved(files, *patterns, dest="x/y")) == [f"x/y/{name}" for name in selected]


async def test_a_pattern_that_selects_nothing_is_named(files: ContainerFiles, home: Path) -> None:
    make(home / "src", "a")
    found, archive = await packed(files, SaveContent("src", "", ("a", "nothere/*.x")))
    assert found.warnings == ("pattern 'nothere/*.x' selects nothing below src",)
    assert names(archive) == ["a"]
    found, _ = await packed(files, SaveContent("src", "", ()))
    assert found.entries == 0


async def test_the_content_of_a_hard_link_comes_although_its_first_name_is_not_selected(
    files: ContainerFiles, home: Path
) -> None:
    make(home / "src", "d/a")
    for name in ("b", "c"):
        os.link(home / "src/d/a", home / f"src/d/{name}")
    archive = await saved(files, "d/b", "d/c")
    await restored(files, archive)
    assert (home / "to/d/b").read_text() == "d/a"
    assert (home / "to/d/c").samefile(home / "to/d/b")
    assert not (home / "to/d/a").exists()


async def test_special_files_are_restored_as_empty_ones(files: ContainerFiles, home: Path) -> None:
    make(home / "src", "a")
    os.mkfifo(home / "src/fifo")
    archive = await saved(files, "**")
    assert names(archive) == ["a", "fifo"]
    await restored(files, archive)
    assert (home / "to/fifo").is_file()
    device = entry("device", tarfile.CHRTYPE)
    await restored(files, tar_of(device), "~/other")
    assert (home / "other/device").is_file()


@pytest.mark.parametrize(
    ("other", "said"),
    [("same", ""), ("different", "'x' would be two different files in the archive")],
)
async def test_one_path_of_two_sources_must_be_the_same(
    files: ContainerFiles, home: Path, other: str, said: str
) -> None:
    for folder, content in (("one", "same"), ("two", other)):
        (home / folder / "dir").mkdir(parents=True)
        (home / folder / "x").write_text(content)
    contents = [SaveContent(folder, "", ("**",)) for folder in ("one", "two")]
    if said:
        with pytest.raises(BadRequestError, match=said):
            await packed(files, *contents)
    else:
        assert names((await packed(files, *contents))[1]) == ["dir", "x"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (SaveContent("nothere", "", ("**",)), "sourceNotFolder"),
        (SaveContent("src/a", "", ("**",)), "sourceNotFolder"),
        (SaveContent("~someone", "", ("**",)), "invalidPath"),
        (SaveContent("src", "../up", ("**",)), "invalidPath"),
        (SaveContent("src", "", ("{",)), "invalidPattern"),
    ],
)
async def test_what_cannot_be_saved_is_named(
    files: ContainerFiles, home: Path, content: SaveContent, code: str
) -> None:
    make(home / "src", "a")
    with pytest.raises(BadRequestError) as caught:
        await packed(files, content)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([entry("../out")], "archiveEntryRefused"),
        ([entry("/out")], "archiveEntryRefused"),
        ([entry("a/../../out")], "archiveEntryRefused"),
        ([entry("link", tarfile.SYMTYPE, ".."), entry("link/out")], "archiveEntryRefused"),
        ([entry("file"), entry("file/out")], "archiveEntryRefused"),
        ([entry("hard", tarfile.LNKTYPE, "../out")], "archiveEntryRefused"),
        ([entry("hard", tarfile.LNKTYPE, "there")], "archiveEntryRefused"),
        ([entry("into/out")], "archiveEntryRefused"),
        ([entry("there")], "fileExists"),
        ([entry("folder")], "fileExists"),
        ([entry("there", tarfile.DIRTYPE)], "fileExists"),
    ],
)
async def test_nothing_leaves_the_destination_or_replaces_what_differs(
    files: ContainerFiles, home: Path, entries: list[tarfile.TarInfo], code: str
) -> None:
    make(home, "to/there", "to/folder/x", "elsewhere/y")
    (home / "to/into").symlink_to("../elsewhere")
    with pytest.raises(BadRequestError) as caught:
        await restored(files, tar_of(*entries))
    assert caught.value.code == code
    assert all_below(home / "elsewhere") == ["y"]
    assert not (home / "out").exists()
    assert (home / "to/there").read_text() == "to/there"


async def test_what_is_there_may_be_the_same_and_a_cache_replaces_what_differs(
    files: ContainerFiles, home: Path
) -> None:
    make(home / "src", "d/a", "d/b", "c")
    (home / "src/l").symlink_to("c")
    archive = await saved(files, "**")
    assert await restored(files, archive) == await restored(files, archive)
    (home / "to/d/a").write_text("changed")
    with pytest.raises(BadRequestError, match="'d/a' cannot be restored: it is there already"):
        await restored(files, archive)
    await restored(files, archive, replace=True)
    assert (home / "to/d/a").read_text() == "d/a"


async def test_a_restore_takes_two_commands_however_many_files_there_are(
    files: ContainerFiles, home: Path, shell: LocalShell
) -> None:
    archive = tar_of(*(entry(f"{at // 50}/{at}") for at in range(2000)))
    assert await restored(files, archive) == 2000
    assert shell.commands == 2, "one lists the destination, one unpacks"
    assert len(all_below(home / "to")) == 2040


async def test_modes_lose_what_would_change_the_user(files: ContainerFiles, home: Path) -> None:
    await restored(files, tar_of(entry("a", mode=0o6755)))
    assert (home / "to/a").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("content", [b"", b"no tar" * 500, tar_of(entry("a"))[:700]], ids=["empty", "other", "cut"])
async def test_a_file_that_is_no_whole_archive_is_an_error(files: ContainerFiles, home: Path, content: bytes) -> None:
    with pytest.raises(BadRequestError) as caught:
        await restored(files, content)
    assert caught.value.code == "archiveCorrupt"


async def test_a_stop_ends_both(files: ContainerFiles, home: Path) -> None:
    make(home / "src", "a")
    stopped = threading.Event()
    archive = await saved(files, "**")
    stopped.set()
    with pytest.raises(StoppedError):
        await files.pack(io.BytesIO(), [SaveContent("src", "", ("**",))], "~", stopped)
    with pytest.raises(StoppedError):
        await files.unpacking(files.path("~/to"), stopped).unpack(io.BytesIO(archive), "first")


async def test_files_are_written_read_and_bounded(files: ContainerFiles, home: Path) -> None:
    await files.make_folder(files.path("~/private"), 0o700)
    text = "a line\n'quoted' $HOME\n" + "ü" * 100_000
    await files.write(files.path("~/private/file"), text.encode())
    assert (home / "private").stat().st_mode & 0o777 == 0o700
    assert (home / "private/file").stat().st_mode & 0o777 == 0o600
    assert (await files.read(files.path("~/private/file"), 1 << 20)).decode() == text
    for path, limit, code in (
        ("file", 10, "fileTooLarge"),
        ("nothere", 10, "fileNotReadable"),
        (".", 1, "fileNotReadable"),
    ):
        with pytest.raises(BadRequestError) as caught:
            await files.read(files.path(f"~/private/{path}"), limit)
        assert caught.value.code == code


async def test_an_image_without_tar_says_so(tmp_path: Path) -> None:
    (tmp_path / "programs").mkdir()
    files = ContainerFiles(LocalShell(str(tmp_path / "programs")))
    files.home = str(tmp_path)
    make(tmp_path / "src", "a")
    for work in (saved(files, "**"), restored(files, tar_of(entry("a")), "~/src")):
        with pytest.raises(BadRequestError, match="the image of the container has no tar"):
            await work


class OneStream:
    """A shell whose every command writes a tar with this many small files."""

    def __init__(self, count: int) -> None:
        self._count = count

    async def command(self, command: ContainerCommand) -> int:
        for begin in range(0, self._count, 100):
            infos = [tarfile.TarInfo(f"./folder-{begin}/file-{at}") for at in range(100)]
            headers = b"".join(info.tobuf(tarfile.USTAR_FORMAT) for info in infos)
            if (room := command.output(headers)) is not None:
                await room
        if (room := command.output(bytes(1024))) is not None:
            await room
        return 0

    async def write_file(self, path: str, content: bytes, mode: int) -> None:
        raise NotImplementedError


async def test_the_memory_of_a_save_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    peaks = []
    for count in (3000, 7000):  # the first already fills all buffers
        with await asyncio.to_thread((tmp_path / "archive").open, "wb") as target:
            tracemalloc.start()
            try:
                contents = [SaveContent("", "", ("**",))]
                saved = await ContainerFiles(OneStream(count)).pack(target, contents, "/", threading.Event())
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
        assert saved.entries == count
    assert peaks[1] - peaks[0] < 40 * 4000


async def test_an_archive_with_too_many_entries_is_neither_saved_nor_restored(
    files: ContainerFiles, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(home, *(f"f{at}" for at in range(4)))
    content = SaveContent("", "", ("**",))
    archive = (await packed(files, content))[1]
    monkeypatch.setattr("runstream.executor.steps.names.MAX_ENTRIES", 3)
    with pytest.raises(BadRequestError, match="more than 3 entries") as refused:
        await packed(files, content)
    assert refused.value.code == "tooManyEntries"
    with pytest.raises(BadRequestError, match="more than 3 entries"):
        await restored(files, archive)

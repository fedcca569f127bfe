"""The files of a container, reached by commands in it that run as the task's user.

Archives are streams of the image's own `tar`. Which entries are saved, and what may be restored, is decided here, in
threads that read or write these streams: by the rules of host tasks (`runstream.executor.steps.archives`), in bounded
memory for each entry, without a file of the task on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import stat
import tarfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Protocol, TypeVar, cast

from runstream.errors import BadRequestError, RunstreamError
from runstream.events.run_config import SaveContent
from runstream.executor.beneath import ChangedError, printable
from runstream.executor.drivers.port import Unpacks
from runstream.executor.drivers.shell import LIST, NO_FOLDER, NO_TAR, PACK, SHELL, UNPACK
from runstream.executor.extents import Chunks, are_ordered
from runstream.executor.globs import Glob
from runstream.executor.steps.archives import (
    COPY_BYTES,
    MAX_PATH_BYTES,
    MAX_TIME,
    UNREADABLE,
    BoundedEntry,
    Packed,
    file_mode,
    joined,
    refused,
    size_of,
    split,
    stored_chunks,
    unmet,
    until,
)
from runstream.executor.steps.names import EntryNames, require_few
from runstream.executor.task import StoppedError

_PIPE_BYTES = 1 << 20
_SAID_BYTES = 16 << 10
"""Maximum size of what is kept of the errors of a command."""
_MAX_ARGUMENTS = 500
"""Maximum number of paths given to one command."""
_PLAIN = re.compile(r"[^*?\[\]{}\\]+")
_NAMED = re.compile(r"\./(.*?)(?:'|: |$)")
_MAX_LISTING = 256 << 20
_FILE = tarfile.REGTYPE.decode()
_FINAL = ("Exiting with failure", "error exit delayed", "Error exit delayed", "socket ignored", "file is unchanged")

T = TypeVar("T")
Sink = Callable[[bytes], Awaitable[None] | None]
"""A consumer of output; what it returns is awaited before more is read."""


@dataclass(frozen=True, slots=True)
class ContainerCommand:
    """A command to run in a container."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    output: Sink
    """Gets its output, and its errors too unless `errors` is given."""
    tty: bool = False
    errors: Sink | None = None
    source: AsyncIterator[bytes] | None = None
    """Its input."""


class Shell(Protocol):
    """A container in which commands run."""

    async def command(self, command: ContainerCommand) -> int:
        """Run a command as the task's user; return its exit status."""
        ...

    async def write_file(self, path: str, content: bytes, mode: int) -> None:
        """Write a whole file that has text."""
        ...


async def read_fed(reading: Awaitable[T], feeding: Awaitable[None]) -> T:
    """Read the output of a command to its end, while its input is written; return what `reading` returns.

    An error of what makes the input is raised at once; a command that ends before its input is no error.
    """
    read, fed = asyncio.ensure_future(reading), asyncio.ensure_future(feeding)
    try:
        await asyncio.wait({read, fed}, return_when=asyncio.FIRST_COMPLETED)
        if fed.done() and not fed.cancelled() and isinstance(error := fed.exception(), RunstreamError):
            raise error
        return await read
    finally:
        for each in (read, fed):
            each.cancel()
        await asyncio.wait({read, fed})
        if not fed.cancelled():
            fed.exception()


class ContainerFiles:
    """The files of a container."""

    def __init__(self, shell: Shell) -> None:
        self.home = "/"
        self._shell = shell

    def path(self, text: str, folder: str = "~") -> str:
        """Return the absolute path of `text`."""
        if text == "~" or text.startswith("~/"):
            return f"{self.home.rstrip('/')}/{text[2:]}".rstrip("/") or "/"
        if text.startswith("~"):
            raise BadRequestError(f"{text!r}: the home of another user is not available", code="invalidPath")
        return text if text.startswith("/") else f"{self.path(folder).rstrip('/')}/{text}"

    async def make_folder(self, path: str, mode: int = 0o755) -> None:
        """Create a directory and its parents if they are missing."""
        said = _Said()
        script = 'umask "$2"; [ -d "$1" ] || mkdir -p "$1"'
        if await self._shell.command(
            ContainerCommand([SHELL, "-c", script, SHELL, path, f"{0o777 & ~mode:03o}"], {}, said)
        ):
            raise BadRequestError(f"the folder {printable(path)!r} cannot be made: {said}", code="fileNotWritten")

    async def write(self, path: str, content: bytes, mode: int = 0o600) -> None:
        """Write a whole file that has text."""
        await self._shell.write_file(path, content, mode)

    async def read(self, path: str, limit: int) -> bytes:
        """Return the content of a regular file."""
        script = 'if [ ! -f "$1" ]; then echo "it is not a file" >&2; exit 1; fi; cat "$1"'
        content, said = bytearray(), _Said()

        def keep(chunk: bytes) -> None:
            if len(content) <= limit:
                content.extend(chunk)

        if await self._shell.command(ContainerCommand([SHELL, "-c", script, SHELL, path], {}, keep, errors=said)):
            raise BadRequestError(f"{printable(path)!r} cannot be read: {said}", code="fileNotReadable")
        if len(content) > limit:
            raise BadRequestError(f"{printable(path)!r} has more than {limit} bytes", code="fileTooLarge")
        return bytes(content)

    async def pack(
        self, target: BinaryIO, contents: Sequence[SaveContent], folder: str, stopped: threading.Event
    ) -> Packed:
        """Write a tar of the files that `contents` select."""
        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
            tar.copybufsize = COPY_BYTES  # type: ignore[attr-defined]
            with contextlib.closing(EntryNames()) as names:
                packing = _Packing(tar, stopped, names, compares=len(contents) > 1)
                for content in contents:
                    source = self.path(content.source_dir or ".", folder)
                    selection = _Selection(content)
                    await self._pack(packing, selection, source, _roots(content.paths))
                    while late := packing.take_late(_MAX_ARGUMENTS):
                        await self._pack(packing, selection, source, late)
                    packing.warnings += unmet(content, selection.found)
        warnings = packing.warnings or ([] if names.count else ["nothing is selected: the archive is empty"])
        return Packed(names.count, tuple(warnings))

    async def _pack(self, packing: _Packing, selection: _Selection, source: str, paths: Sequence[str]) -> None:
        said = _Said()
        arguments = [SHELL, "-c", PACK, SHELL, source, *(f"./{path}" for path in paths)]
        async with _to_thread(lambda stream: packing.read(stream, selection)) as sink:
            status = await self._shell.command(ContainerCommand(arguments, {}, sink, errors=said))
        if status == NO_FOLDER:
            given = selection.content.source_dir
            raise BadRequestError(f"source_dir {given!r} is not a folder", code="sourceNotFolder")
        if status:
            _judge(status, said, selection)

    async def copy_folder(self, source: Path, destination: str) -> None:
        """Copy a git directory of this machine to a new folder of the container."""
        await self.make_folder(destination, 0o700)
        said = _Said()
        async with _from_thread(lambda target: _pack_git(target, source)) as stream:
            arguments = [SHELL, "-c", UNPACK, SHELL, destination]
            status = await self._shell.command(ContainerCommand(arguments, {}, said, errors=said, source=stream))
        if status == NO_TAR:
            _judge(status, said, _Selection(SaveContent("", "", ())))
        if status:
            raise BadRequestError(f"{source} cannot be copied into the container: {said}", code="fileNotWritten")

    def unpacking(self, destination: str, stopped: threading.Event, *, replace: bool = False) -> Unpacks:
        """Return the means to restore archives into a folder."""
        return ContainerUnpacking(self._shell, destination, stopped, replace=replace)


def _roots(patterns: Sequence[str]) -> list[str]:
    """Return the first elements of the patterns if all are plain names, else everything: less has to be read."""
    first = []
    for pattern in patterns:
        elements = [element for element in pattern.split("/") if element not in ("", ".")]
        if not elements or not _PLAIN.fullmatch(elements[0]) or pattern.startswith("/") or ".." in elements:
            return ["."]
        first.append(elements[0])
    return list(dict.fromkeys(first))


def _judge(status: int, said: _Said, selection: _Selection) -> None:
    """Raise the error of a `tar` that failed, unless it failed only at files that are not selected."""
    if status == NO_TAR:
        raise BadRequestError(
            "the image of the container has no tar", code="imageUnfit", hint="steps with files need it: install it"
        )
    lines = [line for line in str(said).splitlines() if line and not any(sign in line for sign in _FINAL)]
    for line in lines:
        named = _NAMED.search(line)
        if named is None:
            raise BadRequestError(f"the files cannot be read: {line[:300]}", code="fileNotReadable")
        path = named[1].rstrip("/")
        if selection.concerns(path):
            if "changed as we read" in line or "removed before" in line or "short read" in line:
                raise ChangedError(path)
            reason = line.rpartition(": ")[2][:200]
            raise BadRequestError(f"{printable(path)!r} cannot be read: {reason}", code="fileNotReadable")
    if not lines:
        raise BadRequestError(f"the files cannot be read: tar ended with status {status}", code="fileNotReadable")


_NOT_CLONED = frozenset({"./hooks", "./index", "./worktrees", "./logs", "./modules"})
"""Parts of a git directory that a clone does not use."""


def _pack_git(target: BinaryIO, source: Path) -> None:
    def clean(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if info.name in _NOT_CLONED or not (info.isreg() or info.isdir() or info.issym()):
            return None
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        return info

    try:
        with tarfile.open(fileobj=target, mode="w|", format=tarfile.GNU_FORMAT, bufsize=COPY_BYTES) as tar:
            tar.add(source.resolve(), arcname=".", filter=clean)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BadRequestError(f"{source} cannot be read: {error}", code="fileNotReadable") from error


class _Selection:
    """The paths that one content selects."""

    def __init__(self, content: SaveContent) -> None:
        self.content = content
        self.found: set[int] = set()
        """Numbers of the patterns that selected something."""
        self._globs = [Glob(pattern) for pattern in content.paths]
        self._whole: set[str] = set()
        """The topmost folders that are saved with all that is in them."""
        self._last = ("", False)
        """The folder of the last path, and whether it is in one of them."""

    def selects(self, path: str, *, folder: bool) -> bool:
        """Return whether a path is saved. A folder comes before what is in it."""
        selecting = {at for at, glob in enumerate(self._globs) if glob.matches(path)}
        self.found |= selecting
        parent = path.rpartition("/")[0]
        if parent != self._last[0]:
            self._last = (parent, not self._whole.isdisjoint(_with_above(parent)))
        within = self._last[1]
        if selecting and folder and not within:
            self._whole.add(path)
        return within or bool(selecting)

    def concerns(self, path: str) -> bool:
        """Return whether a path is selected, or may hold one that is."""
        return any(glob.matches(each) for each in _with_above(path) for glob in self._globs) or any(
            glob.goes_on(path) for glob in self._globs
        )


def _with_above(path: str) -> Iterator[str]:
    """Yield a path and those of the folders above it."""
    while path:
        yield path
        path = path.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class _Kept:
    """An entry of the archive."""

    kind: str
    path: str
    """Its path below its source."""
    mode: int
    size: int
    text: str
    """The target of a link, or the digest of a file if files are compared."""


class _Packing:
    """An archive in the making, read from streams of `tar`."""

    def __init__(self, tar: tarfile.TarFile, stopped: threading.Event, names: EntryNames, *, compares: bool) -> None:
        self._names = names
        self.warnings: list[str] = []
        self._tar = tar
        self._stopped = stopped
        self._compares = compares
        self._late: dict[str, None] = {}
        """Hard links to files that are not saved: their content is asked for again."""

    def take_late(self, count: int) -> list[str]:
        """Return and forget paths whose content did not come."""
        taken = list(self._late)[:count]
        for path in taken:
            del self._late[path]
        return taken

    def read(self, stream: BinaryIO, selection: _Selection) -> None:
        """Read one stream to its end, and save what is selected."""
        try:
            if not (first := stream.read(1)):
                return
            joined_stream = cast("IO[bytes]", _Rest(first, stream))
            with tarfile.open(fileobj=joined_stream, mode="r|", bufsize=COPY_BYTES, tarinfo=BoundedEntry) as source:
                for entry in source:
                    if self._stopped.is_set():
                        raise StoppedError
                    source.members = []  # type: ignore[attr-defined]  # it would keep them all
                    self._read_one(source, cast("BoundedEntry", entry), selection)
        except UNREADABLE as error:
            raise BadRequestError(f"the files cannot be read: {error}", code="fileNotReadable") from error

    def _read_one(self, source: tarfile.TarFile, entry: BoundedEntry, selection: _Selection) -> None:
        path = _relative(entry.name)
        if not path or not selection.selects(path, folder=entry.isdir()):
            return
        name = joined(selection.content.dest_dir, path)
        if len(os.fsencode(name)) > MAX_PATH_BYTES:
            raise BadRequestError(f"the path {printable(name)!r} is too long to be saved", code="pathTooLong")
        info = tarfile.TarInfo(name)
        info.mode, info.mtime = stat.S_IMODE(entry.mode), max(0, int(entry.mtime))
        digest = hashlib.sha256() if self._compares else None
        text, size = "", 0
        if entry.isreg():
            size = info.size = entry.size
        elif entry.isdir():
            info.type = tarfile.DIRTYPE
        elif entry.issym():
            info.type, info.linkname, text = tarfile.SYMTYPE, entry.linkname, entry.linkname
        elif entry.islnk():
            first = joined(selection.content.dest_dir, _relative(entry.linkname))
            linked = self._known(first)
            if linked is None or linked.kind != _FILE:
                self._late[path] = None
                return
            info.type, info.linkname = tarfile.LNKTYPE, first
            size, text = linked.size, linked.text
        else:  # restored as an empty file, never as a device
            info.type = tarfile.FIFOTYPE
        known = self._known(name)
        content = _Content(until(self._stopped, stored_chunks(cast("BinaryIO", source.fileobj), entry)), digest)
        if known is None:
            self._tar.members = []  # type: ignore[attr-defined]
            self._tar.addfile(info, cast("IO[bytes]", content) if entry.isreg() else None)
        elif entry.isreg():
            content.drain()
        if entry.isreg() and digest is not None:
            text = digest.hexdigest()
        kind = _FILE if entry.isreg() or entry.islnk() else info.type.decode()
        kept = _Kept(kind, path, info.mode, size, text)
        if known is None:
            self._names.add(name, kind, path, info.mode, size, text)
        elif not _are_same(known, kept):
            raise BadRequestError(
                f"{printable(name)!r} would be two different files in the archive:"
                f" {printable(known.path)!r} of one source_dir, {printable(path)!r} of another",
                code="duplicatePath",
                hint="give one of them another dest_dir",
            )

    def _known(self, name: str) -> _Kept | None:
        found = self._names.find(name)
        return None if found is None else _Kept(*found)


def _are_same(one: _Kept, other: _Kept) -> bool:
    if one.kind != other.kind:
        return False
    if one.kind == tarfile.DIRTYPE.decode():
        return True
    if one.kind == tarfile.SYMTYPE.decode():
        return one.text == other.text
    return (one.mode, one.size, one.text) == (other.mode, other.size, other.text) and one.kind == _FILE


def _relative(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


class _Content:
    """The content of an entry as a file to read; holes are zeros."""

    def __init__(self, chunks: Chunks, digest: hashlib._Hash | None = None, size: int | None = None) -> None:
        """`size` is that of the whole file, if it may have holes."""
        self._chunks = iter(chunks)
        self._digest = digest
        self._size = size
        self._at = 0
        self._rest = b""
        self._pending: tuple[int, bytes] | None = None

    def read(self, count: int) -> bytes:
        """Return exactly `count` bytes, fewer only at the end."""
        parts, missing = [], count
        while missing:
            self._rest = self._rest or self._next()
            if not self._rest:
                break
            part, self._rest = self._rest[:missing], self._rest[missing:]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def drain(self) -> None:
        """Read it to its end."""
        while self.read(COPY_BYTES):
            pass

    def _next(self) -> bytes:
        if self._pending is None:
            self._pending = next(self._chunks, None)
        if self._pending is None:
            missing = 0 if self._size is None else self._size - self._at
            return self._zeros(missing)
        begin, chunk = self._pending
        if self._size is not None and begin > self._at:
            return self._zeros(begin - self._at)
        self._pending = None
        self._at += len(chunk)
        if self._digest is not None:
            self._digest.update(chunk)
        return chunk or self._next()

    def _zeros(self, missing: int) -> bytes:
        count = min(missing, COPY_BYTES)
        self._at += count
        return bytes(count)


class _Rest:
    """A stream of which a part was read already."""

    def __init__(self, first: bytes, stream: BinaryIO) -> None:
        self._first = first
        self._stream = stream

    def read(self, count: int) -> bytes:
        first, self._first = self._first, b""
        return first + self._stream.read(count - len(first))


class ContainerUnpacking:
    """The restoring of archives by one step into one folder."""

    def __init__(self, shell: Shell, destination: str, stopped: threading.Event, *, replace: bool) -> None:
        self._shell = shell
        self._path = destination
        self._stopped = stopped
        self._replace = replace
        self._origins: dict[str, str] = {}
        """The task that saved each restored file."""

    async def unpack(self, archive: BinaryIO, task: str) -> int:
        """Unpack the archive that `task` saved and return the number of entries."""
        there = await self._listed()
        same: set[str] = set()
        if not self._replace and any(kind != "d" for kind in there.values()):
            expected = await asyncio.to_thread(lambda: self._clashes(archive, there, task))
            await self._compare(expected, task)
            same.update(expected)
            await asyncio.to_thread(archive.seek, 0)
        writing = _Writing(there, same, self._stopped, lambda path: self._conflict(path, task))
        said = _Said()
        async with _from_thread(lambda target: writing.write(archive, target)) as source:
            status = await self._shell.command(
                ContainerCommand([SHELL, "-c", UNPACK, SHELL, self._path], {}, said, errors=said, source=source)
            )
        if status == NO_TAR:
            _judge(status, said, _Selection(SaveContent("", "", ())))
        if status:
            raise BadRequestError(f"the files cannot be written: {said}", code="fileNotWritten")
        for path in writing.files:
            self._origins.setdefault(path, task)
        return writing.count

    async def _listed(self) -> dict[str, str]:
        """Return the kind of everything in the folder, which is made if it is missing: `d`, `f`, or `l` for a link."""
        listing, said = bytearray(), _Said()

        def keep(chunk: bytes) -> None:
            if len(listing) + len(chunk) > _MAX_LISTING:
                raise BadRequestError(f"{printable(self._path)!r} has too many files", code="destinationNotFolder")
            listing.extend(chunk)

        if await self._shell.command(ContainerCommand([SHELL, "-c", LIST, SHELL, self._path], {}, keep, errors=said)):
            raise BadRequestError(
                f"dest_dir {printable(self._path)!r} cannot be used: {said}", code="destinationNotFolder"
            )
        return {os.fsdecode(each[3:]): chr(each[0]) for each in bytes(listing).split(b"\0") if each}

    def _clashes(self, archive: BinaryIO, there: Mapping[str, str], task: str) -> dict[str, tuple[str, int, str]]:
        """Return what the archive has for each file that is there: kind, mode, and content or target."""
        found: dict[str, tuple[str, int, str]] = {}
        files: dict[str, tuple[str, int, str]] = {}
        with _read(archive) as tar:
            for entry in _entries(tar, self._stopped):
                path = "/".join((*(parts := split(entry.name))[0], parts[1]))
                if entry.isdir():
                    continue
                if entry.issym():
                    content = ("l", 0, entry.linkname)
                elif entry.islnk():
                    content = files.get(_relative(entry.linkname), ("f", 0, ""))
                else:
                    digest = hashlib.sha256()
                    _Content(_checked(tar, entry, self._stopped), digest, size_of(entry)).drain()
                    content = ("f", file_mode(entry), digest.hexdigest())
                files[path] = content
                if path in there:
                    if there[path] != content[0]:
                        raise self._conflict(path, task)
                    found[path] = content
        return found

    async def _compare(self, expected: Mapping[str, tuple[str, int, str]], task: str) -> None:
        """Raise BadRequestError for a file that is there and differs from the expected one."""
        paths = list(expected)
        for at in range(0, len(paths), _MAX_ARGUMENTS):
            some = paths[at : at + _MAX_ARGUMENTS]
            found: dict[str, tuple[str, int, str]] = {}

            def read(stream: BinaryIO, found: dict[str, tuple[str, int, str]] = found) -> None:
                with _read(stream) as tar:
                    for entry in _entries(tar, self._stopped):
                        path = _relative(entry.name)
                        if entry.issym():
                            found[path] = ("l", 0, entry.linkname)
                        elif entry.islnk():
                            found[path] = found.get(_relative(entry.linkname), ("", 0, ""))
                        else:
                            digest = hashlib.sha256()
                            _Content(_checked(tar, entry, self._stopped), digest).drain()
                            found[path] = ("f", file_mode(entry), digest.hexdigest())

            said = _Said()
            arguments = [SHELL, "-c", PACK, SHELL, self._path, *(f"./{path}" for path in some)]
            async with _to_thread(read) as sink:
                if await self._shell.command(ContainerCommand(arguments, {}, sink, errors=said)) == NO_TAR:
                    _judge(NO_TAR, said, _Selection(SaveContent("", "", ())))
            for path in some:
                if found.get(path) != expected[path]:
                    raise self._conflict(path, task)

    def _conflict(self, path: str, task: str) -> BadRequestError:
        first = self._origins.get(path)
        other = (
            f"it differs between task {first!r} and task {task!r}"
            if first is not None
            else (f"it is there already, and differs from what task {task!r} saved")
        )
        return BadRequestError(f"{printable(path)!r} cannot be restored: {other}", code="fileExists")


class _Writing:
    """The stream that a container's `tar` unpacks, made of an archive."""

    def __init__(
        self,
        there: Mapping[str, str],
        same: set[str],
        stopped: threading.Event,
        conflict: Callable[[str], BadRequestError],
    ) -> None:
        self.count = 0
        self.files: list[str] = []
        self._there = there
        self._same = same
        self._stopped = stopped
        self._conflict = conflict
        self._kinds: dict[str, str] = {}
        """The kind of each path that this archive has."""
        self._made: list[tuple[str, int]] = []

    def write(self, archive: BinaryIO, target: BinaryIO) -> None:
        """Write the entries that may be unpacked. The format is one that every `tar` reads."""
        with (
            _read(archive) as tar,
            tarfile.open(
                fileobj=target, mode="w|", format=tarfile.GNU_FORMAT, bufsize=COPY_BYTES, errors="surrogateescape"
            ) as out,
        ):
            out.copybufsize = COPY_BYTES  # type: ignore[attr-defined]
            for entry in _entries(tar, self._stopped):
                out.members = []  # type: ignore[attr-defined]
                self._write_one(tar, entry, out)
                self.count += 1
            for path, mode in reversed(self._made):  # only now: one may be read-only
                info = tarfile.TarInfo(path)
                info.type, info.mode = tarfile.DIRTYPE, mode
                out.addfile(info)

    def _write_one(self, tar: tarfile.TarFile, entry: BoundedEntry, out: tarfile.TarFile) -> None:
        folders, name = split(entry.name)
        path = "/".join((*folders, name))
        self._require_folders(folders, entry)
        there = self._kinds.get(path) or self._there.get(path)
        info = tarfile.TarInfo(path)
        info.mode, info.mtime = file_mode(entry), min(max(0.0, float(entry.mtime)), MAX_TIME)
        if entry.isdir():
            if there not in (None, "d"):
                raise self._conflict(path)
            self._kinds[path] = "d"
            if there is None:
                info.type, info.mode = tarfile.DIRTYPE, info.mode | 0o700
                out.addfile(info)
                self._made.append((path, file_mode(entry)))
            return
        if there == "d":
            raise self._conflict(path)
        self.files.append(path)
        if path in self._same:
            self._kinds[path] = "l" if entry.issym() else "f"
            return
        if entry.issym():
            info.type, info.linkname = tarfile.SYMTYPE, entry.linkname
            out.addfile(info)
        elif entry.islnk():
            first = "/".join((*(parts := split(entry.linkname))[0], parts[1]))
            if self._kinds.get(first) != "f":
                raise refused(entry, "refers to no file of the archive")
            info.type, info.linkname = tarfile.LNKTYPE, first
            out.addfile(info)
        elif entry.isreg() or entry.ischr() or entry.isblk() or entry.isfifo():
            info.size = size_of(entry)
            content = _Content(_checked(tar, entry, self._stopped), None, info.size)
            out.addfile(info, cast("IO[bytes]", content))
        else:
            raise refused(entry, "is of an unknown kind")
        self._kinds[path] = "l" if entry.issym() else "f"

    def _require_folders(self, folders: Sequence[str], entry: BoundedEntry) -> None:
        path = ""
        for folder in folders:
            path = f"{path}/{folder}" if path else folder
            if (self._kinds.get(path) or self._there.get(path, "d")) != "d":
                raise refused(entry, "passes through a link or a file")


@contextlib.contextmanager
def _read(archive: BinaryIO) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(fileobj=archive, mode="r|", bufsize=COPY_BYTES, tarinfo=BoundedEntry) as tar:
            yield tar
    except UNREADABLE as error:
        raise BadRequestError(f"the archive cannot be read: {error}", code="archiveCorrupt") from error


def _entries(tar: tarfile.TarFile, stopped: threading.Event) -> Iterator[BoundedEntry]:
    for count, entry in enumerate(tar, 1):
        if stopped.is_set():
            raise StoppedError
        require_few(count)
        tar.members = []  # type: ignore[attr-defined]  # it would keep them all
        yield cast("BoundedEntry", entry)


def _checked(tar: tarfile.TarFile, entry: BoundedEntry, stopped: threading.Event) -> Chunks:
    if not entry.isreg():
        return ()
    if not are_ordered(entry.data(), entry.size):
        raise refused(entry, "has a map of data that is not in order")
    return until(stopped, stored_chunks(cast("BinaryIO", tar.fileobj), entry))


class _Said:
    """The first part of what a command says."""

    def __init__(self) -> None:
        self._said = bytearray()

    def __call__(self, chunk: bytes) -> None:
        self._said += chunk[: _SAID_BYTES - len(self._said)]

    def __str__(self) -> str:
        return self._said.decode("utf-8", "surrogateescape").strip()


def _pipe() -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # more than this user may have
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return read, write


@contextlib.asynccontextmanager
async def _to_thread(work: Callable[[BinaryIO], None]) -> AsyncIterator[Sink]:
    """Yield a sink whose bytes `work` reads in a thread; its error is raised at the end, before any other."""
    read, write = _pipe()
    os.set_blocking(write, False)

    def run() -> None:
        with os.fdopen(read, "rb", buffering=COPY_BYTES) as stream:
            work(stream)
            while stream.read(COPY_BYTES):  # padding
                pass

    working = asyncio.ensure_future(asyncio.to_thread(run))
    loop = asyncio.get_running_loop()
    closed = False

    async def put(chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            try:
                rest = rest[os.write(write, rest) :]
            except BlockingIOError:
                room = loop.create_future()
                loop.add_writer(write, lambda: None if room.done() else room.set_result(None))  # noqa: B023
                try:
                    await room
                finally:
                    loop.remove_writer(write)
            except BrokenPipeError:
                await asyncio.shield(working)  # raises why it stopped reading
                return

    try:
        yield put
    except BaseException:
        os.close(write)
        closed = True
        await asyncio.wait({working})
        if not working.cancelled():
            working.exception()
        raise
    finally:
        if not closed:
            os.close(write)
    await working


@contextlib.asynccontextmanager
async def _from_thread(work: Callable[[BinaryIO], None]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Yield the bytes that `work` writes in a thread; its error is raised at the end, before any other."""
    read, write = _pipe()
    os.set_blocking(read, False)

    def run() -> None:
        with os.fdopen(write, "wb", buffering=COPY_BYTES) as stream:
            work(stream)

    working = asyncio.ensure_future(asyncio.to_thread(run))
    loop = asyncio.get_running_loop()

    async def chunks() -> AsyncIterator[bytes]:
        while True:
            try:
                chunk = os.read(read, COPY_BYTES)
            except BlockingIOError:
                more = loop.create_future()
                loop.add_reader(read, lambda: None if more.done() else more.set_result(None))  # noqa: B023
                try:
                    await more
                finally:
                    loop.remove_reader(read)
                continue
            if not chunk:
                await asyncio.shield(working)  # raises why the stream is not complete
                return
            yield chunk

    try:
        yield chunks()
    finally:
        os.close(read)  # a thread that still writes ends with it
        await asyncio.wait({working})
    with contextlib.suppress(BrokenPipeError):  # the container's tar stopped reading; its status says why
        working.result()

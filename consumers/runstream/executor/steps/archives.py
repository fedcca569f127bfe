"""The archive of a workspace: files of a task packed into a tar and unpacked again (rules step-20 to step-22).

Both functions block: run them in a thread, as the task's user.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import tarfile
import threading
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, BinaryIO, cast

from runstream.codec import zstd
from runstream.errors import BadRequestError
from runstream.events.run_config import SaveContent
from runstream.executor.beneath import ChangedError, Entry, FolderCursor, TreeWalk, closing, open_beneath, printable
from runstream.executor.extents import (
    MAX_EXTENTS,
    Chunks,
    Extent,
    are_equal,
    are_ordered,
    bounded,
    chunks_of,
    extents,
    write,
)
from runstream.executor.globs import Glob
from runstream.executor.steps.names import EntryNames, require_few
from runstream.executor.task import StoppedError
from runstream.executor.task_root import TaskRoot
from runstream.open_files import out_of_files

COPY_BYTES = 256 << 10
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_COMPRESSION: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 1,
    zstd.CompressionParameter.checksum_flag: 1,
    zstd.CompressionParameter.nb_workers: 2,
}
MAX_PATH_BYTES = 16 << 10
"""Maximum length of a path in an archive."""
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_BLOCK_BYTES = 512
"""The unit of `st_blocks`."""
_SHORT = 64
"""Length of a name that fits into any header, in characters."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The result of packing an archive."""

    entries: int
    warnings: tuple[str, ...]
    """Warnings about patterns that selected nothing."""


def pack(
    target: BinaryIO, contents: Sequence[SaveContent], files: TaskRoot, folder: str, stopped: threading.Event
) -> Packed:
    """Write a tar of the files that `contents` select; their sources are relative to `folder`, a path of the task.

    Raises BadRequestError for a source that is not a folder, a malformed pattern, two different files with one path,
    and a file that changes meanwhile or cannot be read.
    """
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.copybufsize = COPY_BYTES  # type: ignore[attr-defined]  # larger than its default, for fewer calls
        names = EntryNames()
        packing = _TarPacking(tar, stopped, names)
        try:
            for content in contents:
                packing.add(content, _source(files, files.path(content.source_dir or ".", folder), content))
        except OSError as error:
            where = f"{printable(str(error.filename))}: " if error.filename else ""
            raise BadRequestError(f"{where}{error.strerror}", code="fileNotReadable") from error
        finally:
            packing.close()
            names.close()
    warnings = packing.warnings or ([] if names.count else ["nothing is selected: the archive is empty"])
    return Packed(names.count, tuple(warnings))


@contextlib.contextmanager
def compressed(file: BinaryIO) -> Iterator[BinaryIO]:
    """Compress what is written to the archive in a file, with a checksum."""
    with (
        zstd.ZstdFile(cast("IO[bytes]", file), "wb", options=_COMPRESSION) as frame,
        io.BufferedWriter(cast("io.RawIOBase", frame), COPY_BYTES) as buffered,
    ):
        yield cast("BinaryIO", buffered)


def plain(archive: BinaryIO) -> BinaryIO:
    """Return the tar of an archive, which is compressed unless an earlier version stored it."""
    compressed_here = archive.read(len(_ZSTD_MAGIC)) == _ZSTD_MAGIC
    archive.seek(0)
    return cast("BinaryIO", zstd.ZstdFile(archive)) if compressed_here else archive


def _source(files: TaskRoot, path: str, content: SaveContent) -> int:
    try:
        return files.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadRequestError(f"source_dir {content.source_dir!r} is not a folder", code="sourceNotFolder") from error


@dataclass(frozen=True, slots=True)
class _Origin:
    """The origin of an entry of the archive."""

    source: FolderCursor
    """The source directory of its content."""
    path: str
    device: int
    inode: int
    mode: int
    size: int


class _TarPacking:
    """An archive in the making."""

    def __init__(self, tar: tarfile.TarFile, stopped: threading.Event, names: EntryNames) -> None:
        self._names = names
        self._sources: list[FolderCursor] = []
        self.warnings: list[str] = []
        self._tar = tar
        self._stopped = stopped
        self._open = contextlib.ExitStack()

    def close(self) -> None:
        self._open.close()

    def add(self, content: SaveContent, source: int) -> None:
        """Add the files that one content selects; takes over the descriptor of its source."""
        self._open.callback(os.close, source)
        cursor = FolderCursor(source)
        self._open.callback(cursor.close)
        self._sources.append(cursor)
        globs = [Glob(pattern) for pattern in content.paths]
        walk = TreeWalk(source, False)  # the note of a directory: whether it is saved as a whole
        found: set[int] = set()
        try:
            for entry in walk:
                if self._stopped.is_set():
                    raise StoppedError
                selecting = {at for at, glob in enumerate(globs) if glob.matches(entry.path)}
                found |= selecting
                whole = entry.above or bool(selecting)
                if whole:
                    self._add_entry(joined(content.dest_dir, entry.path), entry)
                if stat.S_ISDIR(entry.status.st_mode) and (whole or any(glob.goes_on(entry.path) for glob in globs)):
                    walk.enter(entry, whole)
        finally:
            walk.close()
        self.warnings += unmet(content, found)

    def _add_entry(self, name: str, entry: Entry[bool]) -> None:
        if stat.S_ISSOCK(entry.status.st_mode):
            return
        if len(os.fsencode(name)) > MAX_PATH_BYTES:
            raise BadRequestError(f"the path {printable(name)!r} is too long to be saved", code="pathTooLong")
        status = entry.status
        described = (entry.path, status.st_dev, status.st_ino, status.st_mode, status.st_size)
        if (first := self._names.find(name)) is not None:
            source, *rest = first
            self._require_same(name, _Origin(self._sources[source], *rest), _Origin(self._sources[-1], *described))
            return
        self._names.add(name, len(self._sources) - 1, *described)
        if stat.S_ISREG(entry.status.st_mode):
            self._add_file(name, entry)
            return
        info = self._described(name, entry.status)
        if stat.S_ISLNK(entry.status.st_mode):
            try:
                info.linkname = os.readlink(entry.name, dir_fd=entry.folder)
            except OSError as error:
                raise ChangedError(entry.path) from error
        self._tar.addfile(info)

    def _add_file(self, name: str, entry: Entry[bool]) -> None:
        with _opened(entry.folder, entry.name, entry.path) as file:
            status = os.fstat(file.fileno())
            info = self._described(name, status)
            if info.islnk():
                self._tar.addfile(info)
                return
            content = _Interruptible(file, self._stopped)
            if status.st_blocks * _BLOCK_BYTES < status.st_size:
                content = _as_sparse(info, file, self._stopped)
            try:
                self._tar.addfile(info, cast("BinaryIO", content))
            except OSError as error:
                if error.errno is None:  # tarfile raises this when a file ends early
                    raise ChangedError(entry.path) from error
                raise

    def _described(self, name: str, status: os.stat_result) -> tarfile.TarInfo:
        """Return the header of an entry. A further name of a stored file becomes a hard link to its first."""
        info = tarfile.TarInfo(name)
        mode = status.st_mode
        info.mode, info.mtime = stat.S_IMODE(mode), max(0, int(status.st_mtime))
        identity = (status.st_ino, status.st_dev)
        self._tar.members = []  # type: ignore[attr-defined]  # it would keep them all
        if stat.S_ISREG(mode):
            first = self._tar.inodes.get(identity) if status.st_nlink > 1 else None  # type: ignore[attr-defined]
            if first is not None:
                info.type, info.linkname = tarfile.LNKTYPE, first
            else:
                if status.st_nlink > 1:
                    self._tar.inodes[identity] = name  # type: ignore[attr-defined]
                info.size = status.st_size
        elif stat.S_ISDIR(mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(mode):
            info.type = tarfile.SYMTYPE
        else:  # restored as an empty file, never as a device
            info.type = tarfile.FIFOTYPE
        return info

    def _require_same(self, name: str, first: _Origin, second: _Origin) -> None:
        if (first.path, first.device, first.inode) == (second.path, second.device, second.inode):
            return
        kinds = {stat.S_IFMT(origin.mode) for origin in (first, second)}
        if kinds == {stat.S_IFDIR}:
            return
        same = False
        if kinds == {stat.S_IFLNK}:
            same = _target(first) == _target(second)
        elif kinds == {stat.S_IFREG} and first.mode == second.mode:
            same = self._same_content(first, second)
        if not same:
            raise BadRequestError(
                f"{printable(name)!r} would be two different files in the archive:"
                f" {printable(first.path)!r} of one source_dir, {printable(second.path)!r} of another",
                code="duplicatePath",
                hint="give one of them another dest_dir",
            )

    def _same_content(self, first: _Origin, second: _Origin) -> bool:
        if first.size != second.size:
            return False
        with _opened(*_placed(first), first.path) as one, _opened(*_placed(second), second.path) as other:
            return are_equal(until(self._stopped, chunks_of(one)), os.fstat(one.fileno()).st_size, other)


def _target(origin: _Origin) -> str:
    folder, name = _placed(origin)
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        raise ChangedError(origin.path) from error


def _placed(origin: _Origin) -> tuple[int, str]:
    """Return the open directory and the name of a file of a source."""
    *folders, name = origin.path.split("/")
    try:
        return origin.source.go(folders), name
    except OSError as error:
        raise ChangedError(origin.path) from error


def _opened(folder: int, name: str, path: str) -> BinaryIO:
    """Open a regular file for reading. Raises ChangedError if it no longer is one."""
    try:
        descriptor = open_beneath(folder, name, _FILE)
    except PermissionError as error:
        raise BadRequestError(
            f"{printable(path)!r} cannot be read: {error.strerror}", code="fileNotReadable"
        ) from error
    except OSError as error:
        raise ChangedError(path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ChangedError(path)
    return os.fdopen(descriptor, "rb")


class _Interruptible:
    """A file whose reads fail once the task is ending."""

    def __init__(self, file: BinaryIO, stopped: threading.Event) -> None:
        self._file = file
        self._stopped = stopped

    def read(self, size: int) -> bytes:
        if self._stopped.is_set():
            raise StoppedError
        return self._file.read(size)


def _as_sparse(info: tarfile.TarInfo, file: BinaryIO, stopped: threading.Event) -> _Interruptible:
    """Turn the header of a file into one of a file with holes, and return what the archive stores of it.

    The format is GNU's sparse format 1.0, which GNU tar, bsdtar and Python read: a map of the data, then the data.
    """
    data = bounded(extents(file.fileno(), 0, info.size))
    if not data or data[-1].end < info.size:
        data.append(Extent(info.size, info.size))  # where the file ends, as GNU tar writes it
    numbers = (len(data), *(number for extent in data for number in (extent.begin, extent.end - extent.begin)))
    header = "".join(f"{number}\n" for number in numbers).encode()
    header += bytes(-len(header) % tarfile.BLOCKSIZE)
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": info.name,
        "GNU.sparse.realsize": str(info.size),
    }
    # The name that programs without sparse files use.
    info.name = f"GNUSparseFile.0/{info.name.encode('ascii', 'replace')[-_SHORT:].decode()}"
    info.size = len(header) + sum(extent.end - extent.begin for extent in data)
    return _Interruptible(cast("BinaryIO", _SparseFile(header, file, data)), stopped)


class _SparseFile:
    """What an archive stores of a file with holes, as a file to read."""

    def __init__(self, header: bytes, file: BinaryIO, data: Sequence[Extent]) -> None:
        self._header = io.BytesIO(header)
        self._file = file
        self._data = iter(data)
        self._here = Extent(0, 0)

    def read(self, size: int) -> bytes:
        parts = [self._header.read(size)]
        missing = size - len(parts[0])
        while missing:
            begin, end = self._here
            if begin == end:
                if (following := next(self._data, None)) is None:
                    break
                self._here = following
                continue
            part = os.pread(self._file.fileno(), min(missing, end - begin), begin)
            if not part:  # it was cut short meanwhile
                break
            parts.append(part)
            missing -= len(part)
            self._here = Extent(begin + len(part), end)
        return b"".join(parts)


def joined(dest_dir: str, relative: str) -> str:
    """Return the path in the archive of a path below a source."""
    parts = [part for part in dest_dir.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadRequestError(f"dest_dir {dest_dir!r} leads out of the archive", code="invalidPath")
    return "/".join((*parts, relative))


def unmet(content: SaveContent, found: Container[int]) -> Iterator[str]:
    """Yield the warnings about the patterns of a content that selected nothing; `found` has the numbers of the
    others."""
    source = content.source_dir
    where = f"below {printable(source)}" if source not in ("", ".") else "in the working directory"
    for at, pattern in enumerate(content.paths):
        if at not in found:
            yield f"pattern {printable(pattern)!r} selects nothing {where}{_why_not(pattern)}"
    if not content.paths:
        yield f"no paths are given: nothing is taken {where} (`paths: ['**']` takes everything)"


def _why_not(pattern: str) -> str:
    """Suggest what a pattern that selects nothing may have meant."""
    if pattern.startswith("/"):
        return ": patterns are relative to source_dir, which may be absolute"
    if pattern.startswith("~"):
        return ": `~` is known in source_dir alone"
    if "$" in pattern:
        return ": variables are not replaced"
    return ""


_MAX_HEADER_BYTES = 1 << 20
"""Maximum size of the extended headers of one entry, which are read into memory."""
_MAX_DIGITS = 20
"""Maximum length of a number in the map of a sparse file."""
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_EXISTING_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
MAX_TIME = 1 << 34
UNREADABLE = (tarfile.TarError, zstd.ZstdError, ValueError, OverflowError, EOFError, RecursionError)


class BoundedEntry(tarfile.TarInfo):
    """An archive entry whose headers take a bounded amount of memory."""

    stored_at = -1
    """The position of the map of a file with holes."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        kinds = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
        if self.type in (*kinds, tarfile.GNUTYPE_LONGLINK) and self.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        if self.type == tarfile.GNUTYPE_SPARSE:  # its map has no end
            raise tarfile.ReadError("an old format of sparse files")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]

    def _proc_pax(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        entry: BoundedEntry = super()._proc_pax(tar)  # type: ignore[misc]
        if entry.stored_at >= 0 and "size" in entry.pax_headers:
            # From 8 GiB, the size of what is stored is in a header of its own, which tarfile takes for the file's.
            stored = int(entry.pax_headers["size"])
            tar.offset = entry.stored_at + stored + -stored % tarfile.BLOCKSIZE
            entry.size = int(entry.pax_headers["GNU.sparse.realsize"])
        return entry

    def _proc_gnusparse_10(self, entry: BoundedEntry, _: object, tar: tarfile.TarFile) -> None:
        """Read the map of a file with holes, as tarfile does, of a bounded length."""
        stream = cast("BinaryIO", tar.fileobj)
        entry.stored_at = stream.tell()
        numbers = _numbers(stream)
        count = next(numbers)
        if not 0 <= count <= MAX_EXTENTS + 1:
            raise tarfile.ReadError("a sparse file has too many extents")
        entry.sparse = [(next(numbers), next(numbers)) for _ in range(count)]  # type: ignore[assignment]
        entry.offset_data = stream.tell()

    def data(self) -> list[Extent]:
        """Return the extents of the content."""
        if self.sparse is None:
            return [Extent(0, self.size)]
        return [Extent(begin, begin + length) for begin, length in cast("list[tuple[int, int]]", self.sparse)]


def _numbers(stream: BinaryIO) -> Iterator[int]:
    """Yield the decimal numbers of a map, one a line, reading whole blocks."""
    rest = b""
    while block := stream.read(tarfile.BLOCKSIZE):
        *lines, rest = (rest + block).split(b"\n")
        yield from map(int, lines)
        if len(rest) > _MAX_DIGITS:
            break
    raise tarfile.ReadError("the map of a sparse file has no end")


class Unpacking:
    """The restoring of archives by one step into one folder."""

    def __init__(self, files: TaskRoot, destination: str, stopped: threading.Event, *, replace: bool = False) -> None:
        """`destination` is a path of the task; the folder is created if it is missing.

        With `replace`, files that are there are replaced by those of the archive; otherwise they must be the same.
        """
        self._files = files
        self._path = destination
        self._stopped = stopped
        self._replace = replace
        self._origins: dict[str, str] = {}
        """The task that saved each restored file."""

    def unpack(self, archive: BinaryIO, task: str) -> int:
        """Unpack the archive that `task` saved and return the number of entries.

        Raises BadRequestError for a file that is not a tar, and for an entry that would leave the folder, replace a
        different file, or is of a kind that Runstream never packs.
        """
        with (
            closing(self._open_destination()) as destination,
            contextlib.closing(FolderCursor(destination)) as self._parents,
            contextlib.closing(FolderCursor(destination)) as self._targets,
        ):
            return self._unpack(archive, task)

    def _open_destination(self) -> int:
        try:
            return self._files.make_folder(self._path)
        except OSError as error:
            raise BadRequestError(
                f"dest_dir {printable(self._path)!r} cannot be used: {error.strerror}", code="destinationNotFolder"
            ) from error

    def _unpack(self, archive: BinaryIO, task: str) -> int:
        made: list[tuple[str, int]] = []
        count = 0
        try:
            with tarfile.open(fileobj=archive, mode="r|", bufsize=COPY_BYTES, tarinfo=BoundedEntry) as tar:
                for entry in tar:
                    if self._stopped.is_set():
                        raise StoppedError
                    tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                    count += 1
                    require_few(count)
                    self._unpack_one(tar, cast("BoundedEntry", entry), task, made)
        except UNREADABLE as error:
            raise BadRequestError(f"the archive cannot be read: {error}", code="archiveCorrupt") from error
        except OSError as error:
            where = f"{printable(str(error.filename))}: " if error.filename else ""
            raise BadRequestError(f"{where}{error.strerror}", code="fileNotWritten") from error
        for path, mode in reversed(made):  # only now: one may be read-only
            *folders, name = path.split("/")
            try:
                with closing(open_beneath(self._parents.go(folders), name, os.O_RDONLY | os.O_DIRECTORY)) as folder:
                    os.fchmod(folder, mode)
            except OSError as error:  # removed meanwhile
                if out_of_files(error):
                    raise
        return count

    def _unpack_one(self, tar: tarfile.TarFile, entry: BoundedEntry, task: str, made: list[tuple[str, int]]) -> None:
        folders, name = split(entry.name)
        path = "/".join((*folders, name))
        parent = self._open_parent(folders, entry)
        if entry.isdir():
            with contextlib.suppress(FileExistsError):  # folders merge
                os.mkdir(name, 0o700, dir_fd=parent)
                made.append((path, stat.S_IMODE(entry.mode) & 0o777))
                return
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                if not self._replace:
                    raise self._conflict(path, task)
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, 0o700, dir_fd=parent)
                made.append((path, stat.S_IMODE(entry.mode) & 0o777))
            return
        try:
            self._make(tar, entry, parent, name)
        except FileExistsError:
            if self._replace:
                try:
                    os.unlink(name, dir_fd=parent)
                except IsADirectoryError as error:
                    raise BadRequestError(
                        f"{printable(path)!r} cannot be restored: a folder is in its place", code="fileExists"
                    ) from error
                self._make(tar, entry, parent, name)
            elif not self._is_same(tar, entry, parent, name):
                raise self._conflict(path, task) from None
        self._origins.setdefault(path, task)

    def _make(self, tar: tarfile.TarFile, entry: BoundedEntry, parent: int, name: str) -> None:
        """Create a link or an empty special file. Raises FileExistsError if its name is taken."""
        if entry.issym():
            os.symlink(entry.linkname, name, dir_fd=parent)
        elif entry.islnk():
            folder, first = self._link_target(entry)
            os.link(first, name, src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)
        elif entry.isreg() or entry.ischr() or entry.isblk() or entry.isfifo():
            with os.fdopen(os.open(name, _NEW_FILE, 0o600, dir_fd=parent), "wb") as file:
                write(self._content(tar, entry), size_of(entry), file)
                os.fchmod(file.fileno(), file_mode(entry))
                time = min(max(0.0, float(entry.mtime)), MAX_TIME)
                os.utime(file.fileno(), (time, time))
        else:
            raise refused(entry, "is of an unknown kind")

    def _is_same(self, tar: tarfile.TarFile, entry: BoundedEntry, parent: int, name: str) -> bool:
        """Return whether the existing file is the same as the entry."""
        if entry.issym():
            try:
                return os.readlink(name, dir_fd=parent) == entry.linkname
            except OSError:
                return False
        with _existing(parent, name) as there:
            if there is None:
                return False
            if entry.islnk():
                folder, first = self._link_target(entry)
                with _existing(folder, first) as target:
                    size = os.fstat(there.fileno()).st_size
                    return target is not None and are_equal(until(self._stopped, chunks_of(there)), size, target)
            if stat.S_IMODE(os.fstat(there.fileno()).st_mode) != file_mode(entry):
                return False
            return are_equal(self._content(tar, entry), size_of(entry), there)

    def _content(self, tar: tarfile.TarFile, entry: BoundedEntry) -> Chunks:
        if not entry.isreg():
            return ()
        if not are_ordered(entry.data(), entry.size):
            raise refused(entry, "has a map of data that is not in order")
        return until(self._stopped, stored_chunks(cast("BinaryIO", tar.fileobj), entry))

    def _link_target(self, entry: tarfile.TarInfo) -> tuple[int, str]:
        """Return the open directory and the name of the regular file that a hard link refers to."""
        folders, name = split(entry.linkname)
        try:
            parent = self._targets.go(folders)
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        except OSError as error:
            raise refused(entry, "refers to no file of the archive") from error
        if not stat.S_ISREG(mode):
            raise refused(entry, "refers to no file of the archive")
        return parent, name

    def _open_parent(self, folders: list[str], entry: tarfile.TarInfo) -> int:
        """Return the parent directory of an entry, open; create it if it is missing."""
        try:
            return self._parents.go(folders, make=True)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
                raise refused(entry, "passes through a link or a file") from error
            raise

    def _conflict(self, path: str, task: str) -> BadRequestError:
        first = self._origins.get(path)
        other = (
            f"it differs between task {first!r} and task {task!r}"
            if first is not None
            else (f"it is there already, and differs from what task {task!r} saved")
        )
        return BadRequestError(f"{printable(path)!r} cannot be restored: {other}", code="fileExists")


@contextlib.contextmanager
def _existing(folder: int, name: str) -> Iterator[BinaryIO | None]:
    """Open an existing regular file for reading; return None for anything else."""
    try:
        descriptor = open_beneath(folder, name, _EXISTING_FILE)
    except OSError as error:
        if out_of_files(error):
            raise
        yield None
        return
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        yield None
        return
    with os.fdopen(descriptor, "rb") as file:
        yield file


def stored_chunks(archive: BinaryIO, entry: BoundedEntry) -> Chunks:
    """Yield the content of an entry; the archive stores its extents one after the other."""
    archive.seek(entry.offset_data)
    for begin, end in entry.data():
        for at in range(begin, end, COPY_BYTES):
            chunk = archive.read(min(COPY_BYTES, end - at))
            if len(chunk) < min(COPY_BYTES, end - at):
                raise tarfile.ReadError("unexpected end of data")
            yield at, chunk


def until(stopped: threading.Event, chunks: Chunks) -> Chunks:
    """Yield the chunks; raise StoppedError once the task is ending."""
    for chunk in chunks:
        if stopped.is_set():
            raise StoppedError
        yield chunk


def size_of(entry: tarfile.TarInfo) -> int:
    """Return the size of the file; links and special files, which are restored as empty files, have none."""
    return entry.size if entry.isreg() else 0


def file_mode(entry: tarfile.TarInfo) -> int:
    """Return the mode without the set-user-id bits: the user who restores is not the one who saved."""
    return stat.S_IMODE(entry.mode) & 0o777


def split(name: str) -> tuple[list[str], str]:
    """Return the folders and the name of an entry."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or name.startswith("/") or ".." in parts or len(os.fsencode(name)) > MAX_PATH_BYTES:
        raise BadRequestError(
            f"the archive's entry {printable(name)!r} leads out of the destination", code="archiveEntryRefused"
        )
    return parts[:-1], parts[-1]


def refused(entry: tarfile.TarInfo, why: str) -> BadRequestError:
    """Return the error for an entry that is not unpacked."""
    return BadRequestError(f"the archive's entry {printable(entry.name)!r} {why}", code="archiveEntryRefused")

"""Commits of bare repositories: which one a name leads to, and the configuration in it, without a working tree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

from runstream.errors import BadRequestError
from runstream.evaluation.files import ConfigName, candidates, imports_of
from runstream.git.command import Git
from runstream.limits import MAX_FILE_BYTES

_REGULAR = (b"100644", b"100755")
_LINK_ANSWERS = (b"symlink ", b"dangling ", b"loop ", b"notdir ")


@dataclass(frozen=True, slots=True)
class CommittedConfig:
    """A configuration file of a commit."""

    path: str
    """Such as `.runstream/config.yml`."""
    name: ConfigName
    """Determines the format."""
    content: str
    imports: dict[str, str]
    """The texts that a jsonnet program may import, by their paths below its folder."""


async def resolved_commit(git: Git, repository: Path, name: str) -> str | None:
    """Return the id of the commit that a ref, an id or its beginning leads to; None if there is no such one."""
    done = await git.run(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", folder=repository
    )
    return None if done.status else done.text


async def committed_config(git: Git, repository: Path, commit: str) -> CommittedConfig | None:
    """Return the first configuration file of a commit (a full id); None without one.

    Links inside the commit are followed to the file. Raises BadRequestError for one that is too large, or no text.
    """
    paths = list(candidates())
    wanted = "".join(f"{commit}:{path}\n" for path in paths)
    answer = await git.ask(
        *("cat-file", "--batch-check", "--follow-symlinks"),
        folder=repository,
        given=wanted.encode(),
        what="read a commit",
    )
    for path, blob in zip(paths, _blobs(answer.output, len(paths)), strict=True):
        if blob is None:
            continue
        if blob[1] > MAX_FILE_BYTES:
            raise BadRequestError(
                f"{path} is larger than {MAX_FILE_BYTES} bytes in commit {commit}", code="configTooLarge"
            )
        content = await _text(git, repository, blob[0])
        if content is None:
            raise BadRequestError(f"{path} is not UTF-8 text in commit {commit}", code="configUnreadable")
        name = cast("ConfigName", PurePosixPath(path).name)
        imports = await _imports(git, repository, commit, path, content) if name == "config.jsonnet" else {}
        return CommittedConfig(path, name, content, imports)
    return None


def _blobs(output: bytes, count: int) -> list[tuple[str, int] | None]:
    """Read git's answers: the id and size of each file, or None for anything else."""
    found: list[tuple[str, int] | None] = []
    for _ in range(count):
        line, _, output = output.partition(b"\n")
        words = line.split(b" ")
        if line.startswith(_LINK_ANSWERS):
            output = output[int(words[1]) + 1 :]  # the path at which the link ends
            found.append(None)
        elif len(words) == 3 and words[1] == b"blob":
            found.append((words[0].decode(), int(words[2])))
        else:
            found.append(None)
    return found


async def _text(git: Git, repository: Path, blob: str) -> str | None:
    done = await git.ask(
        "cat-file", "blob", "--end-of-options", blob, folder=repository, what="read a file of a commit"
    )
    try:
        return done.output.decode()
    except UnicodeDecodeError:
        return None


async def _imports(git: Git, repository: Path, commit: str, path: str, source: str) -> dict[str, str]:
    folder = str(PurePosixPath(path).parent)
    listed = await git.ask(
        *("ls-tree", "-r", "-z", "-l", "--full-tree", "--end-of-options", commit, f"{folder}/"),
        folder=repository,
        what="list the files of a commit",
    )
    files: dict[str, tuple[str, int]] = {}
    for entry in filter(None, listed.output.split(b"\0")):
        about, _, name = entry.partition(b"\t")
        mode, _, blob, size = about.split()
        if mode in _REGULAR:
            files[name.decode(errors="surrogateescape").removeprefix(f"{folder}/")] = blob.decode(), int(size)
    importing = imports_of(source, path)
    try:
        wanted = next(importing)
        while True:
            blob_id, length = files.get(wanted, ("", 0))
            readable = bool(blob_id) and length <= MAX_FILE_BYTES
            wanted = importing.send(await _text(git, repository, blob_id) if readable else None)
    except StopIteration as end:
        return cast("dict[str, str]", end.value)

"""The files of a container, reached by commands in it that run as the task's user."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import BinaryIO, Protocol

from runstream.errors import BadRequestError, InternalError
from runstream.events.run_config import SaveContent
from runstream.executor.beneath import printable
from runstream.executor.drivers.port import Output, Unpacks
from runstream.executor.drivers.shell import SHELL
from runstream.executor.steps.archives import Packed


class Shell(Protocol):
    """A container in which commands run."""

    async def command(self, arguments: Sequence[str], environment: Mapping[str, str], output: Output) -> int:
        """Run a command as the task's user; return its exit status. `output` gets both of its outputs."""
        ...

    async def write_file(self, path: str, content: bytes, mode: int) -> None:
        """Write a whole file that has text."""
        ...


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
        script = 'umask "$2"; [ -d "$1" ] || mkdir -p "$1"'
        await self._run(script, path, f"{0o777 & ~mode:03o}", failed=f"the folder {printable(path)!r} cannot be made")

    async def write(self, path: str, content: bytes, mode: int = 0o600) -> None:
        """Write a whole file that has text."""
        await self._shell.write_file(path, content, mode)

    async def read(self, path: str, limit: int) -> bytes:
        """Return the content of a regular file."""
        script = 'if [ ! -f "$1" ]; then echo "it is not a file"; exit 1; fi; cat "$1"'
        content = bytearray()

        def keep(chunk: bytes) -> None:
            if len(content) <= limit:
                content.extend(chunk)

        status = await self._shell.command([SHELL, "-c", script, SHELL, path], {}, keep)
        if status:
            said = content.decode(errors="replace").strip()[:300]
            raise BadRequestError(f"{printable(path)!r} cannot be read: {said}", code="fileNotReadable")
        if len(content) > limit:
            raise BadRequestError(f"{printable(path)!r} has more than {limit} bytes", code="fileTooLarge")
        return bytes(content)

    async def pack(
        self, target: BinaryIO, contents: Sequence[SaveContent], folder: str, stopped: threading.Event
    ) -> Packed:
        """Write a tar of the files that `contents` select."""
        raise InternalError("workspaces of containers are not available yet", code="imageUnfit")

    def unpacking(self, destination: str, stopped: threading.Event, *, replace: bool = False) -> Unpacks:
        """Return the means to restore archives into a folder."""
        raise InternalError("workspaces of containers are not available yet", code="imageUnfit")

    async def _run(self, script: str, *arguments: str, failed: str) -> None:
        printed = bytearray()
        if await self._shell.command([SHELL, "-c", script, SHELL, *arguments], {}, printed.extend):
            raise BadRequestError(f"{failed}: {printed.decode(errors='replace').strip()[:300]}", code="fileNotWritten")

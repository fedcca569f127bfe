"""Where a command writes a log: to stdout, or to a file that exists once the log is complete."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from runstream.errors import BadRequestError

STDOUT = "-"


@contextmanager
def writing_log(output: str) -> Iterator[BinaryIO]:
    """Yield the file to write: stdout for `-`, else one that replaces `output` when the block ends without an error.

    Raises BadRequestError for a file that cannot be written.
    """
    if output == STDOUT:
        yield sys.stdout.buffer
        return
    path = Path(output)
    if path.exists() and not path.is_file():  # such as /dev/null, or a pipe: there is nothing to replace
        with _opened(path, path, "wb") as file:
            yield file
        return
    partial = path.with_name(f".{secrets.token_hex(16)}")
    try:
        with _opened(partial, path, "xb") as file:
            yield file
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _opened(path: Path, output: Path, mode: Literal["wb", "xb"]) -> BinaryIO:
    try:
        return path.open(mode)
    except OSError as error:
        raise BadRequestError(
            f"cannot write {output}: {error.strerror or error}",
            code="fileNotWritable",
            hint="give another file to --output",
        ) from error

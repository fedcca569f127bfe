"""`python -m tests.snapshots.make_golden` makes the snapshot of this version that is kept.

It may be made again as long as this version is not released; those of released versions stay as they are.
"""

from __future__ import annotations

import asyncio
import tempfile
from importlib.metadata import version
from pathlib import Path

from runstream.objects import PosixObjects, paths
from runstream.snapshots.signing import SigningKey, make_keys
from tests.snapshots.files import written
from tests.snapshots.golden_log import golden_log

GOLDEN = Path(__file__).parent / "golden"
TASK = "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"
OBJECTS = {
    paths.step_log(TASK, None): b"setting up\n",
    paths.step_log(TASK, 0): "Grüße\r\n\x1b[31mred\x1b[0m\n".encode(),
    paths.log_reference(TASK, TASK): b"",
    paths.archive(TASK, 0): bytes(10240),
    paths.archive_reference(TASK, TASK): b"",
}


async def make(path: Path) -> None:
    """Make it, and its public key beside it; the private one is forgotten."""
    with tempfile.TemporaryDirectory() as folder:
        objects = PosixObjects(Path(folder) / "objects")
        await objects.write_all(dict(OBJECTS))
        public = make_keys(Path(folder) / "key.pem")
        key = SigningKey.read(Path(folder) / "key.pem")
        await written(path, golden_log(), key=key, objects=objects, kinds=("logs", "archives"))
        path.with_suffix(".pem").write_bytes(public.read_bytes())


if __name__ == "__main__":
    asyncio.run(make(GOLDEN / f"{version('runstream')}.tar"))

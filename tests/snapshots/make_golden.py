"""`python -m tests.snapshots.make_golden` makes the snapshots of this version that are kept: of runs, and of both logs.

It may be made again as long as this version is not released; those of released versions stay as they are.
"""

from __future__ import annotations

import asyncio
import tempfile
from importlib.metadata import version
from pathlib import Path

from runstream.feed import read_again
from runstream.objects import PosixObjects, paths
from runstream.projections.parked import ParkedCommit
from runstream.snapshots.export import ParkedAt
from runstream.snapshots.manifest import ObjectKind
from runstream.snapshots.signing import SigningKey, make_keys
from runstream.subjects import Subjects, aggregate_of
from tests.log.memory import MemoryLog
from tests.snapshots.files import written
from tests.snapshots.golden_config import golden_config
from tests.snapshots.golden_log import PARKED, golden_log

GOLDEN = Path(__file__).parent / "golden"
TASK = "0b9f7f6e-3a52-4f5f-9f5c-3f6b0f3c2a11"
BUILD = "07da26f8-e4e4-5b0e-be77-211e1a41ab67"
RETRIED = "e551dd1b-74bc-5cab-9268-4788a5bab1d6"
"""Tasks of the golden log whose logs and archives it says are stored; their ids are derived."""
OBJECTS = {
    paths.step_log(TASK, None): b"setting up\n",
    paths.step_log(TASK, 0): "Grüße\r\n\x1b[31mred\x1b[0m\n".encode(),
    paths.log_reference(TASK, TASK): b"",
    paths.archive(TASK, 0): bytes(10240),
    paths.archive_reference(TASK, TASK): b"",
    **{paths.step_log(BUILD, step): b"building\n" for step in (None, 0, 1)},
    paths.archive(BUILD, 0): bytes(10240),
    paths.step_log(RETRIED, 0): b"once more\n",
}


async def make(path: Path, also: MemoryLog | None = None) -> None:
    """Make it, with this further log, and its public key beside it; the private one is forgotten."""
    with tempfile.TemporaryDirectory() as folder:
        objects = PosixObjects(Path(folder) / "objects")
        await objects.write_all(dict(OBJECTS))
        public = make_keys(Path(folder) / "key.pem")
        key = SigningKey.read(Path(folder) / "key.pem")
        log = golden_log()
        kinds: tuple[ObjectKind, ...] = ("logs", "archives")
        await written(path, log, key=key, objects=objects, kinds=kinds, parked=parked_in(log), also=also)
        path.with_suffix(".pem").write_bytes(public.read_bytes())


def parked_in(log: MemoryLog) -> ParkedAt:
    """Says what a deployment with this log would have parked."""

    async def parked(_: Subjects, positions: tuple[int, ...]) -> list[ParkedCommit]:
        found = []
        for partition, end in enumerate(positions):
            (message,) = await read_again(log, partition, [end])
            if message.data == PARKED:
                aggregate = aggregate_of(message.subject)
                found.append(
                    ParkedCommit(message.position, message.subject, aggregate, "it cannot be read", message.stored_at)
                )
        return found

    return parked


if __name__ == "__main__":
    asyncio.run(make(GOLDEN / f"{version('runstream')}.tar"))
    asyncio.run(make(GOLDEN / f"{version('runstream')}-both.tar", golden_config()))

"""Bodies are streamed: how much memory a process needs does not depend on the size of an object."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.objects.backends import KEYS

ROOT = Path(__file__).parents[2]
SMALL, LARGE = 32 << 20, 256 << 20
"""Bytes of the object."""
ALLOWED = 40 << 20
"""What the large one may need beyond the small one: five parts, for what the allocator keeps."""
PROGRAM = """
import resource, sys, uvloop
from pathlib import Path
from runstream.objects import PosixObjects
from runstream.objects.port import chunks
from runstream.objects.s3_location import parse_location
from runstream.objects.s3 import Credentials, open_s3

class Zeros:
    left = int(sys.argv[2])
    async def read(self, size):
        taken = min(size, self.left)
        self.left -= taken
        return bytes(taken)

async def main():
    where = sys.argv[1]
    keys = Credentials(*sys.argv[3:])
    storage = await open_s3(parse_location(where), keys) if "://" in where else PosixObjects(Path(where))
    await storage.write("large", Zeros())
    async with await storage.read("large") as stored:
        assert sum([len(chunk) async for chunk in chunks(stored)]) == int(sys.argv[2])
    await storage.delete("large")

uvloop.run(main())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


async def needed(where: str, size: int) -> int:
    """The most memory that a process had which wrote and read an object of this size."""
    words = ("-c", PROGRAM, where, str(size), KEYS.access, KEYS.secret)
    process = await asyncio.create_subprocess_exec(sys.executable, *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return int(out.splitlines()[-1])


@pytest.fixture(params=["posix", "s3"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "posix":
        return str(tmp_path)
    return f"s3://{request.getfixturevalue('namespace')}?endpoint={request.getfixturevalue('s3_url')}"


async def test_memory_does_not_grow_with_an_object(where: str) -> None:
    assert await needed(where, LARGE) - await needed(where, SMALL) < ALLOWED

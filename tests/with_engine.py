"""Run a command with a container engine of the tests, which `DOCKER_HOST` names: `python -m tests.with_engine CMD`.

Exits with 77 if this machine can have no engine, as test runners do for a skipped test.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.docker_engine import DockerEngine, missing

SKIPPED = 77


async def run(words: list[str]) -> int:
    """Run the command; return its exit status."""
    if reason := missing():
        sys.stderr.write(f"no container engine: {reason}\n")
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="runstream-engine-") as folder:
        engine = DockerEngine(Path(folder))
        try:
            await engine.start()
            command = await asyncio.create_subprocess_exec(*words, env={**os.environ, "DOCKER_HOST": engine.url})
            return await command.wait()
        finally:
            await engine.end_leftover()


if __name__ == "__main__":
    sys.exit(asyncio.run(run(sys.argv[1:])))

"""What schemathesis makes of the API's description, sent to a real service: no server error, nothing undeclared.

`make openapi` sends at least 5,000 requests; `make test` sends fewer.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.servers import Servers
from tests.service.running import serving

CASES = int(os.environ.get("RUNSTREAM_TEST_OPENAPI_CASES", "100"))
"""How many requests have to be sent at least."""
EXAMPLES = max(4, CASES // 33)
"""For each operation, beside those that cover each of its parameters' bounds."""
PHASES = "examples,coverage,fuzzing" if CASES >= 1000 else "examples,fuzzing"
"""The bounds of each parameter (`coverage`) take thousands of requests."""
STATEFUL_EXAMPLES = 3
SEED = "1"
CONFIG = Path(__file__).with_name("schemathesis.toml")
STREAMS = "(^|/)events$"
"""They do not end."""
AT_REST = "/(maintenance|import|export|epochs)(/.*)?$"
"""What is answered in maintenance, too: after the rest, since one of them begins it."""
IMPORTS = ("run_import_api_v1alpha_import_post", "run_import_api_v1alpha_import__service__post")
"""Their body is a snapshot: `tests/snapshots/test_fuzzing.py` makes hostile ones."""


async def _send(url: str, token: str, *words: str) -> int:
    """Send requests to the service; return their number. Fails with what schemathesis says when a check fails."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
        *("run", f"{url}/api/v1alpha/openapi.json", "--header", f"Authorization: token {token}", "--checks", "all"),
        # A schema cannot say what a text means (a configuration file, a group, a position): what fits may be refused.
        *("--exclude-checks", "positive_data_acceptance"),
        *("--seed", SEED, "--generation-deterministic", "--continue-on-failure"),
        *("--request-timeout", "30", "--no-color", *words),
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.hostile.rejections"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"seed {SEED}, {' '.join(words)}:\n{out[-20_000:]}"
    found = re.search(r"([\d,]+) generated", out)
    assert found is not None, out
    return int(found[1].replace(",", ""))


@pytest.mark.seconds(900)
async def test_the_service_answers_as_its_description_says(servers: Servers, open_path: Path) -> None:
    options = {
        "--nats-url": servers.nats_url,
        "--database-url": servers.database_url,
        "--namespace": servers.namespace,
        "--database-schema": servers.schema,
        "--components": "gateway,scheduler,datamanager",  # without an executor: no task of a made-up run is started
    }
    data_dir = open_path / "data"
    words = [word for option in options.items() for word in option]
    made = ("--phases", PHASES, "--max-examples", str(EXAMPLES))
    linked = ("--phases", "stateful", "--max-examples", str(STATEFUL_EXAMPLES))
    async with serving(data_dir, *words) as service:
        token = json.loads((data_dir / "service.json").read_text())["token"]
        first = ("--exclude-path-regex", f"{STREAMS}|{AT_REST}")
        sent = await _send(service.url, token, *made, *first)
        sent += await _send(service.url, token, *linked, *first)
        imports = [word for one in IMPORTS for word in ("--exclude-operation-id", one)]
        sent += await _send(service.url, token, *made, "--include-path-regex", AT_REST, *imports)
    assert sent >= CASES

"""A terminal that takes ASCII alone gets marks that it can show."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from tests.cli.service import Service
from tests.gateway.world import TOKEN
from tests.service.running import RUNSTREAM

NO_UTF_8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, NO_UTF_8], ids=["encoding", "locale"])
def test_a_run_is_created_and_shown_in_ascii(
    served: Service, config: Callable[..., str], environment: dict[str, str]
) -> None:
    place = {"RUNSTREAM_URL": served.url, "RUNSTREAM_TOKEN": TOKEN}
    file = config("build", "'bad ü'")
    for words in (["run", "create", "--config", file, "--follow"], ["run", "get", "latest"], ["run", "list"]):
        done = subprocess.run(
            [RUNSTREAM, *words],
            env={**os.environ, **place, **environment},
            capture_output=True,
            timeout=40,
            check=False,
        )
        assert done.returncode in (0, 1), done
        assert done.stderr == b"", done
        assert done.stdout.isascii()
        assert b"build" in done.stdout or words[1] == "list"

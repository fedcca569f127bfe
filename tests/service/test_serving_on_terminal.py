"""`runstream serve` on a terminal."""

from __future__ import annotations

import os
import re
from pathlib import Path

import httpx2

from tests.cli.terminal import on_terminal


async def test_serve_prints_a_link_on_a_terminal_that_logs_the_administrator_in_once(tmp_path: Path) -> None:
    arguments = ("serve", "--data-dir", str(tmp_path / "data"), "--components", "gateway,scheduler,configstore")
    async with on_terminal({**os.environ, "RUNSTREAM_PORT": "0"}, *arguments, columns=200) as terminal:
        await terminal.shows("Ctrl-C")
        found = re.search(r"log in +(\S+)/ui/login#(\S+) ", terminal.text)
        assert found is not None, terminal.text
        async with httpx2.AsyncClient(base_url=f"{found[1]}/api/v1alpha") as http:
            answers = [await http.post("/auth/session", json={"token": found[2]}) for _ in range(2)]
        assert [one.status_code for one in answers] == [201, 401]
        assert answers[0].json()["user"] is None
        terminal.interrupt()
        assert await terminal.ended() == 0

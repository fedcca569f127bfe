"""An exit status says what it stands for."""

from __future__ import annotations

import pytest

from runstream.cli.graph import described_status


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0, "exit status 0"),
        (3, "exit status 3"),
        (126, "exit status 126 (the command cannot be executed)"),
        (127, "exit status 127 (a command was not found)"),
        (128, "exit status 128"),
        (137, "exit status 137 (killed: SIGKILL, often for lack of memory)"),
        (139, "exit status 139 (SIGSEGV)"),
        (143, "exit status 143 (SIGTERM)"),
        (153, "exit status 153 (SIGXFSZ: a file became larger than it may be)"),
        (255, "exit status 255"),
    ],
)
def test_an_exit_status_says_what_it_stands_for(status: int, said: str) -> None:
    assert described_status(status) == said

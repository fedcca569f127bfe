"""What shells offer for the word that is being typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.service import Service
from tests.gateway.world import TOKEN


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (
            ("",),
            "run config log cache executor events maintenance login logout user org projectgroup project directrun "
            "remotesource",
        ),
        (("ru",), "run"),
        (("--d",), "--data-dir --detailed-errors"),
        (("--detailed-errors", "--data-dir", "/x", "executor", "d"), "drain delete"),
        (("run", "list", "--ph"), "--phase"),
        (("run", "list", "--phase", "q"), "queued"),
        (("run", "list", "-s", "q"), "queued"),
        (("run", "get", "--o"), "--output"),
        (("completion", ""), "bash zsh fish"),
        (("run", "create", "--config", ""), ""),
        (("--data-dir", ""), ""),
        (("run", "nonsense", "--x", ""), ""),
        ((), "run"),
    ],
)
def test_commands_options_and_choices(command: Command, words: tuple[str, ...], offered: str) -> None:
    done = command("__complete", *words)
    assert done.err == ""
    assert done.out.split()[: len(offered.split())] == offered.split()
    assert offered or done.out == ""


def test_names_that_the_service_knows(
    command: Command, runstream: Command, config: Callable[..., str], served: Service
) -> None:
    made = runstream("run", "create", "--config", config("build", "bad"), "-o", "json")
    run = json.loads(made.out)[0]["id"]
    runstream("run", "follow", run)

    def offered(*words: str) -> set[str]:
        done = command("__complete", "--url", served.url, "--token", TOKEN, *words)
        assert (done.code, done.err) == (0, "")
        return set(done.out.split())

    (name,) = [one for one in offered("run", "get", "") if one.endswith("/1")]
    assert {name, "latest"} <= offered("run", "follow", "")
    assert offered("run", "get", "la") == {"latest"}
    assert offered("log", "get", name, "") == offered("run", "approve", name, "") == {"bad", "build"}
    assert offered("log", "get", "--tail", "3", name, "b") == {"bad", "build"}
    assert offered("run", "list", "--group", "") == {"/user/admin/direct"}
    assert offered("run", "list", "--project", "/u") == {"/user/admin"}
    assert offered("log", "get", name, "build", "") == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_small(command: Command, shell: str) -> None:
    done = command("completion", shell)
    assert len(done.out) < 500


def test_bash_completes() -> None:
    script = """
eval "$(runstream completion bash)"
COMP_WORDS=(runstream run list --phase q) COMP_CWORD=4
_runstream
printf '%s\\n' "${COMPREPLY[@]}"
complete -p runstream
"""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["queued", "complete -o default -F _runstream runstream"]

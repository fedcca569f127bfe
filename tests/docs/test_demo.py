"""The commands that the demos suggest can be pasted, and the one with containers says what it needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docker_engine import DockerEngine, needs_engine

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("demo", "data"), [("demo", ""), ("demo-containers", "-containers")])
def test_the_commands_that_a_demo_prints_can_be_pasted(demo: str, data: str) -> None:
    recipe = subprocess.run(["make", "--dry-run", demo], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (printed,) = re.findall(r"^printf '  %s\\n' (.*)", recipe.replace("\\\n", " "), re.MULTILINE)
    commands = re.findall(r"'([^']*)'", printed)
    assert len(commands) >= 4
    for command in commands:
        assert command.startswith(f".venv/bin/runstream --data-dir .runstream-data{data} "), command
        assert not re.search(r"\b[A-Z]{2,}\b", command), "a placeholder is no name"


def test_the_setup_says_that_it_takes_a_while_and_what_python_it_needs_before_it_installs() -> None:
    words = ["make", "--dry-run", "--always-make", "setup"]
    recipe = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    needs, says, installs = (recipe.index(text) for text in ("needs Python 3.11", "about a minute", "pip install"))
    assert needs < says < installs


def _found(host: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(ROOT / "docker" / "demo_engine.py")]
    environment = {"DOCKER_HOST": host, "PATH": os.environ["PATH"], "HOME": "/nothere"}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("", "/var/run/docker.sock: "),
        ("unix:///nothere/s", "unix:///nothere/s: there is no such socket"),
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:1: Cannot connect to Docker Engine"),
        ("ssh://build@example.com", "an executor needs unix:///PATH or tcp://HOST:PORT"),
    ],
)
def test_the_demo_with_containers_says_which_engines_it_tried_and_what_to_do(host: str, problem: str) -> None:
    done = _found(host)
    if not host and done.returncode == 0:
        pytest.skip("this machine has an engine")
    assert (done.returncode, done.stdout) == (1, "")
    assert problem in done.stderr
    assert "make demo-containers DOCKER_HOST=unix:///" in done.stderr


@needs_engine
def test_the_demo_with_containers_makes_its_image_without_a_registry(docker_engine: DockerEngine) -> None:
    done = _found(docker_engine.url)
    assert done.stdout.splitlines()[0] == f"export RUNSTREAM_EXECUTOR_ENGINE={docker_engine.url}", done.stderr
    assert docker_engine.cli("run", "--rm", "--network=none", "runstream-demo:1", "echo", "works") == "works"

"""What can be checked of docker/ without an engine: its files name what exists, and hold no secret."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from runstream.service.configuration import KEYS, load_settings
from runstream.settings import COMPONENTS

DOCKER = Path(__file__).parents[2] / "docker"


def given(environment: dict[str, str]) -> dict[str, str]:
    """Return the environment of a service with a value for each variable that compose fills in."""
    return {
        name: re.sub(r"\$\{(\w+)[^}]*\}", lambda found: "8000" if "PORT" in found[1] else "word", text)
        for name, text in environment.items()
    }


def compose(name: str = "compose.yml") -> dict[str, Any]:
    document: dict[str, Any] = YAML(typ="safe").load((DOCKER / name).read_text())
    return document


def test_nats_takes_its_configuration_and_syncs_always() -> None:
    text = (DOCKER / "servers" / "nats.conf").read_text()
    assert re.search(r"^\s*sync_interval: always$", text, re.MULTILINE)
    command: list[str | Path] = [
        *(Path(sys.executable).with_name("nats-server"), "-t"),
        *("--config", DOCKER / "servers" / "nats.conf"),
    ]
    environment = {**os.environ, **given(compose()["services"]["nats-1"]["environment"])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["compose.yml", "compose.host.yml"])
def test_every_component_has_settings_that_exist(name: str) -> None:
    components: list[str] = []
    for part, service in compose()["services"].items():
        if service["image"] == "runstream":
            environment = given({**service["environment"], **compose(name)["services"][part]["environment"]})
            own = service["command"][-1].split(",")
            components += own
            settings = load_settings({"components": own}, environment, None)
            assert settings.replicas == 3
            assert len(settings.nats_url.split(",")) == 3
            assert bool(settings.database_url) == (own != ["executor"])
            assert set(environment) <= known_variables()
    assert set(components) == set(COMPONENTS)
    assert {component: components.count(component) for component in ("gateway", "scheduler", "executor")} == {
        "gateway": 2,
        "scheduler": 2,
        "executor": 2,
    }


def test_the_image_sets_only_what_exists() -> None:
    named = set(re.findall(r"RUNSTREAM_[A-Z_]+(?==)", (DOCKER / "Dockerfile").read_text()))
    assert named
    assert named <= known_variables()


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(DOCKER.rglob("*")) if path.suffix in (".yml", ".conf", ".yaml")],
    ids=lambda path: path.name,
)
def test_no_secret_inside(path: Path) -> None:
    for line in path.read_text().splitlines():
        assert not re.search(r"(?i)(password|token|secret_key):\s+(?!false)[^\s$]", line), line


def known_variables() -> set[str]:
    return {f"RUNSTREAM_{key.replace('.', '_').upper()}" for key in KEYS}

"""What of the container files can be checked without an engine: they name what exists, and hold no secret."""

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


def compose() -> dict[str, Any]:
    document: dict[str, Any] = YAML(typ="safe").load((DOCKER / "compose.yml").read_text())
    return document


def test_nats_takes_its_configuration_and_syncs_always() -> None:
    text = (DOCKER / "nats.conf").read_text()
    assert re.search(r"^\s*sync_interval: always$", text, re.MULTILINE)
    command: list[str | Path] = [
        *(Path(sys.executable).with_name("nats-server"), "-t"),
        *("--config", DOCKER / "nats.conf"),
    ]
    environment = {**os.environ, "NATS_PASSWORD": "a1", "NATS_ADMIN_PASSWORD": "b2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_every_component_is_there_with_settings_that_exist() -> None:
    components: list[str] = []
    for service in compose()["services"].values():
        if service["image"] != "runstream":
            continue
        components.append(service["command"][-1])
        settings = load_settings({"components": [components[-1]]}, service["environment"], None)
        assert settings.nats_url.startswith("nats://")
        assert set(service["environment"]) <= known_variables()
    assert set(components) == set(COMPONENTS)
    assert components.count("executor") == 2


def test_the_image_sets_only_what_exists() -> None:
    named = set(re.findall(r"RUNSTREAM_[A-Z_]+(?==)", (DOCKER / "Dockerfile").read_text()))
    assert named
    assert named <= known_variables()


@pytest.mark.parametrize("name", ["compose.yml", "nats.conf", "Dockerfile"])
def test_no_secret_inside(name: str) -> None:
    for line in (DOCKER / name).read_text().splitlines():
        assert not re.search(r"(?i)(password|token):\s+[^\s$]", line), line


def known_variables() -> set[str]:
    return {f"RUNSTREAM_{key.replace('.', '_').upper()}" for key in KEYS}

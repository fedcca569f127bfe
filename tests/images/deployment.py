"""The deployment of docker/compose.yml on an engine without a bridge: started by compose, and killed part by part."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from runstream.embedded.process import free_port
from tests.docker_engine import DockerEngine

DOCKER = Path(__file__).parents[2] / "docker"
PARTS = (
    *("gateway-1", "gateway-2", "scheduler-1", "scheduler-2", "datamanager", "executor-1", "executor-2"),
    *("nats-1", "nats-2", "nats-3", "postgres", "s3"),
)
SERVERS = ("nats", "postgres", "s3")
TOKEN = "a-token-of-the-tests"
_PORTS = (
    *("NATS_1", "NATS_2", "NATS_3", "ROUTE_1", "ROUTE_2", "ROUTE_3", "MONITOR_1", "MONITOR_2", "MONITOR_3"),
    *("GATEWAY_1", "GATEWAY_2", "SCHEDULER_1", "SCHEDULER_2", "DATAMANAGER", "EXECUTOR_1", "EXECUTOR_2"),
    *("POSTGRES", "S3"),
)
_PASSWORDS = ("NATS_PASSWORD", "NATS_ADMIN_PASSWORD", "NATS_ROUTE_PASSWORD", "POSTGRES_PASSWORD", "S3_SECRET_KEY")


def compose_program() -> list[str]:
    """Return the command of Docker Compose on this machine: version 2, else version 1; empty without one."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else []


class Deployment:
    """What compose.yml and compose.host.yml start on an engine."""

    def __init__(self, engine: DockerEngine, folder: Path) -> None:
        self.engine = engine
        self.ports = {name: free_port("127.0.0.1") for name in _PORTS}
        self.environment = {
            **os.environ,
            **{f"PORT_{name}": str(port) for name, port in self.ports.items()},
            **{name: f"p{number}word" for number, name in enumerate(_PASSWORDS)},
            "RUNSTREAM_TOKEN": TOKEN,
            "DOCKER_HOST": engine.url,
            "DOCKER_SOCKET": engine.url.removeprefix("unix://"),
            "DOCKER_GID": str(Path(engine.url.removeprefix("unix://")).stat().st_gid),
            "COMPOSE_PROJECT_NAME": "runstream-images",
        }
        # Compose 1 refuses published ports on the machine's network, and an override cannot remove them.
        document: dict[str, Any] = YAML(typ="safe").load((DOCKER / "compose.yml").read_text())
        for service in document["services"].values():
            service.pop("ports", None)
        self._file = folder / "compose.yml"
        YAML(typ="safe").dump(document, self._file)

    @property
    def gateways(self) -> tuple[str, str]:
        return (
            f"http://127.0.0.1:{self.ports['GATEWAY_1']}",
            f"http://127.0.0.1:{self.ports['GATEWAY_2']}",
        )

    def compose(self, *words: str) -> str:
        """Run a command of compose; return what it prints."""
        files = ("-f", self._file, "-f", DOCKER / "compose.host.yml")
        done = subprocess.run(
            [*compose_program(), *files, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def container(self, part: str) -> str:
        """Return the id of the container of a part."""
        return self.compose("ps", "--quiet", part).strip()

    def state(self, container: str) -> dict[str, Any]:
        """Return what the engine says of a container."""
        found: dict[str, Any] = json.loads(self.engine.cli("inspect", "--format", "{{json .}}", container))
        return found

    async def kill(self, part: str) -> None:
        """Kill all processes of a part, as a crash would, and wait until the engine has started it again."""
        container = self.container(part)
        before = self.state(container)
        os.kill(before["State"]["Pid"], signal.SIGKILL)
        while True:
            now = self.state(container)
            if now["RestartCount"] > before["RestartCount"] and now["State"]["Running"]:
                return
            await asyncio.sleep(0.1)  # sleeps: until the engine has started it again

    def logs(self, part: str, lines: int = 40) -> str:
        """Return the last lines of the log of a part."""
        done = subprocess.run(
            ["docker", "-H", self.engine.url, "logs", "--tail", str(lines), self.container(part)],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

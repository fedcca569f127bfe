"""A start that cannot work is refused in one sentence, with a way out, no traceback, and nothing half-made."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import nats
import pytest

from runstream.log.jetstream import open_log
from tests.service.running import runstream

AT_ONCE = ("--wait-for-dependencies", "0s")


async def refused(data_dir: Path, *words: str, **environment: str) -> str:
    code, _, told = await runstream("--data-dir", str(data_dir), "serve", *words, **environment)
    assert code == 1
    assert told.startswith("error: ")
    assert "hint: " in told
    assert "Traceback" not in told
    return told


async def test_a_port_in_use(open_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}" in await refused(open_path / "data", "--port", str(port))


async def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    assert "is not a data directory" in await refused(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]  # noqa: PTH208


async def test_a_folder_of_a_newer_version(tmp_path: Path) -> None:
    (tmp_path / "runstream.json").write_text(json.dumps({"format": 99}))
    assert "has format 99" in await refused(tmp_path)


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot use the data directory" in await refused(tmp_path / "file" / "data")


@pytest.mark.parametrize("component", ["gateway", "executor"])
async def test_a_missing_file_of_keys_is_named_before_anything_is_waited_for(tmp_path: Path, component: str) -> None:
    servers = ("--nats-url", "nats://127.0.0.1:1", "--database-url", "postgresql://127.0.0.1:1/x")
    keys = ("--secrets-key-file", str(tmp_path / "none.key"))
    assert "none.key" in await refused(tmp_path / "data", "--components", component, *servers, *keys)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("port: 99999\n", "settings.yml line 1: port must be between 0 and 65535 (got 99999)"),
        ("log_level: info\nprot: 1\n", "settings.yml line 2: unknown setting 'prot' (did you mean 'port'?)"),
        ("port: many\n", "settings.yml line 1: port must be a whole number (got 'many')"),
        ("log_level: loud\n", "log_level must be one of debug, info, warning, error (got 'loud')"),
        ("executor: {allow_host: 1}\n", "executor.allow_host must be true or false (got 1)"),
        ("executor: {labels: [a]}\n", "executor.labels must be a mapping of names to texts (got ['a'])"),
        (
            "executor:\n  sandbox: maybe\n",
            "settings.yml line 2: executor.sandbox must be one of auto, require, off (got 'maybe')",
        ),
        ("components: [gatway]\n", "unknown component 'gatway' (choose from gateway, scheduler, executor"),
        ("port: 1\nport: 2\n", 'line 2: key "port" is given twice'),
        ("- a\n", "it is not a map of settings"),
        ("database_url: mysql://x\n", "database_url is not a URL that begins with postgresql://"),
    ],
)
async def test_a_bad_settings_file(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "settings.yml"
    file.write_text(text)
    assert problem in await refused(tmp_path / "data", "--config", str(file))
    assert not (tmp_path / "data").exists()


async def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("partitions = 0\n[executor]\nlease_seconds = 1\n")
    told = await refused(tmp_path / "data", "--config", str(file), "--port", "-1", RUNSTREAM_REPLICAS="2")
    for problem in (
        "partitions must be",
        "executor.lease_seconds must be",
        "--port: port must be",
        "RUNSTREAM_REPLICAS",
    ):
        assert problem in told


async def test_a_part_of_a_service_needs_its_servers(tmp_path: Path) -> None:
    assert "needs --nats-url" in await refused(tmp_path, "--components", "executor")


async def test_nats_that_cannot_be_reached(tmp_path: Path) -> None:
    url = f"nats://me:sesame99@127.0.0.1:{free_port()}"
    told = await refused(tmp_path, "--components", "executor", "--nats-url", url, *AT_ONCE)
    assert "cannot be reached" in told
    assert "sesame99" not in told


async def test_nats_that_refuses_the_password(tmp_path: Path, nats_url: str) -> None:
    wrong = nats_url.replace("runstream:", "runstream:wrong")
    assert "refuses these credentials" in await refused(tmp_path, "--components", "executor", "--nats-url", wrong)


async def test_a_database_that_cannot_be_reached(tmp_path: Path, nats_url: str) -> None:
    url = f"postgresql://me:sesame99@127.0.0.1:{free_port()}/x"
    told = await refused(tmp_path, "--nats-url", nats_url, "--database-url", url, *AT_ONCE)
    assert "sesame99" not in told


async def test_another_number_of_partitions_than_the_log_has(open_path: Path, nats_url: str, namespace: str) -> None:
    client = await nats.connect(nats_url)
    await (await open_log(client, namespace, create=True, partitions=2)).close()
    await client.close()
    words = ["--components", "executor", "--nats-url", nats_url, "--namespace", namespace, "--partitions", "3"]
    told = await refused(open_path / "data", *words)
    assert "partitions" in told


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

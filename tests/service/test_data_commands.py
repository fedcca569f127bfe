"""The operator's checks: health, the projection, and parked commits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncpg

from runstream.database.migrating import revisions, script_location
from runstream.embedded import NatsServer, PostgresServer
from tests.service.running import a_run, runstream, serving


async def test_all_is_well_beside_a_running_service_and_after_it(open_path: Path) -> None:
    data_dir = str(open_path / "data")
    async with serving(open_path / "data") as service:
        await check_all(data_dir)
        service.process.terminate()
        await service.ended()
    findings = await doctor("--data-dir", data_dir)
    assert "problem" not in {finding["status"] for finding in findings.values()}


async def check_all(data_dir: str) -> None:
    findings = await doctor("--data-dir", data_dir)
    assert "problem" not in {finding["status"] for finding in findings.values()}
    assert findings["NATS sync to disk"]["status"] == "ok"
    assert findings["migrations"]["status"] == "ok"
    assert "encrypts with key" in findings["secrets keys"]["found"]
    code, out, _ = await runstream("--data-dir", data_dir, "fsck", "--output", "json")
    found = json.loads(out)
    assert (code, found["count"], found["archive"]["count"]) == (0, 0, 0)
    assert found["archive"]["commits"] + sum(found["archive"]["behind"].values()) >= found["commits"]
    code, out, _ = await runstream("--data-dir", data_dir, "parked", "list")
    assert (code, out) == (0, "nothing is parked\n")
    code, out, _ = await runstream("--data-dir", data_dir, "migrate", "--service", "configstore")
    assert code == 0
    assert out.endswith(": nothing to do\n")


async def test_migrate_makes_the_tables(tmp_path: Path, nats_url: str, database_url: str, database_schema: str) -> None:
    servers = ("--nats-url", nats_url, "--database-url", database_url, "--database-schema", database_schema)
    head = revisions(script_location()).head
    for end in (f"is migrated from nothing to {head}\n", f"is at migration {head}: nothing to do\n"):
        code, out, _ = await runstream("--data-dir", str(tmp_path), "migrate", *servers)
        assert (code, out) == (0, f"schema {database_schema} {end}")


async def test_fsck_tells_a_row_that_is_not_of_the_log(open_path: Path) -> None:
    data_dir = str(open_path / "data")
    async with serving(open_path / "data"):
        await a_run(open_path / "data")
        connection = await asyncpg.connect(PostgresServer(open_path / "data" / "postgres").url)
        assert await connection.execute("UPDATE runstream.runs SET name = 'other'") == "UPDATE 1"
        await connection.close()
        code, out, _ = await runstream("--data-dir", data_dir, "fsck")
        assert code == 1
        assert ".name: the log says 'hello', the database 'other'" in out


async def test_fsck_tells_what_is_wrong_with_the_archive(open_path: Path) -> None:
    data_dir = str(open_path / "data")
    async with serving(open_path / "data") as service:
        await a_run(open_path / "data")
        service.process.terminate()
        await service.ended()
    code, out, _ = await runstream("--data-dir", data_dir, "fsck")
    assert code == 0
    assert ", 0 commits behind the log: no difference" in out
    archive = open_path / "data" / "objects" / "data" / "archive"
    segment = max(archive.rglob("*.jsonl.zst"))
    segment.write_bytes(segment.read_bytes()[:-1] + b"x")
    code, out, _ = await runstream("--data-dir", data_dir, "fsck")
    assert code == 1
    assert f"{segment.name}: commit" in out
    assert (await runstream("--data-dir", data_dir, "fsck", "--no-archive"))[0] == 0
    (open_path / "data" / "objects").rename(open_path / "elsewhere")
    code, _, told = await runstream("--data-dir", data_dir, "fsck")
    assert code == 1
    assert "--no-archive leaves the archive out" in told


async def test_weak_servers_are_problems(open_path: Path) -> None:
    nats = NatsServer(open_path / "nats", durable=False)
    postgres = PostgresServer(open_path / "postgres", durable=False)
    await nats.start()
    await postgres.start()
    words = ["doctor", "--nats-url", nats.url, "--database-url", postgres.url, "--output", "json"]
    code, out, _ = await runstream("--data-dir", str(open_path / "data"), *words)
    weak = by_what(out)
    assert code == 1
    assert weak["NATS sync to disk"]["status"] == "unknown"
    assert weak["Postgres fsync"]["status"] == "warning"
    assert "serve" in weak["migrations"]["todo"]

    code, out, _ = await runstream("--data-dir", str(open_path / "data"), *words, "--nats-admin-url", nats.admin_url)
    assert by_what(out)["NATS sync to disk"]["status"] == "problem"
    await nats.stop()
    await postgres.stop()


async def test_servers_that_are_not_there_are_problems(tmp_path: Path) -> None:
    words = ["--nats-url", "nats://127.0.0.1:1", "--database-url", "postgresql://me@127.0.0.1:1/x"]
    code, out, told = await runstream("--data-dir", str(tmp_path), "doctor", *words, "--output", "json")
    found = by_what(out)
    assert code == 1
    assert "cannot be reached" in found["NATS"]["found"]
    assert found["Postgres"]["status"] == "problem"
    assert found["Postgres"]["todo"]
    assert "Traceback" not in told


async def test_no_service_at_all(tmp_path: Path) -> None:
    code, out, _ = await runstream("--data-dir", str(tmp_path), "doctor")
    assert code == 1
    heading, first, *_ = (line for line in out.splitlines() if line.strip())
    assert "service" in first, heading
    assert "not running" in first
    assert f"runstream --data-dir {tmp_path} serve" in " ".join(out.split())


async def doctor(*words: str) -> dict[str, Any]:
    _, out, _ = await runstream(*words, "doctor", "--output", "json")
    return by_what(out)


def by_what(out: str) -> dict[str, Any]:
    return {finding["what"]: finding for finding in json.loads(out)}


async def test_keys_that_are_wrong_are_told(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    for text, mode, problem in (("AAAA", 0o600, "a key of 3 bytes"), (f"{'A' * 43}=", 0o644, "others may read")):
        file.write_text(text)
        file.chmod(mode)
        words = ["--data-dir", str(tmp_path / "data"), "doctor", "--output", "json"]
        code, out, _ = await runstream(*words, RUNSTREAM_SECRETS_KEY_FILE=str(file))
        finding = by_what(out)["secrets keys"]
        assert (code, finding["status"]) == (1, "problem")
        assert problem in finding["found"]

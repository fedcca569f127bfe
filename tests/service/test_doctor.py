"""The findings of `runstream doctor` about misconfigured servers."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
from nats.aio.client import Client

from runstream.executor.limits import ControlGroups
from runstream.executor.workdir import ExecutorPlace
from runstream.jetstream.api import request
from runstream.log.jetstream import open_log
from runstream.service import doctor
from runstream.service.doctor import Finding, log_streams, running_service
from runstream.settings import ExecutorSettings, Settings
from tests.docs.blocks import ROOT
from tests.log.commits import created, run_address
from tests.log.servers import connected


async def findings(nc: Client, namespace: str) -> dict[str, Finding]:
    settings = Settings(data_dir=Path("/nowhere"), namespace=namespace)
    return {finding.what: finding async for finding in log_streams(nc, settings)}


@pytest.mark.parametrize(("nats_url", "status"), [("", "warning"), ("nats://nats.example.com", "ok")])
def test_a_missing_service_is_reported_only_for_the_local_machine(tmp_path: Path, nats_url: str, status: str) -> None:
    assert running_service(Settings(data_dir=tmp_path, nats_url=nats_url)).status == status


async def test_streams_as_they_are_made_are_well(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc, await open_log(nc, namespace, create=True, partitions=2) as log:
        await log.append_all([created(run_address(n % 2)) for n in range(40)])
        found = await findings(nc, namespace)
    assert {finding.status for finding in found.values()} == {"ok"}
    assert "40 commits" in found["log"].found


async def test_a_stream_that_is_compressed_or_cannot_be_read_is_named(nats_url: str, namespace: str) -> None:
    async with connected(nats_url) as nc, await open_log(nc, namespace, create=True, partitions=3) as log:
        compressed, holed, gone = (log.subjects.stream(partition) for partition in range(3))
        config = (await request(nc, f"STREAM.INFO.{compressed}"))["config"]
        await request(nc, f"STREAM.UPDATE.{compressed}", config | {"compression": "s2"})
        config = (await request(nc, f"STREAM.INFO.{holed}"))["config"]
        await request(nc, f"STREAM.DELETE.{holed}")
        await request(nc, f"STREAM.CREATE.{holed}", config | {"deny_delete": False})
        await log.append_all([created(run_address(1)) for _ in range(3)])
        await request(nc, f"STREAM.MSG.DELETE.{holed}", {"seq": 2})
        await request(nc, f"STREAM.DELETE.{gone}")
        found = await findings(nc, namespace)
    assert found["log compression"].status == "warning"
    assert compressed in found["log compression"].found
    assert found["log readable"].status == "problem"
    assert holed in found["log readable"].found
    assert gone in found["log readable"].found
    assert compressed not in found["log readable"].found


@pytest.mark.parametrize(("tasks", "limit", "status"), [(20, 120, "warning"), (20, 1024, "ok"), (0, 1024, "ok")])
def test_a_limit_of_open_files_that_is_small_for_the_active_tasks_is_named(tasks: int, limit: int, status: str) -> None:
    finding = doctor.open_files(tasks, limit)
    assert (finding.what, finding.status) == ("open files", status)
    assert str(limit) in finding.found
    assert ("LimitNOFILE" in finding.todo) is (status == "warning")


async def test_the_sandbox_and_the_user_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "missing_sandbox", no_sandbox)

    async def found(mode: Literal["auto", "require", "off"]) -> dict[str, Finding]:
        settings = Settings(data_dir=tmp_path, executor=ExecutorSettings(sandbox=mode))
        return {finding.what: finding async for finding in doctor.machine(settings)}

    each = {mode: await found(mode) for mode in ("auto", "require", "off")}
    assert {mode: one["sandbox"].status for mode, one in each.items()} == {
        "auto": "warning",
        "require": "problem",
        "off": "warning",
    }
    assert each["auto"]["sandbox"].found == "no namespaces here"
    assert each["auto"]["user"].status == ("warning" if os.geteuid() == 0 else "ok")


@pytest.mark.parametrize(
    ("user", "lack", "counts", "named"),
    [(0, "none", False, True), (0, "none", True, False), (0, "", False, False), (1000, "none", False, False)],
)
async def test_processes_of_tasks_of_root_that_nothing_bounds_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, user: int, lack: str, counts: bool, named: bool
) -> None:
    async def missing() -> str:
        return lack

    monkeypatch.setattr(doctor, "missing_sandbox", missing)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    groups = ControlGroups(controllers=frozenset({"pids"})) if counts else ControlGroups()
    monkeypatch.setattr(doctor, "control_groups", lambda _: groups)
    found = {finding.what: finding async for finding in doctor.machine(Settings(data_dir=tmp_path))}
    assert ("processes of a task" in found) is named


async def test_what_the_kernel_forbids_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forbidden() -> str:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(doctor, "missing_sandbox", forbidden)
    found = {finding.what: finding async for finding in doctor.machine(Settings(data_dir=tmp_path))}
    assert found["sandbox"].status == "warning"
    assert "Function not implemented" in found["sandbox"].found

    async def check() -> AsyncIterator[Finding]:
        await forbidden()
        yield Finding("x", "ok", "")

    assert [finding.status async for finding in doctor.guarded("x", check())] == ["problem"]


@pytest.mark.parametrize(("told", "status"), [("off", "warning"), ("refused: no", "problem"), ("sandboxed", "ok")])
async def test_the_sandbox_is_that_of_the_running_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, status: str
) -> None:
    monkeypatch.setattr(doctor, "holder", lambda _: 1)
    ExecutorPlace(tmp_path).note_sandbox(told)
    found = {finding.what: finding async for finding in doctor.machine(Settings(data_dir=tmp_path))}
    assert found["sandbox"].status == status


async def no_sandbox() -> str:
    return "no namespaces here"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ""),
        ({"nats_url": "nats://127.0.0.1:4222,nats://[::1]:4223", "database_url": "postgresql://u@localhost/d"}, ""),
        ({"nats_url": "nats://127.0.0.1:4222,nats://nats.example:4222"}, "NATS"),
        ({"nats_url": "tls://nats.example:4222", "database_url": "postgresql://u@db.example/d"}, "Postgres"),
        ({"database_url": "postgresql://u@db.example/d?sslmode=prefer"}, "Postgres"),
        ({"database_url": "postgresql://u@db.example/d?sslmode=verify-full"}, ""),
        ({"database_url": "postgresql://u@/d?host=/run/postgresql"}, ""),
        ({"objects_url": "s3://bucket?endpoint=s3.example:9000&tls=off"}, "the object storage"),
        ({"objects_url": "s3://bucket?endpoint=127.0.0.1:9000&tls=off"}, ""),
        ({"objects_url": "s3://bucket"}, ""),
    ],
)
def test_a_connection_to_another_machine_without_tls_is_named(
    given: dict[str, str], found: str, tmp_path: Path
) -> None:
    (tls, _) = doctor.connections(Settings(data_dir=tmp_path, **given))  # type: ignore[arg-type]
    assert (tls.status, found in tls.found) == ("warning" if found else "ok", True)


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", "ok"), ("::1", "ok"), ("0.0.0.0", "warning")])  # noqa: S104
def test_an_api_that_others_reach_is_named(host: str, status: str, tmp_path: Path) -> None:
    (_, api) = doctor.connections(Settings(data_dir=tmp_path, host=host))
    assert (api.what, api.status) == ("API", status)


async def test_the_findings_that_the_security_document_names_are_there(tmp_path: Path) -> None:
    (listed,) = re.findall(r"^7\. .*?\n\n", (ROOT / "docs" / "security.md").read_text(), re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"`([^`]+)`\s+\(\d\)", listed))
    settings = Settings(data_dir=tmp_path)
    there = [finding async for finding in doctor.machine(settings)]
    there += [finding async for finding in doctor.secrets_keys(settings)]
    assert len(named) == 5
    assert named <= {finding.what for finding in (*there, *doctor.connections(settings))}

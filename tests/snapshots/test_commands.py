"""`runstream export` and `runstream snapshot`, as people call them."""

from __future__ import annotations

import asyncio
import fcntl
import json
import signal
from pathlib import Path

import pytest

from tests.service.running import RUNSTREAM, a_run, runstream, serving
from tests.snapshots.files import described_anew, generated, pack, parts, written


async def test_a_service_is_exported_while_it_runs_and_when_it_does_not(open_path: Path) -> None:
    data, folder = open_path / "data", open_path / "out"
    folder.mkdir()
    here = ("--data-dir", str(data))
    async with serving(data, "--sandbox", "off") as service:
        await a_run(data)
        code, _, told = await runstream(*here, "export", "-o", str(folder / "a"), "--with", "logs,archives")
        assert code == 0, told
        assert "exported" in told
        token = json.loads((data / "service.json").read_text())["token"]
        there = ("--url", service.url, "--token", token)
        code, _, told = await runstream(*there, "export", "-o", str(folder / "b"))
        assert code == 0, told
        begun = (folder / "a").read_bytes()
        (folder / "d.part").write_bytes(begun[: len(begun) // 2])
        code, _, told = await runstream(*here, "export", "-o", str(folder / "d"), "--resume")
        assert code == 0, told
        service.signal(signal.SIGTERM)
        assert await service.ended() == 0
    process = await asyncio.create_subprocess_exec(
        RUNSTREAM, *here, "export", "-o", "-", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    (folder / "c").write_bytes(out)
    for name in "abcd":
        code, out_text, _ = await runstream("snapshot", "verify", str(folder / name))
        assert code == 0, out_text
    for name in "bcd":
        code, out_text, _ = await runstream("snapshot", "diff", str(folder / "a"), str(folder / name))
        assert code == 0, out_text
    assert [name for name in parts(folder / "a") if name.endswith("steps/0.log")]
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "c", "d"]


async def test_signed_and_verified(tmp_path: Path) -> None:
    code, out, _ = await runstream("snapshot", "keygen", str(tmp_path / "key.pem"))
    assert code == 0
    assert "SHA256:" in out
    await written(tmp_path / "unsigned")
    code, out, _ = await runstream(
        "snapshot", "verify", str(tmp_path / "unsigned"), "--key", str(tmp_path / "key.pub.pem")
    )
    assert (code, out.splitlines()[0]) == (1, "manifest.json: the snapshot is not signed")
    code, _, told = await runstream("snapshot", "keygen", str(tmp_path / "key.pem"))
    assert code == 1
    assert "is there already" in told


async def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    await written(tmp_path / "s")
    files = parts(tmp_path / "s")
    bad = pack(tmp_path / "bad", {k: v for k, v in files.items() if not k.startswith("segments/001")})
    code, out, told = await runstream("snapshot", "verify", str(bad))
    assert code == 1
    assert out.splitlines()[0] == "segments/001/000000000001-000000000035.jsonl.zst: it is missing"
    assert "Traceback" not in told
    code, out, _ = await runstream("snapshot", "verify", str(bad), "-o", "json")
    assert code == 1
    assert json.loads(out)["problems"][0]["part"].startswith("segments/001")
    for words in (("show", str(bad)), ("diff", str(bad), str(bad)), ("verify", str(tmp_path / "none"))):
        code, _, told = await runstream("snapshot", *words)
        assert code == 1
        assert told.startswith("error: ")
    newer = pack(tmp_path / "newer", described_anew(files, format=7))
    code, out, _ = await runstream("snapshot", "verify", str(newer))
    assert "format 7" in out


async def test_show(tmp_path: Path) -> None:
    manifest = await written(tmp_path / "s", generated())
    code, out, _ = await runstream("snapshot", "show", str(tmp_path / "s"))
    assert code == 0
    assert "1:50,35,51" in out
    assert out.splitlines()[0].strip()
    assert all(line == line.rstrip() for line in out.splitlines())
    code, out, _ = await runstream("snapshot", "show", str(tmp_path / "s"), "-o", "json")
    assert json.loads(out)["manifest"]["commits"] == manifest.commits
    code, out, _ = await runstream("snapshot", "show", str(tmp_path / "s"), "1/35")
    assert json.loads(out)["sequence"] == 35
    for position in ("1/36", "9/1", "x", "1/0"):
        code, _, told = await runstream("snapshot", "show", str(tmp_path / "s"), position)
        assert code == 1
        assert "hint: " in told


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--until", "tomorrow"), "neither a position nor a time"),
        (("--with", "caches"), "cannot be exported"),
        (("--sign", "/nowhere.pem"), "cannot be read"),
        (("--url", "http://127.0.0.1:1", "--resume"), "neither signed nor resumed"),
        (("--url", "http://127.0.0.1:1", "-o", "-"), "cannot reach the service"),
        (("-o", "-", "--resume"), "stdout cannot be resumed"),
        (("-o", "{folder}/there"), "is there already"),
        (("-o", "{folder}/begun"), "another export to {folder}/begun is going on"),
        (("-o", "{folder}/none", "--resume"), "to resume"),
        (("-o", "{folder}/none/x"), "cannot be written"),
        (("-o", "{folder}/whole", "--resume"), "the export is complete"),
        ((), "there is no service in"),
    ],
)
async def test_what_cannot_be_exported(tmp_path: Path, words: tuple[str, ...], problem: str) -> None:
    (tmp_path / "there").touch()
    begun = (tmp_path / "begun.part").open("w")
    fcntl.flock(begun, fcntl.LOCK_EX)
    await written(tmp_path / "whole.part")
    given = [word.replace("{folder}", str(tmp_path)) for word in words]
    placed = [] if "-o" in given else ["-o", str(tmp_path / "x")]
    with begun:
        code, _, told = await runstream("--data-dir", str(tmp_path / "data"), "export", *given, *placed)
    assert code == 1
    assert problem.replace("{folder}", str(tmp_path)) in told
    assert "Traceback" not in told
    assert not (tmp_path / "x.part").exists()

"""What cannot be applied is shown as it is, and a decision about it holds from then on."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import nats
import orjson
import pytest

from runstream.commits import Position
from runstream.embedded import NatsServer
from runstream.log.port import RawMessage
from runstream.projections.parked_commit import body_of
from tests.service.running import a_run, first_line, runstream, serving

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


async def publish(data_dir: Path, subject: str, *bodies: bytes) -> None:
    client = await nats.connect(NatsServer(data_dir / "nats").url)
    for body in bodies:
        await client.jetstream().publish(subject, body)
    await client.close()


async def parked(data_dir: str, count: int) -> list[str]:
    """The positions, once so many are parked."""
    while True:
        code, out, told = await runstream("--data-dir", data_dir, "parked", "list", "--output", "json")
        assert code == 0, told
        listed = json.loads(out)
        if len(listed) == count:
            return [one["position"] for one in listed]


@pytest.mark.seconds(300)
async def test_a_commit_is_shown_and_skipped(open_path: Path) -> None:
    data_dir, folder = str(open_path / "data"), open_path / "data"
    async with serving(folder):
        run = await a_run(folder)
        newer = {
            "id": "x",
            "aggregate": f"run/{run}",
            "version": 99,
            "time": "2026-01-01T00:00:00Z",
            "actor": "user:later",
            "cause": "",
            "events": [{"type": "RunPondered", "version": 1}],
        }
        line = await first_line("--data-dir", data_dir, "events", "tail", "--run", run, "--from", "start", "-o", "json")
        partition = json.loads(line)["position"].split("/")[1]
        await publish(folder, f"runstream.runs.1.{partition}.run.{run}", orjson.dumps(newer), b"\xff\0", b"moo")
        first, second, third = await parked(data_dir, 3)

        code, out, _ = await runstream("--data-dir", data_dir, "parked", "show", first)
        assert code == 0
        assert f"aggregate  run/{run}" in out
        assert "Unknown event type 'RunPondered'" in out
        assert f"behind it  2 commits: {second}, {third}" in out
        assert '  "actor": "user:later",\n' in out
        code, out, _ = await runstream("--data-dir", data_dir, "parked", "show", first, "-o", "json")
        assert json.loads(out)["body"]["json"] == newer
        assert json.loads(out)["behind"] == [second, third]
        code, out, _ = await runstream("--data-dir", data_dir, "parked", "show", second, "-o", "json")
        assert json.loads(out)["body"] == {"json": None, "text": None, "base64": "/wA="}

        await refused(data_dir, f"waits behind the one at {first}", second, "--reason", "x")
        await refused(data_dir, "is not parked", "1/0/999999", "--reason", "x")
        for left, position in ((2, first), (1, second), (0, third)):
            code, out, told = await runstream(
                "--data-dir", data_dir, "parked", "skip", position, "--reason", "of no use"
            )
            assert code == 0, told
            await parked(data_dir, left)
        code, out, _ = await runstream("--data-dir", data_dir, "parked", "list", "--skipped")
        assert code == 0
        assert all(position in out for position in (first, second, third))
        assert out.count("of no use") == 3
        code, out, _ = await runstream("--data-dir", data_dir, "parked", "show", first)
        assert ": of no use" in out
        assert (await runstream("--data-dir", data_dir, "fsck"))[0] == 0
        code, out, _ = await runstream("--data-dir", data_dir, "run", "get", run, "--output", "json")
        assert json.loads(out)["phase"] == "finished"


async def refused(data_dir: str, why: str, *words: str) -> None:
    status, _, told = await runstream("--data-dir", data_dir, "parked", "skip", *words)
    assert status == 1
    assert why in told


async def test_nothing_is_decided_in_maintenance(open_path: Path) -> None:
    data_dir = str(open_path / "data")
    async with serving(open_path / "data"):
        assert (await runstream("--data-dir", data_dir, "maintenance", "enable", "--wait"))[0] == 0
        status, _, told = await runstream("--data-dir", data_dir, "parked", "skip", "1/0/1", "--reason", "x")
        assert (status, "in maintenance" in told) == (1, True)


async def test_what_is_no_position_or_no_reason_is_refused(tmp_path: Path) -> None:
    for words, why in (
        (("skip", "moo", "--reason", "x"), "'moo' is not the position of a commit"),
        (("skip", "1/0/1", "--reason", " "), "a reason is empty"),
        (("show", "1/0/9999999999999999999"), "is not the position of a commit"),
    ):
        status, _, told = await runstream("--data-dir", str(tmp_path), "parked", *words)
        assert (status, why in told) == (1, True), told


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b'{"a": 1}', {}, (b'{"a": 1}', None, None)),
        (b"moo\n", {}, (None, "moo\n", None)),
        (b"\xff\0", {}, (None, None, "/wA=")),
        (b"a\x1b[0m", {}, (None, None, "YRtbMG0=")),
        (b"no zstd", {"Runstream-Encoding": "zstd"}, (None, "no zstd", None)),
        (zstd.compress(b"[]"), {"Runstream-Encoding": "zstd"}, (b"[]", None, None)),
    ],
)
def test_a_body_is_shown_as_what_it_is(body: bytes, headers: dict[str, str], expected: tuple[object, ...]) -> None:
    message = RawMessage("n.runs.1.0.run.r", Position(1, 0, 1), body, headers, datetime(2026, 1, 1, tzinfo=UTC))
    assert body_of(message) == expected

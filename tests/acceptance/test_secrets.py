"""A secret's value is in plain text in its task alone: the test searches everything that a run leaves behind."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import sys
import tarfile
import threading
from collections.abc import Iterator
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.acceptance.deployment import command, in_one_process
from tests.executor.test_clone import made, serving
from tests.executor.test_workspace import git
from tests.leftovers import ZSTD, messages, processes, rows

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SECRET = 'sw0rdfish-"4711"-ünique\nand-its-second-line'
PASSWORD = "s3cr:t/p@ss-of-the-repository"
NEEDLES = [
    SECRET.encode(),
    *SECRET.encode().split(b"\n"),
    json.dumps(SECRET).encode()[1:-1],
    json.dumps(SECRET, ensure_ascii=False).encode()[1:-1],
    base64.b64encode(SECRET.encode()).rstrip(b"="),
    base64.b64encode(SECRET.encode() + b"\n").rstrip(b"="),
    base64.b64encode(b"user:" + SECRET.encode()).rstrip(b"="),
    quote(SECRET, safe="").encode(),
    escape(SECRET).encode(),
    SECRET.encode().hex().encode(),
    PASSWORD.encode(),
    quote(PASSWORD, safe="").encode(),
    base64.b64encode(f"user:{PASSWORD}".encode()),
]
CONFIG = """
runs:
  - name: deploy
    tasks:
      - name: one
        runtime: {type: host}
        environment:
          TOKEN: {from_variable: token}
        steps:
          - run: {name: in its own environment, command: 'echo "$TOKEN"; printf %s "$TOKEN" | base64', tty: false}
          - run:
              name: in a terminal
              command: 'echo "<$STEP>"; test "$STEP" = "$TOKEN" && echo the same'
              environment: {STEP: {from_variable: token}}
          - run: {name: into a file, command: 'printf %s "$TOKEN" > kept.txt; printf %s "$TOKEN" | wc -c'}
          - run:
              name: in the spellings of tools
              command: >-
                set -x; : "$TOKEN"; printf %s "user:$TOKEN" | base64 -w0; printf %s "$TOKEN" | od -An -tx1;
                python3 -c "import html, json, os, urllib.parse as u; t = os.environ['TOKEN'];
                print(json.dumps([t]), u.quote(t, ''), u.quote_plus(t), html.escape(t), t.encode().hex(), repr(t))"
          - run: {name: fails with it, command: 'echo "$TOKEN" >&2; exit 3'}
"""
VARIABLES = "token: {values: [{secret_name: deploy, secret_var: production, when: {ref: '#.*#'}}]}"


def found_in(content: bytes) -> list[bytes]:
    """Which forms of the secret are in these bytes, or in what they are when they are decompressed."""
    contents = [content]
    if ZSTD in content[:4]:
        contents.append(zstd.decompress(content))
    if content[:2] == b"\x1f\x8b":
        contents.append(gzip.decompress(content))
    return [needle for needle in NEEDLES for each in contents if needle in each]


class Receiver:
    """A stand-in for a trace collector."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@contextlib.contextmanager
def collecting() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()


def left_behind(folder: Path) -> Iterator[Path]:
    """Every file that servers and processes have written, and what was exported; not what the user wrote."""
    for below in ("nats", "objects", "gateway", "postgres/data", "left"):
        yield from (path for path in (folder / below).rglob("*") if path.is_file())
    yield from folder.glob("*.stderr")


CLONING = "runs: [{name: cred, tasks: [{name: t, runtime: {type: host}, steps: [{clone: }, {run: env}]}]}]"


@contextlib.contextmanager
def repository(folder: Path) -> Iterator[str]:
    """Serve a repository to those who have its password; yield its URL."""
    made(folder / "r", "one")
    git(folder, "clone", "-q", "--bare", "r", "x.git")
    git(folder / "x.git", "update-server-info")
    with serving(folder, f"user:{PASSWORD}") as (address, _):
        yield f"http://user:{quote(PASSWORD, safe='')}@{address}/x.git"


@pytest.mark.seconds(120)
async def test_a_secret_is_nowhere(open_path: Path, tmp_path: Path) -> None:
    (open_path / "config.yml").write_text(CONFIG)
    (open_path / "variables.yml").write_text(VARIABLES)
    secrets = open_path / "secrets.yml"
    secrets.write_text(json.dumps({"deploy": {"production": SECRET}}))
    secrets.chmod(0o600)
    left = open_path / "left"
    left.mkdir()
    with collecting() as receiver:
        async with in_one_process(open_path, "--sandbox", "off", "--otlp-endpoint", receiver.url) as deployment:
            files = ("--config", "config.yml", "--var-file", "variables.yml", "--secret-file", "secrets.yml")
            words = [str(open_path / word) if word.endswith(".yml") else word for word in files]
            with processes() as shown_processes:
                done = await deployment.run("run", "create", *words, "--follow")
            assert (done.code, done.err) == (1, ""), done
            async with deployment.client() as client:
                (summary,) = (await client.runs.page()).runs
                run = await client.runs.get(summary.id)
            shown = [await deployment.run("log", "get", run.id, "one", "--step", str(step)) for step in range(5)]
            assert [one.out.splitlines() for one in (*shown[:3], shown[4])] == [
                ["***", "***", "***"],
                ["<***", "***>", "the same"],
                [str(len(SECRET.encode()))],
                ["***", "***"],
            ]
            told = [await deployment.run("run", "get", run.id, "-o", "json")]
            with repository(tmp_path) as url, processes() as more:
                (open_path / "cloning.yml").write_text(CLONING)
                cloning = ("--config", str(open_path / "cloning.yml"), "--ref", "main", "--follow", "-o", "json")
                cloned = await deployment.run("run", "create", "--repo", url, *cloning)
            assert cloned.code == 0, cloned
            shown_processes |= {one for one in more if b"\0--repo\0" not in one}  # the user's own command has it
            export = await command("export", "-o", str(left / "export.tar"), *deployment.servers)
            assert export.code == 0, export.err
            log = await messages(deployment.nats.url)
            assert b"RunConfigStored" in log
            assert b'"key"' in log
            tables = await rows(deployment.postgres.url, left)
    assert receiver.bodies
    with tarfile.open(left / "export.tar") as tar:
        tar.extractall(left / "export", filter="data")
    where = {
        "process lists": b"\n".join(shown_processes),
        "the log": log,
        "what was said": f"{done.out}{cloned}".encode(),
    }
    where |= {f"answer {number}": one.out.encode() for number, one in enumerate([*shown, *told])}
    where |= {f"trace {number}": body for number, body in enumerate(receiver.bodies)}
    where |= {str(path.relative_to(open_path)): path.read_bytes() for path in left_behind(open_path)}
    assert len(tables) > 5
    assert {name: found for name, content in where.items() if (found := found_in(content))} == {}

"""What gets out of a running service that has secrets: by logs, processes, repositories, sealed texts, snapshots.

As root and as an ordinary user, in a sandbox and without one: one service for each, which all attacks share.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import html
import json
import os
import secrets
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import uvloop
from ahocorasick_rs import BytesAhoCorasick
from msgspec.structs import replace

from runstream.client import Client, Inputs, Run, Source
from runstream.commits import Head
from runstream.events.run_config import RunConfigStored, RunConfigTask
from runstream.ids import new_id
from runstream.jetstream.connection import nats_connection
from runstream.log.jetstream import open_log
from runstream.log.port import Log
from runstream.log.runs import FoundRun, find_run, locate_run
from runstream.runconfig.resolve import config_hash
from runstream.subjects import Address
from tests.conftest import drop_schema
from tests.executor.test_clone import made, serving
from tests.executor.test_workspace import git
from tests.factories import run_created
from tests.hostile.executor_as import ROOT
from tests.leftovers import contents, messages, processes, rows
from tests.sandboxes import missing
from tests.service.running import runstream

ORDINARY = 12345
TOKEN = "open-sesame"
HERE = secrets.token_hex(4)
"""Part of each secret: the processes of other sessions on this machine have theirs."""
SECRET = f"pa\"ss'wo$rd+/=x<&>{HERE}"
FIELD = f"{HERE}-of-a-field"
ACCOUNT = json.dumps({"type": "account", "key": FIELD, "more": [{"pin": 90417}]}, indent=2)
KEY = (
    "-----BEGIN KEY-----\n"
    + "\n".join(hashlib.sha256(f"{HERE}{n}".encode()).hexdigest() for n in range(20))
    + "\n-----END KEY-----\n"
)
BIG = "".join(f"{hashlib.sha256(f'{HERE}big{n}'.encode()).hexdigest()}\n" for n in range(2000))
PASSWORD = f"s3cr:t/p@ss-of-the-repository-{HERE}"
ARMOR = {"-----BEGIN KEY-----", "-----END KEY-----"}
NEEDLES = {
    *(
        encode(SECRET.encode()[at:]).rstrip(b"=")[:-4].decode()
        for at in range(3)
        for encode in (base64.b64encode, base64.urlsafe_b64encode)
    ),
    *(SECRET, json.dumps(SECRET)[1:-1], quote(SECRET, safe=""), quote_plus(SECRET), html.escape(SECRET)),
    *(SECRET.encode().hex(), SECRET[::-1], FIELD, FIELD[::-1], PASSWORD, PASSWORD[::-1], quote(PASSWORD, safe="")),
    base64.b64encode(f"user:{PASSWORD}".encode()).decode(),
    *(line[::way] for line in KEY.splitlines() if line not in ARMOR for way in (1, -1)),
    *BIG.splitlines(),
}
"""What must be nowhere; backwards as tasks print it that look into their environment, past the masking."""
FINDER = BytesAhoCorasick([needle.encode() for needle in sorted(NEEDLES)])
VALUES = {"token": SECRET, "account": ACCOUNT, "key": KEY, "big": BIG, "password": PASSWORD}


@dataclass
class Stage:
    """A service to attack, and where it keeps what."""

    uid: int
    sandbox: str
    base: Path
    nats_url: str
    database_url: str
    namespace: str
    schema: str
    url: str = ""
    shown: list[bytes] = field(default_factory=list)
    """All that the service answered."""

    @property
    def servers(self) -> dict[str, str]:
        return {
            "RUNSTREAM_NATS_URL": self.nats_url,
            "RUNSTREAM_DATABASE_URL": self.database_url,
            "RUNSTREAM_NAMESPACE": self.namespace,
            "RUNSTREAM_DATABASE_SCHEMA": self.schema,
            "RUNSTREAM_TOKEN": TOKEN,
        }

    def client(self) -> Client:
        return Client(self.url, token=TOKEN)

    async def command(self, *words: str, beside: bool = False) -> tuple[int, str]:
        """Run `runstream` to its end, by the service or beside it on its servers; return its exit code and stderr."""
        ours = self.servers if beside else {"RUNSTREAM_URL": self.url, "RUNSTREAM_TOKEN": TOKEN}
        code, out, err = await runstream(*words, **ours, XDG_DATA_HOME=str(self.base))
        self.shown += out.encode(), err.encode()
        return code, err

    async def run(self, client: Client, config: object, **source: str) -> Run:
        """Create a run that is given all secrets, and wait for its end."""
        variables = {name: {"values": [{"secret_name": "all", "secret_var": name}]} for name in VALUES}
        files = {"variables.json": json.dumps(variables)}, {"secrets.json": json.dumps({"all": VALUES})}
        inputs = Inputs(json.dumps(config), "config.json", variable_files=files[0], secret_files=files[1])
        (run,) = await client.runs.create_from_config(inputs, source=Source(**source))
        return await self.ended(client, run.id)

    async def ended(self, client: Client, run_id: str) -> Run:
        """Wait until a run has ended and its logs are stored."""
        async for commit in client.events.tail(run=run_id):
            self.shown.append(repr(commit).encode())
            if any(event.type == "RunArchived" for event in commit.events):
                break
        run = await client.runs.get(run_id, at_least=commit.position)
        self.shown.append(repr(run).encode())
        return run

    async def logs(self, client: Client, run: Run, name: str = "t") -> list[str]:
        """The log of each step of a task."""
        task = run.task(name)
        assert task is not None
        texts = [await client.logs.get(run.id, task.id, at) for at, step in enumerate(task.steps) if step.start_time]
        self.shown += texts
        return [text.decode() for text in texts]


def environment(**variables: str) -> dict[str, Any]:
    return {name: {"from_variable": variable} for name, variable in variables.items()}


def run_of(*steps: object, environment: dict[str, Any] | None = None, **task: object) -> dict[str, Any]:
    one = {"name": "t", "runtime": {"type": "host"}, "environment": environment or {}, "steps": steps, **task}
    return {"runs": [{"name": "hostile", "tasks": [one]}]}


def step(command: str, *, tty: bool = False) -> dict[str, Any]:
    return {"run": {"name": "a step", "command": command, "tty": tty}}


@pytest.fixture(
    scope="module",
    params=[(uid, sandbox) for uid in (0, ORDINARY) for sandbox in ("off", "require")],
    ids=lambda mode: f"{'root' if mode[0] == 0 else 'ordinary user'}, sandbox {mode[1]}",
)
def stage(request: pytest.FixtureRequest, nats_url: str, database_url: str) -> Iterator[Stage]:
    uid, sandbox = request.param
    if sandbox == "require" and missing():
        pytest.skip(f"no sandbox on this machine: {missing()}")
    if os.geteuid() != 0:
        if uid == 0:
            pytest.skip("takes root")
        uid = os.geteuid()
    name = f"hostile{secrets.token_hex(6)}"
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="hostile-") as base:
        stage = Stage(uid, sandbox, Path(base), nats_url, database_url, name, name)
        stage.base.chmod(0o755)
        trusted = stage.base / "trusted.pem"
        for key in ("ours", "theirs"):
            subprocess.run(
                ["openssl", "genpkey", "-algorithm", "ed25519", "-out", stage.base / f"{key}.pem"], check=True
            )
        subprocess.run(["openssl", "pkey", "-in", stage.base / "ours.pem", "-pubout", "-out", trusted], check=True)
        data = stage.base / "data"
        data.mkdir()
        if os.geteuid() == 0:
            os.chown(data, uid, uid)
        try:
            with (
                processes(environments_without=b"MAY_HAVE_SECRETS=") as seen,
                (stage.base / "service.log").open("wb") as log,
                _serving(stage, data, log, trusted),
            ):
                yield stage
            stage.shown += seen
            uvloop.run(_searched(stage))
        finally:
            uvloop.run(drop_schema(database_url, name))


@contextlib.contextmanager
def _serving(stage: Stage, data: Path, log: Any, trusted: Path) -> Iterator[None]:
    words = ("--data-dir", str(data), "serve", "--components", "gateway,scheduler,executor", "--sandbox", stage.sandbox)
    settings = {**stage.servers, "RUNSTREAM_IMPORT_TRUSTED_KEYS": str(trusted)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.service_as", str(stage.uid), *words],
        env={**os.environ, **settings, "HOME": str(data), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=log,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        assert " at http" in line, (stage.base / "service.log").read_text()[-4000:]
        stage.url = line.rpartition(" at ")[2].strip()
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


PYTHON = "python3 -c 'import base64, html, json, os, sys, time, urllib.parse as u; t = os.environ[\"TOKEN\"]; {}'"
SPELLINGS = {
    "as it is": 'echo "$TOKEN"',
    "to stderr": 'echo "$TOKEN" >&2',
    "basic auth": 'printf "user:%s" "$TOKEN" | base64 -w0',
    "base64 at another offset": 'printf "me:%s:x" "$TOKEN" | base64 -w0',
    "base64 at a third offset": 'printf "it:%s" "$TOKEN" | base64 -w0',
    "base64url": PYTHON.format('[print(base64.urlsafe_b64encode(b"x" * n + t.encode()).decode()) for n in range(3)]'),
    "set -x": 'set -x; : curl -H "$TOKEN"',
    "json": PYTHON.format("print(json.dumps([t]))"),
    "json in json": PYTHON.format("print(json.dumps(json.dumps([t])))"),
    "url": PYTHON.format('print(u.quote(t, safe=""), u.quote_plus(t))'),
    "xml": PYTHON.format("print(html.escape(t), html.escape(t, quote=False))"),
    "hex": 'printf %s "$TOKEN" | od -An -tx1; printf %s "$TOKEN" | od -An -tx1 | tr -d " \\n" | tr a-f A-F',
    "of python": PYTHON.format("print(repr(t), repr(t.encode()))"),
    "a field of a JSON secret": PYTHON.format('print(json.loads(os.environ["ACCOUNT"])["key"])'),
    "each byte by itself": PYTHON.format("[(sys.stdout.write(c), sys.stdout.flush(), time.sleep(0.001)) for c in t]"),
    "over the edge of a chunk": PYTHON.format(
        'os.write(1, b"x" * 65530 + t.encode() + b"x" * 131050 + t.encode() + b"\\n")'
    ),
    "lines of a key": 'printf %s "$KEY"; printf %s "$KEY" | sed "s/$/\\r/"; printf %s "$KEY" | base64',
    "a large one": 'printf %s "$BIG" | sort; printf %s "$BIG" | base64 -w0',
}
ALL = {"MAY_HAVE_SECRETS": "1", **environment(TOKEN="token", ACCOUNT="account", KEY="key", BIG="big")}


def leaked(content: bytes) -> set[str]:
    """Which secrets these bytes show."""
    return {content[begin:end].decode() for _, begin, end in FINDER.find_matches_as_indexes(content)}


async def test_no_spelling_of_a_secret_is_in_a_log(stage: Stage) -> None:
    """Stored, and followed while the steps run; with a terminal, too."""
    steps = [step(command, tty=tty) for tty in (False, True) for command in SPELLINGS.values()]
    async with stage.client() as client:
        following: list[asyncio.Task[bytes]] = []

        async def follow(run_id: str, task_id: str, at: int) -> bytes:
            return b"".join([chunk async for chunk in client.logs.follow(run_id, task_id, at)])

        async with asyncio.TaskGroup() as group:
            running = group.create_task(stage.run(client, run_of(*steps, environment=ALL)))
            async for commit in client.events.tail():
                run_id = commit.aggregate.rpartition("/")[2]
                if any(event.type == "RunStarted" for event in commit.events):
                    break
            (task,) = (await client.runs.get(run_id)).tasks.values()
            following = [group.create_task(follow(run_id, task.id, at)) for at in range(len(steps))]
        run = running.result()
        stored = await stage.logs(client, run)
    assert run.result == "success"
    for name, log, live in zip([*SPELLINGS, *SPELLINGS], stored, following, strict=True):
        assert leaked(log.encode()) == set(), name
        assert "***" in log, name
        assert live.result().decode() == log, name


ONE = pytest.mark.parametrize("stage", [(0 if os.geteuid() == 0 else ORDINARY, "off")], indirect=True, ids=["one mode"])


@ONE
async def test_much_output_is_complete_beside_a_large_secret(stage: Stage) -> None:
    async with stage.client() as client:
        config = run_of(step("seq 1 2600000"), environment={"MAY_HAVE_SECRETS": "1", **environment(BIG="big")})
        run = await stage.run(client, config)
        (log,) = await stage.logs(client, run)
    assert run.result == "success"
    assert log == "".join(f"{number}\n" for number in range(1, 2600001))


LOOKS_BACKWARDS = (
    "for f in /proc/[0-9]*/environ /proc/[0-9]*/cmdline; do cat $f; done 2>/dev/null | tr '\\0' '\\n' | rev; true"
)


async def test_a_password_of_a_repository_is_in_no_environment_command_line_or_log(stage: Stage) -> None:
    repository = stage.base / "served"
    git(made(stage.base / "r", "one"), "clone", "-q", "--bare", ".", str(repository / "x.git"))
    git(repository / "x.git", "update-server-info")
    look = step(f"env | rev; git remote -v; {LOOKS_BACKWARDS}")
    look["run"]["environment"] = {"MAY_HAVE_SECRETS": "1"}
    with serving(repository, f"user:{PASSWORD}") as (address, sent):
        given = {**environment(RUNSTREAM_GIT_PASSWORD="password"), "RUNSTREAM_GIT_USERNAME": "user"}
        runs = [
            (f"http://{address}/x.git", given),
            (f"http://user:{quote(PASSWORD, safe='')}@{address}/x.git", {}),
        ]
        async with stage.client() as client:
            for url, variables in runs:
                config = run_of({"clone": {}}, look, environment=variables)
                run = await stage.run(client, config, repository_url=url, branch="main")
                logs = await stage.logs(client, run)
                assert run.result == "success", logs
                assert leaked("".join(logs).encode()) == set()
    assert sent[-1].startswith("Basic ")


async def test_a_private_key_of_a_repository_is_in_no_environment_command_line_or_log(stage: Stage) -> None:
    """A stand-in for ssh notes which key it was given."""
    place = f"/tmp/{stage.namespace}"
    prepare = textwrap.dedent(f"""\
        mkdir -p {place}/bin && cd {place} && git init -q -b main r && cd r
        git -c user.name=x -c user.email=x@example.com commit -q --allow-empty -m one
        cat >{place}/bin/ssh <<'END'
        #!/bin/sh
        sed -n 's/.*IdentityFile "\\(.*\\)"/\\1/p' "$2" | xargs sha256sum | cut -c1-64 >{place}/digest
        env >{place}/env
        exec git upload-pack {place}/r
        END
        chmod +x {place}/bin/ssh""")
    look = step(
        f"env | rev; rev {place}/env; {LOOKS_BACKWARDS}; git log --format=%s; cat {place}/digest; rm -r {place}"
    )
    variables = {**environment(RUNSTREAM_SSHPRIVKEY="key"), "RUNSTREAM_SSHHOSTKEY": "git.example.com ssh-ed25519 AAAA"}
    variables["PATH"] = f"{place}/bin:/usr/local/bin:/usr/bin:/bin"
    config = run_of(step(prepare), {"clone": {}}, look, environment=variables)
    async with stage.client() as client:
        run = await stage.run(client, config, repository_url="git@git.example.com:a/b.git", branch="main")
        logs = await stage.logs(client, run)
    assert run.result == "success", logs
    assert logs[2].splitlines()[-2:] == ["one", hashlib.sha256(KEY.encode()).hexdigest()]
    assert leaked("".join(logs).encode()) == set()


async def test_a_sealed_text_that_is_copied_elsewhere_does_not_open(stage: Stage) -> None:
    """An attacker who can write to the log puts the sealed texts of a run into a run that prints them."""
    async with stage.client() as client:
        run = await stage.run(client, run_of(step("true"), environment=ALL))
        async with nats_connection(stage.nats_url) as nats, await open_log(nats, stage.namespace) as log:
            found = await find_run(log, await locate_run(log, run.id))
            task = found.config.tasks["t"]
            printing = replace(task, steps=(replace(task.steps[0], command="env | rev"),))
            moved = replace(task, environment={**task.environment, "KEY": task.environment["TOKEN"]})
            ids = [await _planted(log, found, copy) for copy in (printing, moved)]
        for run_id in ids:
            ended = await stage.ended(client, run_id)
            (one,) = ended.tasks.values()
            assert (ended.result, one.steps[0].start_time) == ("failed", None)
            assert "secret" in one.fail_error


async def _planted(log: Log, found: FoundRun, task: RunConfigTask) -> str:
    """Write a run with this task to the log, past the gateway; its id."""
    config = replace(found.config, tasks={task.name: task})
    address = replace(found.address, id=new_id())
    stored = Address(address.partition, "runconfig", config_hash(config))
    created = run_created("planted", found.run.group, stored.id)
    for target, event in ((stored, RunConfigStored(config)), (address, created)):
        await log.append(Head().next_commit(target, (event,), time=datetime.now(UTC), actor="attacker"))
    return address.id


@ONE
async def test_snapshots_are_private_and_imported_only_when_a_trusted_key_signed_them(stage: Stage) -> None:
    signed = stage.base / "signed"
    signed.mkdir()
    for key in ("ours", "theirs"):
        words = ("export", "-o", str(signed / f"{key}.tar"), "--sign", str(stage.base / f"{key}.pem"))
        code, told = await stage.command(*words, beside=True)
        assert code == 0, told
        assert stat.S_IMODE((signed / f"{key}.tar").stat().st_mode) == 0o600
    assert await stage.command("maintenance", "enable", "--wait") == (0, "")
    try:
        for beside in (False, True):  # by the service, and by a shell that does not have its settings
            code, told = await stage.command("import", "--dry-run", str(signed / "theirs.tar"), beside=beside)
            assert code == 1
            assert "import_trusted_keys" in told
        code, told = await stage.command("import", "--dry-run", str(signed / "ours.tar"))
        assert code == 0, told
    finally:
        assert (await stage.command("maintenance", "disable", "--wait"))[0] == 0
    stage.shown += [path.read_bytes() for path in signed.iterdir()]


async def test_nothing_that_the_service_wrote_has_a_secret_in_plain(stage: Stage) -> None:
    """After a run that has all secrets; and once more when the service of all other attacks has ended."""
    async with stage.client() as client:
        await stage.run(client, run_of(step("true"), environment=ALL))
    assert b"RunConfigStored" in await _searched(stage)


async def _searched(stage: Stage) -> bytes:
    """Look for secrets in the log, the database, objects, files of the service, answers, processes; return the log."""
    left = stage.base / "rows"
    left.mkdir(exist_ok=True)
    await rows(stage.database_url, left, stage.schema)
    log = await messages(stage.nats_url, stage.namespace)
    where = {"the log": log, "records": (stage.base / "service.log").read_bytes()}
    where |= {f"answer or process {number}": content for number, content in enumerate(stage.shown)}
    where |= contents(left) | contents(stage.base / "data")
    assert {name: found for name, content in where.items() if (found := leaked(content))} == {}
    return log

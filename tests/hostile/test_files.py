"""What tasks try by the files that the executor reads and writes for them: workspaces, working directories, clones.

As root and as an ordinary user, in a sandbox and without one. All attacks of a mode run in one executor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runstream.codec import zstd
from tests.executor.test_workspace import git
from tests.hostile.executor_as import ROOT
from tests.sandboxes import missing

ORDINARY = 12345
MARK = "the-secret-of-the-operator"


@dataclass(frozen=True)
class Stage:
    """A machine to attack."""

    uid: int
    sandbox: str
    base: Path

    @property
    def data_dir(self) -> Path:
        return self.base / "data"

    @property
    def ssh(self) -> Path:
        """The operator's own keys."""
        return self.base / "operator/.ssh"

    def run(self, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
        """Run tasks of one run, one after the other; return how each ended."""
        settings = {"sandbox": self.sandbox}
        done = subprocess.run(
            [sys.executable, "-m", "tests.hostile.executor_as", str(self.uid), str(self.data_dir)],
            input=json.dumps({"settings": settings, "tasks": tasks, "one_run": True}),
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "HOME": str(self.ssh.parent), "PYTHONDONTWRITEBYTECODE": "1"},
            timeout=100,
            check=False,
        )
        answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
        assert answers, done.stdout[-2000:] + done.stderr[-4000:]
        found: list[dict[str, Any]] = json.loads(answers[0].removeprefix("ANSWER "))
        return found


@pytest.fixture(
    params=[(uid, sandbox) for uid in (0, ORDINARY) for sandbox in ("require", "off")],
    ids=lambda mode: f"{'root' if mode[0] == 0 else 'ordinary user'}, sandbox {mode[1]}",
)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    uid, sandbox = request.param
    if sandbox == "require" and missing():
        pytest.skip(f"no sandbox on this machine: {missing()}")
    if os.geteuid() != 0:
        if uid == 0:
            pytest.skip("takes root")
        uid = os.geteuid()
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="hostile-") as name:
        base = Path(name)
        base.chmod(0o755)
        stage = Stage(uid, sandbox, base)
        for path in (
            stage.data_dir / "token",
            stage.ssh / "id_rsa",
            stage.ssh / "config",
            base / "operator/.gitconfig",
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(MARK)
        repository = base / "repository"
        repository.mkdir()
        git(repository, "init", "-q", "-b", "main")
        (repository / "file").write_text("content")
        git(repository, "add", "file")
        git(repository, "commit", "-q", "-m", "first")
        if os.geteuid() == 0:
            for path in (base, *base.rglob("*")):
                os.chown(path, uid, uid)
        yield stage


def task(*steps: str | dict[str, Any], working_dir: str = "", **environment: str) -> dict[str, Any]:
    return {"steps": steps, "tty": False, "environment": environment, "working_dir": working_dir}


def save(source_dir: str, *patterns: str) -> dict[str, Any]:
    content = {"source_dir": source_dir, "dest_dir": "", "paths": patterns or ("**",)}
    return {"type": "save_to_workspace", "contents": [content]}


def restore(dest_dir: str) -> dict[str, Any]:
    return {"type": "restore_workspace", "dest_dir": dest_dir, "contents": []}


CLONE: dict[str, Any] = {"type": "clone", "contents": []}


def test_files_of_the_operator_are_neither_read_nor_written(stage: Stage) -> None:
    data, ssh, repository = stage.data_dir, stage.ssh, stage.base / "repository"
    swap = f"(for i in $(seq 3000); do mv d e; ln -s {data} d; rm d; mv e d; done) >/dev/null 2>&1 & "
    tasks = [
        task("mkdir -p d; echo evil >d/authorized_keys; echo evil >token", save(".")),
        task(save(str(data))),
        task(save(f"/proc/self/root{data}")),
        task(save(f"../../../../../../../..{data}")),
        task(f"ln -s {data} link", save("link")),
        task(f"ln -s {data} link", save(".", "link/token", "link/**")),
        task(save("/etc", "shadow", "gshadow")),
        task(restore(str(ssh))),
        task(restore(str(data))),
        task(f"ln -s {ssh} ~/.ssh", restore("~/.ssh")),
        task(f"ln -s {ssh}/../.ssh there", restore("there/deep/er")),
        task("true", working_dir=str(data)),
        task("true", working_dir=f"{data}/made"),
        task(
            f"rm -rf ~/.ssh; ln -s {ssh} ~/.ssh; ln -s {ssh}/config ~/.runstream.gitconfig; ln -s {ssh} ~/.gitconfig",
            CLONE,
            AGOLA_REPOSITORY_URL=str(repository),
            AGOLA_SSHPRIVKEY="evil",
            AGOLA_SSHHOSTKEY="evil",
        ),
        task(CLONE, AGOLA_REPOSITORY_URL=str(data)),
        task(CLONE, AGOLA_REPOSITORY_URL=f"file://{data}/objects"),
        task(f"mkdir d; echo mine >d/token; {swap} true", save(".", "d/**")),
        task(f"mkdir -p d; {swap} true", restore(".")),
    ]
    before = {path: path.read_bytes() for path in (data / "token", ssh / "id_rsa", ssh / "config")}
    answers = stage.run(*tasks)
    assert answers[0]["phase"] == "success", answers[0]
    assert [MARK for answer in answers if MARK in json.dumps(answer)] == []
    archives = [path for path in (data / "objects").rglob("*.tar") if path.is_file()]
    contents = {path: zstd.decompress(path.read_bytes()) for path in archives}
    assert any(b"authorized_keys" in content for content in contents.values())
    for archive, content in contents.items():
        assert MARK.encode() not in content, archive
        assert b"root:" not in content, archive
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.name for path in ssh.iterdir()) == ["config", "id_rsa"]
    assert not (data / "made").exists()
    assert not (data / "d").exists()

"""What tasks do to the machine, to the service and to each other; as root and as an ordinary user, in a sandbox.

Each attack is a shell script that prints BREACH when it got somewhere. All of them run in one executor for each user.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.hostile.executor_as import ROOT
from tests.sandboxes import missing, needs_scopes

ORDINARY = 12345
MARK = "the-secret-of-the-service"


@dataclass(frozen=True)
class Stage:
    """A machine to attack: where its secrets are."""

    uid: int
    data_dir: Path
    outside: Path
    """A folder that everybody may write to."""
    abstract: str
    port: int

    process: subprocess.Popen[str]
    """Forks an executor of this user for each line."""
    records: Path
    """What the executors logged."""

    def run(self, tasks: list[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
        """Run tasks in an executor of this user; return how each ended."""
        self.begin({"settings": {"sandbox": "require", **settings}, "tasks": tasks})
        said = [*self.said()]
        answers = [line for line in said if line.startswith("ANSWER ")]
        assert answers, "".join(said)[-2000:] + self.records.read_text()[-4000:]
        assert "ld.so" not in self.records.read_text()
        found: list[dict[str, Any]] = json.loads(answers[0].removeprefix("ANSWER "))
        return found

    def begin(self, asked: dict[str, Any]) -> int:
        """Start an executor with these tasks; return its pid."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{json.dumps(asked)}\n")
        self.process.stdin.flush()
        line = next((line for line in self.said() if line.startswith("PID ")), "")
        assert line, self.records.read_text()[-4000:]
        return int(line.removeprefix("PID "))

    def said(self) -> Iterator[str]:
        """What the executor says until it has ended."""
        assert self.process.stdout is not None
        return iter(self.process.stdout.readline, "ENDED\n")


def task(*steps: str, tty: bool = False, environment: dict[str, str] | None = None) -> dict[str, Any]:
    return {"steps": steps, "tty": tty, "environment": environment or {}}


@pytest.fixture(scope="module", params=[0, ORDINARY], ids=["root", "ordinary user"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    uid = request.param
    if missing():
        pytest.skip(f"no sandbox on this machine: {missing()}")
    if os.geteuid() != 0:
        if uid == 0:
            pytest.skip("takes root")
        uid = os.geteuid()
    with contextlib.ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp", prefix="hostile-")))
        base.chmod(0o755)
        data_dir, outside = base / "data", base / "outside"
        for folder in (data_dir, data_dir / "objects", data_dir / "executor/tasks/other/home", outside):
            folder.mkdir(parents=True, exist_ok=True)
        for name in ("token", "secrets.key", "settings.yml", "objects/log", "executor/tasks/other/home/x"):
            (data_dir / name).write_text(MARK)
        for path in (base, *base.rglob("*")):
            if os.geteuid() == 0:
                os.chown(path, uid, uid)
        data_dir.chmod(0o700)
        outside.chmod(0o777)
        abstract = f"runstream-hostile-{secrets.token_hex(6)}"
        for address in (f"\0{abstract}", f"{outside}/agent.sock"):
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(address)
            listening.listen()
        (outside / "agent.sock").chmod(0o777)
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        records = base / "records"
        process = stack.enter_context(_executors(uid, data_dir, records))
        yield Stage(uid, data_dir, outside, abstract, server.getsockname()[1], process, records)


@contextlib.contextmanager
def _executors(uid: int, data_dir: Path, records: Path) -> Iterator[subprocess.Popen[str]]:
    with (
        records.open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.executor_as", str(uid), str(data_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env={**os.environ, "EXECUTOR_SECRET": MARK, "PYTHONDONTWRITEBYTECODE": "1"},
        ) as process,
    ):
        yield process


PYTHON = "python3 - <<'END' 2>/dev/null\n{}\nEND\n"

ATTACKS = {
    "read the service's files by their paths": (
        "for root in '' /proc/1/root /proc/self/root /proc/self/cwd/../../..; do"
        " for file in token secrets.key settings.yml objects/log executor/tasks/other/home/x; do"
        " cat $root{data_dir}/$file && echo BREACH; done; done; ls {data_dir} && echo BREACH"
    ),
    "find them anywhere": (
        "grep -rsl {mark} / --include=token --include=secrets.key --include=settings.yml && echo BREACH"
    ),
    "read what is root's": (
        "for f in /etc/shadow /etc/gshadow /proc/kcore /dev/mem; do head -c 1 $f && echo BREACH; done"
    ),
    "change the system": (
        "for f in /usr/x /etc/x /opt/x /bin/x /x /var/x /run/x /home/x /dev/x; do touch $f && echo BREACH; done;"
        "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/drop_caches"
        " /proc/sys/user/max_user_namespaces; do echo 1 >$f && echo BREACH; done"
    ),
    "change mounts": (
        "umount /usr && echo BREACH; umount -l /proc && echo BREACH; mount -o remount,rw /usr && echo BREACH;"
        "mount -o remount,bind,rw / && echo BREACH; mount -t tmpfs none /opt && echo BREACH;"
        "mount --bind /tmp /etc && echo BREACH; chroot /tmp /bin/true && echo BREACH"
    ),
    "begin namespaces": "for f in -U -Ur -Urm -m -p -n -i -u; do unshare $f true && echo BREACH; done",
    "enter the namespaces of others": "for n in mnt user pid net ipc; do nsenter -t 1 --$n true && echo BREACH; done",
    "make devices": (
        "mknod ~/disk b 254 0 && echo BREACH; mknod /tmp/mem c 1 1 && echo BREACH; ls /dev/vda && echo BREACH"
    ),
    "be root by a setuid program": (
        "test $(id -u) = 0 && echo BREACH; for p in su sudo; do $p -c true </dev/null && echo BREACH; done;"
        "cp /bin/sh ~/sh && chmod u+s ~/sh && ~/sh -pc 'test $(id -u) = 0' && echo BREACH"
    ),
    "have a capability": "grep '^Cap' /proc/self/status | grep -v 0000000000000000 && echo BREACH",
    "open files by their handles": PYTHON.format(
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "class Handle(ctypes.Structure):\n"
        "    _fields_ = [('size', ctypes.c_uint), ('kind', ctypes.c_int), ('data', ctypes.c_uint * 2)]\n"
        "for place in ('/usr', '/home/runstream', '/tmp', '/proc', '/'):\n"
        "    handle = Handle(8, 1, (ctypes.c_uint * 2)(2, 0))\n"
        "    if libc.open_by_handle_at(os.open(place, os.O_RDONLY), ctypes.byref(handle), os.O_RDONLY) >= 0:\n"
        "        print('BREACH', place)"
    ),
    "trace the first process": PYTHON.format(
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "libc.ptrace.argtypes = [ctypes.c_long] * 4\n"
        "if libc.ptrace(16, 1, 0, 0) == 0: print('BREACH')"
    ),
    "kill everything": (
        "kill -9 1; trap '' TERM; kill -TERM -1; kill -0 {pid} && echo BREACH; test -d /proc/1 || echo BREACH"
    ),
    "see other processes": "ps axww | grep -v grep | grep -E 'executor_as|postgres|nats-server' && echo BREACH",
    "read the executor's environment": (
        "cat /proc/*/environ | tr '\\0' '\\n' | grep EXECUTOR_SECRET= && echo BREACH;"
        "env | grep -q {mark} && echo BREACH"
    ),
    "talk to the machine's sockets": (
        "for s in {outside}/agent.sock /run/docker.sock /var/run/docker.sock /run/dbus/system_bus_socket; do"
        ' test -e $s && echo BREACH; done; test -n "$SSH_AUTH_SOCK$DBUS_SESSION_BUS_ADDRESS" && echo BREACH'
    ),
    "write where everybody may": (
        "touch {outside}/x && echo BREACH;for d in /tmp /var/tmp /dev/shm; do echo x >$d/escaped-{token}; done"
    ),
    "push keys into a terminal": PYTHON.format(
        "import fcntl, os, termios\n"
        "for name in ('/dev/tty', '/dev/console', '/dev/tty1', '/dev/pts/0'):\n"
        "    try:\n"
        "        fcntl.ioctl(os.open(name, os.O_RDWR), termios.TIOCSTI, b'x')\n"
        "        print('BREACH')\n"
        "    except OSError: pass"
    ),
    "take the executor's descriptors": (
        "for d in /proc/self/fd/*; do case $(readlink $d) in *socket*|*memfd*|{data_dir}*) echo BREACH;; esac; done"
    ),
    "go to the executor's folder by its working directory": (
        "cd ..; cd ..; cd ..; cat data/token && echo BREACH; ls executor && echo BREACH"
    ),
    "fill the descriptors of the agent": PYTHON.format(
        "import os\ntry:\n    while True: os.dup(0)\nexcept OSError: pass"
    ),
}


@pytest.fixture(scope="module")
def attacked(stage: Stage) -> dict[str, dict[str, Any]]:
    """How all attacks ended."""
    names = {
        "{data_dir}": str(stage.data_dir), "{outside}": str(stage.outside), "{mark}": MARK,
        "{pid}": str(os.getpid()), "{token}": stage.abstract,
    }  # fmt: skip
    tasks = []
    for attack in ATTACKS.values():
        script = attack
        for name, value in names.items():
            script = script.replace(name, value)
        tasks.append(task(f"{{\n{script}\n}} 2>/dev/null || true", "echo still served"))
    return dict(zip(ATTACKS, stage.run(tasks), strict=True))


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_task_stays_in_its_sandbox(attacked: dict[str, dict[str, Any]], attack: str) -> None:
    done = attacked[attack]
    assert "In a sandbox" in done["setup"], done
    assert "BREACH" not in done["logs"][0]
    assert MARK not in json.dumps(done)
    assert done["logs"][1] == "still served\n", done


def test_nothing_was_left_outside(stage: Stage, attacked: dict[str, dict[str, Any]]) -> None:
    assert attacked
    assert sorted(path.name for path in stage.outside.iterdir()) == ["agent.sock"]
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        assert not Path(folder, f"escaped-{stage.abstract}").exists()
    assert (stage.data_dir / "token").read_text() == MARK


def test_variables_of_a_task_do_nothing_outside_of_its_sandbox(stage: Stage) -> None:
    """A library that is loaded outside leaves its name in a folder that is not in the sandbox."""
    if shutil.which("gcc") is None:
        pytest.skip("takes a C compiler")
    source, library = stage.outside / "evil.c", stage.outside / "evil.so"
    source.write_text(
        "#include <fcntl.h>\n"
        "__attribute__((constructor)) static void run(void)\n"
        f'{{ open("{stage.outside}/loaded", O_CREAT | O_RDWR, 0666); }}\n'
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    try:
        names = ("LD_PRELOAD", "LD_AUDIT", "GCONV_PATH", "PYTHONPATH", "BASH_ENV", "ENV")
        variables = dict.fromkeys(names, str(library))
        variables |= {
            "LD_LIBRARY_PATH": str(stage.outside),
            "PYTHONSTARTUP": str(source),
            "PYTHONHOME": str(stage.outside),
        }
        (done,) = stage.run([task("echo it ran", environment=variables)])
        assert done["logs"][0].endswith("it ran\n"), done
        assert not (stage.outside / "loaded").exists()
    finally:
        source.unlink()
        library.unlink()


@needs_scopes
def test_abstract_sockets_and_the_network_can_be_out_of_reach(stage: Stage) -> None:
    connects = PYTHON.format(
        "import socket\n"
        "def reached(family, address):\n"
        "    try: socket.socket(family).connect(address); return True\n"
        "    except OSError: return False\n"
        f"print(reached(socket.AF_UNIX, '\\0{stage.abstract}'), reached(socket.AF_INET, ('127.0.0.1', {stage.port})))"
    )
    (kept,), (taken,) = stage.run([task(connects)]), stage.run([task(connects)], sandbox_network=False)
    assert taken["logs"][0] == "False False\n"
    assert kept["logs"][0] == "False True\n"


def test_tasks_do_not_see_each_other(stage: Stage) -> None:
    """One leaves what it can for a second, which looks for it while the first one runs."""
    name = f"between-{secrets.token_hex(4)}"
    leaves = (
        f"echo x >/tmp/{name}; echo x >/dev/shm/{name}; echo x >~/{name}; sh -c 'exec sleep 2.{stage.port}' &\n"
        "python3 -c 'import socket, time; s = socket.socket(socket.AF_UNIX);"
        f' s.bind("\\0{name}"); s.listen(); time.sleep(2)\''
    )
    looks = (
        f"for i in $(seq 10); do for f in /tmp/{name} /dev/shm/{name} ~/{name}; do test -e $f && echo BREACH; done;"
        f" ps ax | grep -v grep | grep -q 'sleep 2.{stage.port}' && echo BREACH; sleep 0.1; done; true"
    )
    _, looked = stage.run([task(leaves), task(looks)])
    assert looked["logs"][0] == "", looked


def test_bombs_end_at_the_limits(stage: Stage) -> None:
    limits = {"task_processes": 30, "step_log_bytes": 10_000, "task_open_files": 100, "task_file_bytes": 1 << 20}
    bombs = {
        "processes": "b() { b | b & }; b; sleep 0.2; for i in $(seq 60); do sleep 100 & done; echo never",
        "log": "yes | head -c 1000000; echo the step goes on >&2",
        "file": "head -c 9999999 /dev/zero >~/big; echo never",
        "descriptors": "exec python3 -c 'import os\nwhile True: os.dup(0)'",
    }
    done = dict(zip(bombs, stage.run([task(bomb) for bomb in bombs.values()], **limits), strict=True))
    assert "never" not in done["processes"]["logs"][0]
    assert done["log"]["phase"] == "success"
    assert "The log ends here: it has 10000 bytes" in done["log"]["logs"][0]
    assert done["file"]["statuses"] == [153]
    assert "Too many open files" in done["descriptors"]["logs"][0]


@pytest.mark.parametrize("sandbox", ["require", "off"])
def test_what_a_task_starts_ends_with_it(stage: Stage, sandbox: str) -> None:
    stay = f"9{stage.port}"
    escapes = [
        f"(setsid sleep {stay} &) ; echo begun",
        f"(cd /; env -i setsid setsid sleep {stay} &) ; echo begun",
        "(cd /; exec env -i python3 -c 'import os\n"
        f"while True:\n  if os.fork(): os._exit(0)\n  os.setsid(); {stay}' >/dev/null 2>&1 &) ; echo begun",
        f"trap '' TERM HUP INT; (trap '' TERM HUP INT; nohup sleep {stay} >/dev/null 2>&1 &) ; echo begun",
    ]
    done = stage.run([task(escape, tty=tty) for escape in escapes for tty in (True, False)], sandbox=sandbox)
    assert [each["logs"] for each in done] == [["begun\n"]] * len(done)
    shown = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in shown.splitlines() if stay in line]


def test_a_killed_executor_leaves_nothing(stage: Stage) -> None:
    """With a sandbox and without."""
    for sandbox in ("require", "off"):
        stay = f"8{stage.port}"
        asked = {"settings": {"sandbox": sandbox}, "tasks": [task(f"(setsid sleep {stay} &); sleep {stay}")]}
        asyncio.run(_killed(stage, asked, stay))


async def _killed(stage: Stage, asked: dict[str, Any], stay: str) -> None:
    pid = stage.begin(asked)
    async with asyncio.timeout(30):
        while len(_staying(stay)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # sleeps: nothing tells of processes of others
        os.kill(pid, signal.SIGKILL)
        assert not [line for line in stage.said() if line.startswith("ANSWER ")]
        while _staying(stay):  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # sleeps: nothing tells of processes of others


def _staying(stay: str) -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", stay]]

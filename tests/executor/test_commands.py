"""How commands run, alike with and without a sandbox: output and input to their ends, terminals, the environment."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import re
import secrets
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runstream.events.executor import ExecutorRegistered
from runstream.events.executor_task import ExecutorTaskPhase, ExecutorTaskStopRequested
from runstream.events.run_config import Step
from runstream.executor.drivers import process, prompt_watch
from runstream.executor.drivers.process import ProcessDriver
from runstream.executor.limits import ControlGroups, Limits, control_groups, counts_processes
from runstream.executor.spec import inherited
from runstream.executor.workdir import ExecutorPlace
from runstream.settings import ExecutorSettings
from runstream.subjects import Address, partition_of
from tests.executor.rig import SETTINGS, rig, run_step, task_of
from tests.executor.test_life import appears
from tests.sandboxes import missing

SUCCESS, FAILED = ExecutorTaskPhase.SUCCESS, ExecutorTaskPhase.FAILED


@pytest.fixture(params=["require", "off"])
def settings(request: pytest.FixtureRequest) -> ExecutorSettings:
    if request.param == "require" and missing():
        pytest.skip(f"no sandbox on this machine: {missing()}")
    return replace(SETTINGS, sandbox=request.param, stop_grace_seconds=1.0)


def bash(command: str, *, tty: bool, **fields: object) -> Step:
    return run_step(command, tty=tty, shell="/bin/bash -e", **fields)  # noqa: S604


both = pytest.mark.parametrize("tty", [True, False])


@both
@pytest.mark.parametrize(
    "reader", ["tee build.log", "sleep 0.6; cat", "while read -r line; do sleep 0.01; echo $line; done"]
)
async def test_the_last_lines_are_in_the_log(
    tmp_path: Path, settings: ExecutorSettings, tty: bool, reader: str
) -> None:
    command = f'exec > >({reader}) 2>&1\nseq 1 20\necho "LAST: the error message"\nexit 3'
    async with rig(tmp_path, settings=settings) as it:
        done = await it.run(bash(command, tty=tty))
        assert (await done.log()).splitlines() == [*map(str, range(1, 21)), "LAST: the error message"]
        assert done.task.steps[0].exit_status == 3


@both
async def test_a_background_process_does_not_hold_up_its_step_and_lives_on(
    tmp_path: Path, settings: ExecutorSettings, tty: bool
) -> None:
    server = (
        "(while :; do sleep 0.05; echo noise; test ! -e ~/stop || { echo >~/stopped; exit; }; done) &\necho started"
    )
    waits = "touch ~/stop; while test ! -e ~/stopped; do sleep 0.02; done; echo it was there"
    async with rig(tmp_path, settings=settings) as it:
        done = await it.run(run_step(server, tty=tty), run_step(waits, tty=tty))
        assert done.task.phase is SUCCESS
        assert (await done.log(0)).startswith("started\n")
        assert await done.log(1) == "it was there\n"


@both
async def test_standard_input_is_at_its_end(tmp_path: Path, settings: ExecutorSettings, tty: bool) -> None:
    reads = (
        "read answer || echo no answer",
        "cat $UNSET; echo went on",
        "head -c 1 | wc -c",
        "python3 -c 'import sys; print(repr(sys.stdin.read()))'",
        *(("head -n 1 </dev/tty; echo asked", "bash -c 'stty sane; read x || echo ended'") if tty else ()),
    )
    async with rig(tmp_path, settings=settings) as it:
        done = await it.run(*(run_step(command, tty=tty) for command in reads))
        assert done.task.phase is SUCCESS
        logs = [(await done.log(index)).strip() for index in range(len(reads))]
        assert logs == ["no answer", "went on", "0", "''", *(("asked", "ended") if tty else ())]


@both
async def test_a_failure_before_a_pipe_ends_a_step_whose_shell_says_pipefail(
    tmp_path: Path, settings: ExecutorSettings, tty: bool
) -> None:
    shells = {"": 0, "/bin/bash -e": 0, "/bin/bash -eo pipefail": 1, "/bin/bash  -e -o pipefail": 1}
    async with rig(tmp_path, settings=settings) as it:
        for shell, status in shells.items():
            done = await it.run(run_step("false | tee log; echo went on", tty=tty, shell=shell))
            assert (done.task.steps[0].exit_status, await done.log()) == (status, "" if status else "went on\n")


async def test_a_terminal_is_one_for_every_program(tmp_path: Path, settings: ExecutorSettings) -> None:
    commands = {
        'test -t 0 && test -t 1 && test -t 2 && echo "$TERM"; tput cols; tput bold >/dev/null && echo bold': (
            "xterm-256color\n120\nbold\n"
        ),
        "stty size": "40 120\n",
        "tty": "/dev/pts/",
        "echo hi >/dev/tty": "hi\n",
        "sh -c 'echo hi >/dev/tty'": "hi\n",
        "bash -c 'set -m; sleep 0.01 & fg'": "sleep 0.01\n",
        "setsid sh -c 'echo apart'": "apart\n",
        "python3 -c 'import sys; print(sys.stdout.encoding.lower(), \"ü\")'": "utf-8 ü\n",
        "printf 'a\\nb\\r\\n'": "a\nb\r\n",
    }
    async with rig(tmp_path, settings=settings) as it:
        done = await it.run(*(run_step(command, tty=True) for command in commands))
        for index, expected in enumerate(commands.values()):
            assert (await done.log(index)).startswith(expected)
        assert done.task.phase is SUCCESS
        done = await it.run(*(bash(command, tty=True) for command in commands))
        assert done.task.phase is SUCCESS


async def test_a_command_that_uses_its_terminal_from_the_background_goes_on(
    tmp_path: Path, settings: ExecutorSettings
) -> None:
    """A shell with job control does this when its job has ended in the foreground."""
    gives_it_away = """
import os, signal, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os._exit(signal.pause() or 0)
try:
    os.setpgid(job, job)
except PermissionError:
    pass
os.tcsetpgrp(0, job)
signal.signal(signal.SIGTTOU, signal.SIG_DFL)
USES
print("went on", os.tcgetpgrp(0) == os.getpgrp())
os.kill(job, signal.SIGKILL)
"""
    uses = ("termios.tcsetattr(0, termios.TCSANOW, termios.tcgetattr(0))", "sys.stdin.read(1)")
    commands = [f"exec python3 -c '{gives_it_away.replace('USES', use)}'" for use in uses]
    async with asyncio.timeout(30), rig(tmp_path, settings=settings) as it:
        done = await it.run(
            *(run_step(command, tty=True) for command in commands),
            *(
                run_step(f"kill -{name} $$; echo went on", tty=tty)
                for name in ("TTIN", "TTOU")
                for tty in (True, False)
            ),
        )
        assert done.task.phase is SUCCESS
        assert [await done.log(index) for index in range(2)] == ["went on True\n"] * 2
        assert [await done.log(index) for index in range(2, 6)] == ["went on\n"] * 4


async def test_signals_have_their_defaults(tmp_path: Path, settings: ExecutorSettings) -> None:
    """Whatever the service inherited: `nohup` ignores HUP, some init systems block or ignore others."""
    kept = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE)}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    _ignore_by_the_kernel(32, ignored=True)
    try:
        async with rig(tmp_path, settings=settings) as it:
            shown = "grep -E '^Sig(Blk|Ign)' /proc/self/status | grep -v '0000000000000000' || true"
            done = await it.run(*(run_step(shown, tty=tty) for tty in (True, False)))
            assert (await done.log(0), await done.log(1)) == ("", "")
    finally:
        _ignore_by_the_kernel(32, ignored=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        for number, handler in kept.items():
            signal.signal(number, handler)


def _ignore_by_the_kernel(number: int, *, ignored: bool) -> None:
    """Ignore a signal that the C library keeps to itself, as runtimes of other languages do."""
    if platform.machine() == "x86_64":
        action = (signal.SIG_IGN if ignored else signal.SIG_DFL).to_bytes(8, "little") + bytes(24)
        assert ctypes.CDLL(None).syscall(13, number, action, None, ctypes.c_size_t(8)) == 0


async def test_what_cannot_be_started_is_the_reason_of_the_step(tmp_path: Path, settings: ExecutorSettings) -> None:
    async with rig(tmp_path, settings=settings) as it:
        folder = await it.run(run_step("true", working_dir="./nothere"))
        shell = await it.run(run_step("true", shell="/bin/nosuchshell -e"))  # noqa: S604
        for done, reason in (
            (folder, "the working directory ./nothere does not exist"),
            (shell, "/bin/nosuchshell cannot be executed: there is no such program"),
        ):
            assert (done.task.steps[0].exit_status, done.task.phase) == (1, FAILED)
            assert done.task.fail_error == f"step 0 failed: {reason}"
            assert await done.log() == f"{reason}\n"


@pytest.mark.parametrize(("command", "status"), [("kill -9 $$", 137), ("kill -SEGV $$", 139), ("nosuchcommand", 127)])
async def test_an_exit_status_is_that_of_a_shell(
    tmp_path: Path, settings: ExecutorSettings, command: str, status: int
) -> None:
    async with rig(tmp_path, settings=settings) as it:
        done = await it.run(*(run_step(command, tty=True),), run_step("true"))
        assert done.task.steps[0].exit_status == status


async def test_the_environment_is_a_short_list(
    tmp_path: Path, settings: ExecutorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "PIP_INDEX_URL",
        "UV_INDEX",
        "https_proxy",
        "TERM",
        "XDG_RUNTIME_DIR",
        "SSH_AUTH_SOCK",
        "RUNSTREAM_TOKEN",
    ):
        monkeypatch.setenv(name, "of the executor")
    odd = {"WITH-DASH": "1", "with.dot": "2", "UNI_ü": "3", "LINES2": "a\nb", "EMPTY": "", "HUGE": "x" * 100_000}
    show = "env -0 | tr '\\0\\n' '\\n|' | sort; command -v python3"
    async with rig(tmp_path, settings=replace(settings, pass_environment=("UV_*", "*_proxy"))) as it:
        done = await it.run(bash(show, tty=False), environment=odd)
        *lines, python = (await done.log()).splitlines()
        found = dict(line.partition("=")[::2] for line in lines)
        ours = {name for name in found if not name.startswith(("LC_", "RUNSTREAM_", "AGOLA_"))}
        assert ours - {*odd, "PWD", "OLDPWD", "SHLVL", "_", "LANGUAGE", "TZ", "LANG"} == {
            *("HOME", "LOGNAME", "PATH", "SHELL", "TMPDIR", "USER", "UV_INDEX", "https_proxy"),
        }
        assert {name: found[name] for name in odd} == {**odd, "LINES2": "a|b"}
        assert "RUNSTREAM_TOKEN" not in found
        assert not python.startswith(os.environ.get("VIRTUAL_ENV", str(Path(__file__).parents[2] / ".venv")))


def test_the_service_s_own_programs_are_not_in_the_path() -> None:
    own = Path("/srv/service/.venv")
    environment = {
        "PATH": "/srv/service/.venv/bin:/usr/bin:/bin",
        "HOME": "/root",
        "LC_TIME": "C",
        "PIP_INDEX_URL": "x",
    }
    assert inherited(environment, (), own) == {"PATH": "/usr/bin:/bin", "LC_TIME": "C", "LANG": "C.UTF-8"}
    assert inherited({"PATH": "/srv/service/.venv/bin", "LANG": "C"}, (), own)["PATH"].startswith("/usr/local")


async def test_the_limits_of_a_task_hold_and_say_so(tmp_path: Path, settings: ExecutorSettings) -> None:
    limited = replace(settings, step_log_bytes=1000, task_open_files=64, task_file_bytes=5000)
    async with rig(tmp_path, settings=limited) as it:
        steps = ("seq 1 1000; echo > ~/done; true", "test -e ~/done; ulimit -n", "head -c 9999 /dev/zero > big")
        done = await it.run(*map(run_step, steps))
        assert [step.exit_status for step in done.task.steps] == [0, 0, 153]
        log = await done.log(0)
        assert log.startswith("1\n2\n")
        assert log.endswith("\nThe log ends here: it has 1000 bytes, the limit (executor.step_log_bytes).\n")
        assert await done.log(1) == "64\n"
        assert (await done.log(2)).splitlines()[-1].endswith("(executor.task_file_bytes).")
        assert "Limits: " in await done.log(None)


async def test_the_setup_log_of_a_host_task_speaks_of_no_pod(tmp_path: Path, settings: ExecutorSettings) -> None:
    async with rig(tmp_path, settings=settings) as it:
        log = await (await it.run(run_step("true"))).log(None)
        assert log
        assert not re.search(r"\bpods?\b", log, re.IGNORECASE)


async def test_a_limit_that_a_program_meets_is_named_at_the_end_of_the_log(
    tmp_path: Path, settings: ExecutorSettings
) -> None:
    opens = "python3 -c 'import os; [os.dup(0) for _ in range(99)]'"
    async with rig(tmp_path, settings=replace(settings, task_open_files=64)) as it:
        done = await it.run(run_step(f"{opens} || true; echo went on"), run_step(opens))
        assert (await done.log(0)).endswith("went on\n")
        assert (await done.log(1)).splitlines()[-1] == (
            "The task has probably reached a limit (executor.task_open_files)."
        )


async def test_a_fork_bomb_ends_at_the_limit_of_processes(tmp_path: Path) -> None:
    if missing():
        pytest.skip(f"no sandbox on this machine: {missing()}")
    async with rig(tmp_path, settings=replace(SETTINGS, sandbox="require", task_processes=20)) as it:
        done = await it.run(run_step("for i in $(seq 40); do sleep 1000 & done; echo more", tty=False))
        assert done.task.steps[0].exit_status != 0
        assert "fork" in await done.log()
        assert (await done.log()).endswith("(executor.task_processes).\n")


async def test_a_fork_bomb_of_root_without_a_sandbox_ends_at_the_limit_where_a_cgroup_counts(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only for root no resource limit holds")
    groups = control_groups("probe-of-tests")
    groups.remove()
    if "pids" not in groups.controllers and groups.pids is None:
        pytest.skip("no cgroup counts processes on this machine")
    bomb = run_step("for i in $(seq 40); do sleep 1000 & done; echo more", tty=False)
    async with rig(tmp_path, settings=replace(SETTINGS, sandbox="off", task_processes=20)) as it:
        for _ in range(2):  # the second one by the same agent
            done = await it.run(bomb)
            assert done.task.steps[0].exit_status != 0
            assert "fork" in await done.log()
            assert "Limits: 20 processes" in await done.log(None)
            assert (await done.log()).endswith("(executor.task_processes).\n")
        assert counts_processes(os.getpid())
    assert not [*groups.pids.glob("task-*")] if groups.pids is not None else True


def test_the_control_group_of_a_task_has_its_limits_and_tells_of_a_lack_of_memory(tmp_path: Path) -> None:
    group = ControlGroups(tmp_path, frozenset({"memory", "pids"})).group(Limits(processes=7, memory_bytes=1 << 20))
    assert group is not None
    assert group.path is not None
    assert {file.name: file.read_text() for file in group.path.iterdir()} == {
        "memory.max": str(1 << 20),
        "memory.swap.max": "0",
        "pids.max": "7",
    }
    assert not group.out_of_memory()
    (group.path / "memory.events").write_text("low 0\nmax 3\noom_kill 1\n")
    assert group.out_of_memory()


async def test_a_task_that_fills_the_disk_is_ended(tmp_path: Path, settings: ExecutorSettings) -> None:
    fills = "mkdir -p a/b/c; head -c 2000000 /dev/zero >a/b/c/big; sleep 1000"
    async with rig(tmp_path, settings=replace(settings, task_disk_bytes=1_000_000)) as it:
        done = await it.run(run_step("ln -s / everything; true"), run_step(fills), run_step("true"))
        assert [step.phase for step in done.task.steps][:2] == [SUCCESS, FAILED]
        assert done.task.fail_error == "its files take more than 1000000 bytes (executor.task_disk_bytes)"
        assert "its files exceeded executor.task_disk_bytes" in await done.log(1)


async def test_a_task_whose_disk_is_no_longer_watched_is_ended(
    tmp_path: Path, settings: ExecutorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ValueError("the watch broke")

    monkeypatch.setattr("runstream.executor.pod_task.watch_disk", fail)
    async with rig(tmp_path, settings=replace(settings, task_disk_bytes=1_000_000)) as it:
        done = await it.run(run_step("sleep 1000"))
        assert done.task.phase is FAILED
        assert "the watch broke" in done.task.fail_error


async def test_where_there_can_be_no_sandbox_it_is_said_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refusal(_: ProcessDriver) -> str:
        return "no namespaces here"

    monkeypatch.setattr(ProcessDriver, "refusal", refusal)
    async with rig(tmp_path, settings=replace(SETTINGS, sandbox="auto")) as it:
        done = await it.run(run_step("true"))
        assert done.task.phase is SUCCESS
        assert (await done.log(None)).splitlines()[1].startswith("WITHOUT a sandbox")
        assert "(missing: no namespaces here)" in await done.log(None)
        assert it.executor is not None
        assert it.executor.sandbox_problem == "missing: no namespaces here"
        registered = await it.log.last(
            Address(partition_of(it.executor_id, it.log.partitions), "executor", it.executor_id)
        )
        assert registered is not None
        (event,) = registered.commit.events
        assert isinstance(event, ExecutorRegistered)
        assert event.sandbox == "missing: no namespaces here"
    async with rig(tmp_path, settings=replace(SETTINGS, sandbox="require")) as it:
        done = await it.run(run_step("true"))
        assert done.task.phase is FAILED
        assert "a sandbox is required, but no namespaces here" in done.task.fail_error
        assert it.executor is not None
        assert it.executor.sandbox_problem == "refused: no namespaces here"
        registered = await it.log.last(
            Address(partition_of(it.executor_id, it.log.partitions), "executor", it.executor_id)
        )
        assert registered is not None
        (event,) = registered.commit.events
        assert isinstance(event, ExecutorRegistered)
        assert ExecutorPlace(it.folder).noted_sandbox() == "refused: no namespaces here"
        assert (event.allow_host, event.sandbox) == (False, "refused: no namespaces here")
        assert "--sandbox auto" in await done.log(None)


ESCAPES = {
    "a session of its own": "setsid sleep STAY",
    "no environment, another folder": "cd /; env -i setsid sleep STAY",
    "a double fork": "(cd /; env -i setsid sh -c 'sleep STAY & exit' &)",
    "fork, exit, setsid without end": "exec env -i python3 -c '"
    'import os\nos.chdir("/")\nwhile True:\n  if os.fork(): os._exit(0)\n  os.setsid(); STAY\'',
}


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES.keys())
async def test_nothing_outlives_its_task(tmp_path: Path, settings: ExecutorSettings, escape: str) -> None:
    stay = str(secrets.randbelow(10**9) + 10**9)
    command = f"({escape.replace('STAY', stay)}) >/dev/null 2>&1 &\necho > ~/ready; sleep 1000"
    async with rig(tmp_path, settings=settings) as it:
        task = await it.assign(task_of("task", run_step(command)))
        await appears(it.task_folder(task) / "home" / "ready")
        await task.say(ExecutorTaskStopRequested())
        await task.settled()
        assert task.task.phase is ExecutorTaskPhase.STOPPED
    assert not left(stay), "processes are left"


def left(word: str) -> list[str]:
    """The command lines in which this word stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:  # it has ended
            continue
        if word.encode() in line:
            found.append(line.decode())
    return found


async def test_no_control_group_is_left(tmp_path: Path) -> None:
    groups = control_groups("test")
    groups.remove()
    if groups.parent is None:
        pytest.skip("no control group can be made here")
    async with rig(tmp_path) as it:
        assert (await it.run(run_step("true"))).task.phase is SUCCESS
        parent = groups.parent.with_name(f"runstream-{it.executor_id}")
        assert parent.is_dir()
    assert not parent.exists()


async def test_what_waits_for_keys_is_hung_up_and_said(
    tmp_path: Path, settings: ExecutorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_watch, "NUDGES", 1)
    monkeypatch.setattr(prompt_watch, "IDLE_SECONDS", 2)
    monkeypatch.setattr(process, "_NUDGE_SECONDS", 0.05)
    waits = "import tty, os; tty.setraw(0); [None for _ in iter(lambda: os.read(0, 1), b'')]"
    deaf = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); {waits}"
    works = (
        "import tty, time; tty.setraw(0); [(print(n, flush=True), time.sleep(0.05)) for n in range(10)]; time.sleep(1)"
    )
    async with rig(tmp_path, settings=settings) as it:
        done = await it.run(run_step(f'python3 -c "{works}"', tty=True))
        assert done.task.phase is ExecutorTaskPhase.SUCCESS, await done.log()
        for program in (waits, deaf):
            done = await it.run(run_step(f'python3 -c "{program}"', tty=True))
            assert done.task.phase is ExecutorTaskPhase.FAILED
            last = (await done.log()).splitlines()[-1]
            assert last.startswith("python3 waited for keyboard input")
            assert "tty: false" in last


async def test_pagers_do_not_wait_and_editors_fail_unless_the_task_sets_its_own(tmp_path: Path) -> None:
    git = "git -c user.name=n -c user.email=e"
    commit = f"git init -q .; {git} commit -q --allow-empty -m first; git log --format=%s; {git} commit --allow-empty"
    async with rig(tmp_path) as it:
        done = await it.run(run_step(commit, tty=True))
        assert (await done.log()).startswith("first\n")
        assert "supply the message" in await done.log()
        done = await it.run(run_step("echo $PAGER $EDITOR", tty=True), environment={"PAGER": "more", "EDITOR": "ed"})
        assert await done.log() == "more ed\n"


async def test_a_working_directory_that_is_a_link_to_nothing_says_so(
    tmp_path: Path, settings: ExecutorSettings
) -> None:
    async with rig(tmp_path, settings=settings) as it:
        done = await it.run(run_step("ln -s /nowhere/at-all ~/way"), run_step("true", working_dir="~/way"))
        assert "~/way does not exist: it is a link to /nowhere/at-all" in await done.log(1)


def test_without_a_sandbox_an_ordinary_user_has_a_limit_of_processes_and_root_has_none() -> None:
    limits = Limits(processes=7)
    assert dict(limits.resources(sandboxed=False, user_processes=100))["RLIMIT_NPROC"] == 107
    assert "RLIMIT_NPROC" not in dict(limits.resources(sandboxed=False, user_processes=None))
    none = frozenset[str]()
    assert limits.described(sandboxed=False, controllers=none, ordinary=True) == (
        "Limits: 7 processes more than the user had when the task's agent began."
    )
    assert limits.described(sandboxed=False, controllers=none, ordinary=False) == "Not enforced here: 7 processes."
    assert limits.described(sandboxed=False, controllers=frozenset({"pids"}), ordinary=False) == "Limits: 7 processes."


FORKS = """
import os, resource, sys
from runstream.executor.limits import Limits, processes_of_user
os.setgroups([])
os.setgid(61234)
os.setuid(61234)
for name, value in Limits(processes=5).resources(sandboxed=False, user_processes=processes_of_user()):
    resource.setrlimit(getattr(resource, name), (value, value))
begun = 0
try:
    for begun in range(20):
        if os.fork() == 0:
            sys.stdin.read()
            os._exit(0)
except BlockingIOError:
    print(begun)
"""


def test_an_ordinary_user_forks_up_to_the_limit_only() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become a user without other processes")
    ran = subprocess.run([sys.executable, "-c", FORKS], input="", capture_output=True, text=True, check=True)
    assert ran.stdout == "5\n"

"""The sandbox of a host task: what it sees and can change, and what happens where none can be made."""

from __future__ import annotations

import asyncio
import secrets
import socket
from dataclasses import replace
from pathlib import Path

from runstream.events.executor_task import ExecutorTaskPhase, ExecutorTaskStopRequested
from runstream.events.run_config import Step
from runstream.executor.drivers.process import ProcessDriver
from runstream.executor.executor import host_rules
from runstream.executor.workdir import ExecutorPlace
from runstream.settings import ExecutorSettings, Settings
from tests.executor.rig import SETTINGS, rig, run_step, task_of
from tests.executor.test_life import appears
from tests.executor.test_workspace import git
from tests.sandboxes import needs_sandbox, needs_scopes

REQUIRED = replace(SETTINGS, sandbox="require", stop_grace_seconds=2.0)
SUCCESS = ExecutorTaskPhase.SUCCESS

pytestmark = needs_sandbox


async def test_a_task_sees_the_system_its_home_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("token")
    commands = f"""
        echo home > ~/x; cat ~/x
        echo tmp > /tmp/x; cat /tmp/x
        ! touch /usr/x 2>/dev/null
        ! cat {tmp_path}/secret 2>/dev/null
        test "$(echo $(ls /))" = "bin dev etc home lib lib64 opt proc run sbin tmp usr var" || ls /
        test "$(echo $(ls /run /var /home))" = "/home: runstream /run: /var: tmp" || ls /run /var /home
        test $(ls /proc | grep -c '^[0-9]') -lt 10
        test "$(whoami) $HOME $USER $(pwd)" = "runstream /home/runstream runstream /home/runstream/project"
        echo done
    """
    async with rig(tmp_path, settings=REQUIRED) as it:
        done = await it.run(run_step(commands), run_step("cat /tmp/x; test -t 1 && echo tty", tty=True))
        assert (await done.log(0), await done.log(1)) == ("home\ntmp\ndone\n", "tmp\ntty\n")
        assert done.task.phase is SUCCESS
        assert "In a sandbox of its own." in await done.log(None)


async def test_nothing_in_there_is_privileged(tmp_path: Path) -> None:
    attempts = """
        grep -c '^Cap.*:[[:space:]]*0000000000000000$' /proc/self/status
        grep NoNewPrivs /proc/self/status
        for attempt in 'cat /etc/shadow' 'umount /usr' 'mount -o remount,rw /usr' 'mount -t tmpfs none /opt' \
            'sh -c "echo x >/proc/sys/kernel/core_pattern"' 'unshare -Ur true' 'chroot / true' 'mknod x c 1 3' \
            'cat /proc/1/environ' 'cat /proc/1/root/etc/shadow' 'touch /x' 'chown 0 .'; do
            if eval "$attempt" >/dev/null 2>&1; then echo "this worked: $attempt"; fi
        done
        test "$(id -u)" != 0
    """
    async with rig(tmp_path, settings=REQUIRED) as it:
        done = await it.run(run_step(attempts), run_step("awk '$2 == 0 || $3 != 1' /proc/self/uid_map"))
        assert (await done.log(0), await done.log(1)) == ("5\nNoNewPrivs:\t1\n", "")
        assert done.task.phase is SUCCESS


async def test_what_is_hidden_is_empty_even_where_its_place_is_listed(tmp_path: Path) -> None:
    for secret in ("key", "data/token", "open"):
        (tmp_path / "listed" / secret).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "listed" / secret).write_text(f"secret in {secret}\n")
    await asyncio.to_thread(tmp_path.chmod, 0o755)
    place = ExecutorPlace(tmp_path / "listed" / "data")
    offered = ExecutorSettings(sandbox="require", sandbox_readonly=(str(tmp_path / "listed"),))
    settings = Settings(
        data_dir=tmp_path / "listed" / "data", secrets_key_file=tmp_path / "listed" / "key", executor=offered
    )
    driver = ProcessDriver("executor", host_rules(settings, place))
    script = f"cd {tmp_path}/listed; cat open; cat key data/token; ls data; touch x; true"
    async with rig(tmp_path / "rig", settings=REQUIRED, driver=driver) as it:
        done = await it.run(run_step(f"({script}) 2>/dev/null"))
        assert await done.log() == "secret in open\n"


async def test_places_of_the_settings_are_there(tmp_path: Path) -> None:
    for name in ("tools", "cache"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(f"{name}\n")
        (tmp_path / name).chmod(0o777)
    settings = replace(
        REQUIRED, sandbox_readonly=(f"{tmp_path}/tools", "/nowhere"), sandbox_writable=(f"{tmp_path}/cache",)
    )
    script = f"cat {tmp_path}/*/file; ! touch {tmp_path}/tools/x 2>/dev/null; touch {tmp_path}/cache/x"
    async with rig(tmp_path / "rig", settings=settings) as it:
        done = await it.run(run_step(script))
        assert (await done.log(), done.task.phase) == ("cache\ntools\n", SUCCESS)
    assert (tmp_path / "cache" / "x").exists()


async def test_without_a_network_only_the_loopback_is_there(tmp_path: Path) -> None:
    script = "cat /proc/net/dev | tail -n +3 | cut -d: -f1; python3 -c '" + (
        'import socket; s = socket.create_server(("127.0.0.1", 0)); socket.create_connection(s.getsockname()).close()\''
    )
    with socket.create_server(("127.0.0.1", 0)) as ours:
        reach = f"! python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {ours.getsockname()[1]}))'"
        async with rig(tmp_path, settings=replace(REQUIRED, sandbox_network=False)) as it:
            done = await it.run(run_step(f"{script}\n{reach} 2>/dev/null"))
            assert ((await done.log()).split(), done.task.phase) == (["lo"], SUCCESS)


@needs_scopes
async def test_abstract_sockets_of_the_machine_are_out_of_reach(tmp_path: Path) -> None:
    name = f"runstream-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(f"\0{name}")
        ours.listen()
        script = f"python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"\\0{name}\")'"
        async with rig(tmp_path, settings=REQUIRED) as it:
            done = await it.run(run_step(script))
        assert "PermissionError" in await done.log()


async def test_stop_reaches_all_that_a_task_started(tmp_path: Path) -> None:
    async with rig(tmp_path, settings=REQUIRED) as it:
        assert (await it.run(run_step("exit 5"))).task.steps[0].exit_status == 5
        command = "setsid sleep 1000 & trap 'echo asked; exit 0' TERM; echo > ~/ready; while :; do sleep 0.01; done"
        task = await it.assign(task_of("task", run_step(command)))
        await task.step_begun()
        await appears(it.task_folder(task) / "home" / "ready")
        await task.say(ExecutorTaskStopRequested())
        await task.settled()
        assert "asked\n" in await task.log()


async def test_a_local_repository_is_seen_by_the_clone_step_alone(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    await asyncio.to_thread(tmp_path.chmod, 0o755)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    async with rig(tmp_path / "executor", settings=REQUIRED) as it:
        steps = (Step(type="clone"), run_step(f"git log --format=%s; cat {folder}/.git/HEAD"))
        done = await it.run(*steps, environment={"AGOLA_REPOSITORY_URL": str(folder)})
        assert done.task.steps[0].phase is SUCCESS, await done.log(0)
        assert (await done.log(1)).startswith("first\n")
        assert done.task.steps[1].phase is ExecutorTaskPhase.FAILED


async def test_the_environment_is_on_no_command_line(tmp_path: Path) -> None:
    async with rig(tmp_path, settings=REQUIRED) as it:
        environment = {"TOKEN": "s3cret-value", "LD_PRELOAD": "/home/runstream/evil.so"}
        step = run_step("echo > ~/ready; read line < ~/fifo || exec sleep 1000", environment=environment)
        task = await it.assign(task_of("task", step, environment={"OTHER": "s3cret-value"}))
        await appears(it.task_folder(task) / "home" / "ready")
        shown = await asyncio.to_thread(lambda: [read(path) for path in Path("/proc").glob("[0-9]*/cmdline")])
        assert not [line for line in shown if b"s3cret-value" in line or b"evil.so" in line]
        await task.say(ExecutorTaskStopRequested())
        await task.settled()


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""

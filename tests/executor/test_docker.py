"""Tasks in containers of a real engine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from runstream.events.executor_task import ExecutorTaskPhase, ExecutorTaskStopRequested
from runstream.events.run_config import Resources, Step, Volume
from runstream.ids import new_id
from runstream.settings import ExecutorSettings
from tests.docker_engine import BARE, GIT_IMAGE, IMAGE, DockerEngine, make_certificates, needs_engine
from tests.executor.rig import (
    CONTAINERS,
    HOST,
    SETTINGS,
    Rig,
    Watched,
    config_of,
    container,
    pod,
    rig,
    run_step,
    save_step,
    task_of,
)

pytestmark = needs_engine


@pytest.fixture
def settings(docker_engine: DockerEngine) -> ExecutorSettings:
    """The settings of an executor with an engine."""
    return replace(SETTINGS, engine=docker_engine.url, stop_grace_seconds=0.5, **CONTAINERS)


@pytest.fixture
async def running(tmp_path: Path, settings: ExecutorSettings) -> AsyncIterator[Rig]:
    """An executor with an engine."""
    async with rig(tmp_path / "executor", settings=settings) as found:
        yield found


async def test_a_step_runs_in_the_container_as_its_user_with_its_variables(running: Rig) -> None:
    show = 'id -un; echo "$OF_IMAGE $OF_CONTAINER $OF_STEP"; pwd; df -m /scratch | tail -1 | awk "{print \\$2}"'
    runtime = pod(IMAGE, user="ci", environment={"OF_CONTAINER": "c"}, volumes=(Volume("/scratch", 3 << 20),))
    done = await running.run(run_step(show, environment={"OF_STEP": "s"}), runtime=runtime)
    assert await done.log(0) == "ci\nyes c s\n/home/ci/project\n3\n"
    assert "Creating working dir ~/project." in await done.log(None)


async def test_neither_the_script_nor_a_variable_is_shown_by_the_engine_or_in_the_list_of_processes(
    running: Rig, docker_engine: DockerEngine
) -> None:
    step = run_step("echo begun; : SCRIPTED; while :; do sleep 0.05; done", environment={"HIDDEN": "WORD-IN-IT"})
    watched = await running.assign(task_of("task", step, runtime=pod(IMAGE, environment={"ALSO": "WORD-BESIDE"})))
    await watched.step_begun()
    (found,) = docker_engine.containers(taskid=watched.address.id)
    while "sleep" not in (shown := docker_engine.cli("top", found["ID"], "-eo", "pid,args")):
        pass
    shown += docker_engine.cli("inspect", found["ID"])
    await watched.say(ExecutorTaskStopRequested())
    await watched.settled()
    assert "/bin/sh -e /dev/shm/.runstream-" in shown
    assert not [word for word in ("SCRIPTED", "WORD-IN-IT", "WORD-BESIDE") if word in shown]


async def test_a_container_has_the_labels_of_its_task_few_capabilities_and_gains_none(
    running: Rig, docker_engine: DockerEngine
) -> None:
    watched = await running.assign(
        task_of("task", run_step("grep -E 'CapBnd|NoNewPrivs' /proc/self/status; sleep 60"), runtime=pod(IMAGE))
    )
    await watched.step_begun()
    (found,) = docker_engine.containers(executorid=running.executor_id, taskid=watched.address.id, containerindex="0")
    assert found["Image"] == IMAGE
    await watched.say(ExecutorTaskStopRequested())
    await watched.settled()
    assert (await watched.log(0)).split()[:4] == ["CapBnd:", "00000000000404fb", "NoNewPrivs:", "1"]


@pytest.mark.parametrize(
    ("image", "fields", "said"),
    [
        ("absent/image:9", {}, "image absent/image:9 cannot be pulled: "),
        (BARE, {}, "/bin/sh"),
        (BARE, {"entrypoint": "/bin/true"}, "the container of image bare:1 ended by itself, with exit status 0"),
        (IMAGE, {"entrypoint": "/bin/nothere"}, "an `entrypoint` given for it must keep running"),
        (IMAGE, {"entrypoint": "/bin/sh -c exit"}, "the container of image tiny:1 ended by itself, with exit status 0"),
        (IMAGE, {"user": "nobody-here"}, "check the container's `user`"),
        (
            IMAGE,
            {"privileged": True},
            "tiny:1 is privileged, which this executor does not allow",
        ),
        ("", {}, "a container has no image"),
        ("Not An Image", {}, "'Not An Image' is not the name of an image"),
        ("../images/get?names=tiny:1&x=:1", {}, "is not the name of an image"),
    ],
    ids=["absent", "no shell", "ends at once", "no entrypoint", "exits", "user", "privileged", "none", "name", "url"],
)
async def test_a_pod_that_cannot_be_set_up_says_why_and_leaves_nothing(
    running: Rig, docker_engine: DockerEngine, image: str, fields: dict[str, object], said: str
) -> None:
    done = await running.run(run_step("true"), runtime=pod(image, **fields))
    assert said in await done.log(None)
    assert done.task.setup_step.phase is ExecutorTaskPhase.FAILED
    assert done.task.phase is ExecutorTaskPhase.FAILED
    assert running.executor is not None
    await running.executor.stop()
    assert docker_engine.containers(executorid=running.executor_id) == []


async def test_a_container_that_ends_in_the_middle_of_a_step_is_named(running: Rig) -> None:
    image = pod(IMAGE, entrypoint="/bin/sleep 2")
    done = await running.run(run_step("echo begun; sleep 60"), runtime=image)
    assert done.task.steps[0].phase is ExecutorTaskPhase.FAILED
    log = await done.log(0)
    assert log.startswith("begun\n")
    assert "the container of image tiny:1 ended by itself, with exit status 0" in log


async def test_a_command_that_cannot_be_written_says_where(running: Rig) -> None:
    fill = run_step("cat /dev/zero > /dev/shm/x || true")
    done = await running.run(fill, run_step("echo second step"), runtime=pod(IMAGE))
    assert done.task.steps[1].phase is ExecutorTaskPhase.FAILED
    assert "the command cannot be written to /dev/shm/" in await done.log(1)


async def test_programs_on_a_tmpfs_can_be_executed(running: Rig) -> None:
    image = pod(IMAGE, volumes=(Volume("/w", 0), Volume("/x", 8 << 20)))
    done = await running.run(
        run_step("for d in /w /x; do cp /bin/busybox $d/ && $d/busybox echo hi || exit; done"), runtime=image
    )
    assert await done.log(0) == "hi\nhi\n"


async def test_the_engine_keeps_little_of_what_a_container_writes(running: Rig, docker_engine: DockerEngine) -> None:
    write = run_step("yes 0123456789 | head -c 10000000 > /proc/1/fd/1")
    watched = await running.assign(task_of("task", write, run_step("sleep 60"), runtime=pod(IMAGE)))
    await watched.step_begun(1)
    (found,) = docker_engine.containers(taskid=watched.address.id)
    kept = Path(docker_engine.cli("inspect", "-f", "{{.LogPath}}", found["ID"]))
    assert 0 < sum(path.stat().st_size for path in kept.parent.glob(f"{kept.name}*")) < 3 << 20
    await watched.say(ExecutorTaskStopRequested())
    await watched.settled()


async def test_a_command_that_is_killed_in_a_container_that_goes_on_has_its_status(running: Rig) -> None:
    done = await running.run(run_step("kill -9 $$"), runtime=pod(IMAGE))
    assert done.task.steps[0].exit_status == 137
    assert "ended by itself" not in await done.log(0)


async def test_containers_of_an_earlier_process_are_removed_at_the_start_and_those_of_others_stay(
    tmp_path: Path, settings: ExecutorSettings, docker_engine: DockerEngine
) -> None:
    async with rig(tmp_path, settings=settings, start=False) as found:
        executor = found.executor_id
        for owner in (executor, "another-executor"):
            own = {"runstream": "true", "executorid": owner, "podid": "p"}
            labels = [f"--label=runstream.io/{name}={value}" for name, value in own.items()]
            docker_engine.cli("run", "-d", "--network=none", *labels, IMAGE, "sleep", "600")
        try:
            assert found.executor is not None
            await found.executor.start()
            assert docker_engine.containers(executorid=executor) == []
            assert len(docker_engine.containers(executorid="another-executor")) == 1
        finally:
            for other in docker_engine.containers(executorid="another-executor"):
                docker_engine.cli("rm", "-f", other["ID"])


async def test_nothing_of_a_pod_is_left_after_its_task(running: Rig, docker_engine: DockerEngine) -> None:
    await running.run(run_step("sleep 600 & echo begun"), runtime=pod(IMAGE))
    assert running.executor is not None
    await running.executor.stop()
    assert docker_engine.containers(executorid=running.executor_id) == []


@pytest.mark.parametrize("depth", [0, 1])
async def test_a_repository_of_the_machine_is_cloned_and_no_copy_stays(
    running: Rig, tmp_path: Path, depth: int
) -> None:
    repository = tmp_path / "repository"
    make = (
        "git init -q -b main . && echo content >file && git add file && "
        "git -c user.name=t -c user.email=t@t commit -q -m one && chmod -R o+rX ."
    )
    repository.mkdir()
    subprocess.run(["sh", "-ec", make], cwd=repository, check=True)  # noqa: ASYNC221
    clone = Step(type="clone", name="clone", depth=depth)
    show = run_step("cat file; git remote get-url origin; ls -A ~")
    environment = {"AGOLA_REPOSITORY_URL": str(repository), "AGOLA_GIT_REF": "main"}
    done = await running.run(clone, show, environment=environment, runtime=pod(GIT_IMAGE, user="ci"))
    assert done.task.phase is ExecutorTaskPhase.SUCCESS, await done.log(0)
    assert await done.log(1) == f"content\n{repository}\n.runstream.gitconfig\nproject\n"
    done = await running.run(clone, environment=environment, runtime=pod(IMAGE))
    assert "git cannot be executed: there is no such program" in await done.log(0)


async def test_services_answer_the_main_container_and_end_with_it(running: Rig, docker_engine: DockerEngine) -> None:
    answer = container(IMAGE, entrypoint="/bin/nc -ll -p 7000 -e /bin/hostname")
    files = container(IMAGE, entrypoint="/bin/httpd -f -p 7001 -h /etc", environment={"OF": "service"})
    third = container(IMAGE, entrypoint="/bin/sleep 600")
    show = run_step(
        "until nc 127.0.0.1 7000 </dev/null >name; do :; done; hostname | cmp - name; "
        "until wget -q -O - http://127.0.0.1:7001/passwd; do :; done",
        tty=False,
    )
    done = await running.run(show, runtime=pod(IMAGE, answer, files, third))
    assert done.task.phase is ExecutorTaskPhase.SUCCESS, await done.log(0)
    assert "ci:x:1000" in await done.log(0)
    assert running.executor is not None
    await running.executor.stop()
    assert docker_engine.containers(executorid=running.executor_id) == []


async def test_a_container_has_its_limits_and_a_step_that_runs_out_of_memory_says_so(
    running: Rig, docker_engine: DockerEngine
) -> None:
    show = run_step("cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || :")
    limited = pod(IMAGE, resources=Resources(cpu=500, memory=32 << 20))
    done = await running.run(show, run_step("tail /dev/zero"), runtime=limited)
    assert await done.log(0) == f"{32 << 20}\n"
    assert f"out of memory, the container reached its limit of {32 << 20} bytes" in await done.log(1)
    assert done.task.steps[1].exit_status == 137


async def test_every_container_has_the_limits_of_the_settings_and_the_end_says_which_one_it_was(
    tmp_path: Path, settings: ExecutorSettings, docker_engine: DockerEngine
) -> None:
    bounds = replace(settings, task_processes=40, task_open_files=100, task_file_bytes=1 << 20)
    bounds = replace(bounds, task_memory_bytes=32 << 20, task_disk_bytes=1 << 30)
    forks = run_step("i=0; while [ $i -lt 90 ]; do sleep 60 >/dev/null 2>&1 & i=$((i+1)); done; echo unbounded")
    writes = run_step("ulimit -n; ulimit -f; exec dd if=/dev/zero of=/tmp/large bs=1M count=3")
    services = (
        container(IMAGE, entrypoint="sleep 60", resources=Resources(memory=16 << 20)),
        container(IMAGE, entrypoint="sleep 60"),
    )
    async with rig(tmp_path / "bounded", settings=bounds) as it:
        watched = await it.assign(task_of("task", run_step("sleep 60"), runtime=pod(IMAGE, *services)))
        await watched.step_begun()
        ids = [each["ID"] for each in docker_engine.containers(taskid=watched.address.id)]
        host = [each["HostConfig"] for each in json.loads(docker_engine.cli("inspect", *ids))]
        await watched.say(ExecutorTaskStopRequested())
        await watched.settled()
        first, *ended = [await it.run(step, runtime=pod(IMAGE)) for step in (forks, writes, run_step("tail /dev/zero"))]
        logs = [await done.log(0) for done in (first, *ended)]
        setup = await first.log(None)
    assert {each["PidsLimit"] for each in host} == {40}
    limits = {(each["Name"], each["Soft"], each["Hard"]) for one in host for each in one["Ulimits"]}
    assert limits == {("nofile", 100, 100), ("fsize", 1 << 20, 1 << 20)}
    assert sorted(each["Memory"] for each in host) == [16 << 20, 32 << 20, 32 << 20]
    assert "Limits of each container: 40 processes, 100 open files a process, " in setup
    assert "Not enforced in containers: 1073741824 bytes of disk: the engine's storage has no quotas." in setup
    assert logs[0].endswith("(executor.task_processes).\n")
    assert logs[1].startswith("100\n2048\n")
    assert "(executor.task_file_bytes)" in logs[1]
    assert f"its limit of {32 << 20} bytes (executor.task_memory_bytes)" in logs[2]


async def test_limits_above_those_of_the_engine_leave_the_lower_ones_in_force(
    tmp_path: Path, settings: ExecutorSettings
) -> None:
    bounds = replace(settings, task_open_files=1 << 30, task_processes=0)
    show = run_step("ulimit -n")
    async with rig(tmp_path / "high", settings=bounds) as it:
        done = [await it.run(show, runtime=pod(IMAGE)) for _again in range(2)]
        for each in done:
            assert 0 < int(await each.log(0)) < 1 << 30
            assert "Limits of each container: open files a process up to the engine's own lower limit.\n" in (
                await each.log(None)
            )


async def test_a_container_has_its_share_of_the_processors(running: Rig, docker_engine: DockerEngine) -> None:
    show = run_step("cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_[qp]*_us | sort -n")
    done = await running.run(show, runtime=pod(IMAGE, resources=Resources(cpu=500)))
    assert sorted(int(word) for word in (await done.log(0)).split()) == [50_000, 100_000]


OURS = str(Path("/proc/self/ns/net").readlink())
NAMESPACE = "readlink /proc/self/ns/net; cat /proc/net/dev | grep -c :"


async def _in_network(tmp_path: Path, settings: ExecutorSettings, network: str) -> Watched:
    """Run a task of two containers in this network: what its steps wrote shows whether they share it."""
    service = container(IMAGE, entrypoint="/bin/httpd -f -p 127.0.0.1:7003 -h /etc")
    async with rig(tmp_path, settings=replace(settings, pod_network=network)) as found:
        ask = run_step("until wget -q -O - http://127.0.0.1:7003/passwd >/dev/null; do :; done")
        return await found.run(run_step(NAMESPACE), ask, runtime=pod(IMAGE, service))


async def test_a_pod_is_in_the_network_of_the_machine_where_the_executor_says_so(
    tmp_path: Path, settings: ExecutorSettings
) -> None:
    done = await _in_network(tmp_path, settings, "host")
    assert done.task.phase is ExecutorTaskPhase.SUCCESS, await done.log(None)
    assert (await done.log(0)).split()[0] == OURS


async def test_a_pod_is_in_the_named_network_or_says_that_there_is_none(
    tmp_path: Path, settings: ExecutorSettings, docker_engine: DockerEngine
) -> None:
    name = f"runstream-{new_id()}"
    done = await _in_network(tmp_path / "absent", settings, name)
    assert f"network {name} not found" in await done.log(None)
    assert done.task.phase is ExecutorTaskPhase.FAILED
    try:
        docker_engine.cli("network", "create", name)
    except AssertionError as error:
        pytest.skip(f"the engine can make no network here: {error}")
    try:
        done = await _in_network(tmp_path / "made", settings, name)
        assert done.task.phase is ExecutorTaskPhase.SUCCESS, await done.log(None)
        namespace, interfaces = (await done.log(0)).split()
        assert namespace != OURS
        assert interfaces == "2", "the loopback, and the one of the network"
    finally:
        docker_engine.cli("network", "rm", name)


async def test_an_engine_is_used_over_tcp_by_clients_with_a_certificate(
    tmp_path: Path, settings: ExecutorSettings, docker_engine: DockerEngine
) -> None:
    with_tls = replace(settings, engine=docker_engine.tls_url, engine_tls_dir=docker_engine.tls_folder)
    async with rig(tmp_path / "with", settings=with_tls) as found:
        write = run_step("mkdir out; seq 200000 >out/numbers")
        parent = task_of(
            "parent",
            *(run_step("echo from a terminal", tty=True), write, save_step("out")),
            runtime=pod(IMAGE, container(IMAGE, entrypoint="/bin/ls /etc")),
        )
        restore = Step(type="restore_workspace", name="restore")
        child = task_of(
            "child", restore, run_step("tail -n 1 out/numbers"), depends=("parent",), level=1, runtime=pod(IMAGE)
        )
        config, run_id = config_of(parent, child), new_id()
        saved = await found.assign(parent, config=config, run_id=run_id)
        assert (await saved.settled()).phase is ExecutorTaskPhase.SUCCESS, await saved.log(None)
        assert "from a terminal" in await saved.log(0)
        assert "passwd" in await saved.log(None)
        restored = await found.assign(child, config=config, run_id=run_id)
        await restored.settled()
        assert await restored.log(1) == "200000\n", await restored.log(0)


@pytest.mark.parametrize(
    ("certificates", "said"),
    [
        ("none", "Client sent an HTTP request to an HTTPS server"),
        ("of another authority", "certificate verify failed"),
        ("not there", "/certificates/ca.pem: No such file or directory"),
        ("malformed", "/certificates/cert.pem"),
    ],
)
async def test_an_engine_over_tcp_that_cannot_be_used_does_not_end_the_executor_and_says_why(
    tmp_path: Path, settings: ExecutorSettings, docker_engine: DockerEngine, certificates: str, said: str
) -> None:
    folder = tmp_path / "certificates"
    if certificates != "not there":
        folder.mkdir()
        make_certificates(folder)
    if certificates == "malformed":
        (folder / "cert.pem").write_text("not a certificate")
    tls = None if certificates == "none" else folder
    async with rig(
        tmp_path / "executor", settings=replace(settings, engine=docker_engine.tls_url, engine_tls_dir=tls)
    ) as it:
        done = await it.run(run_step("true"), runtime=pod(IMAGE))
        assert "the container engine is unreachable: " in await done.log(None)
        assert said in await done.log(None)
        assert (await it.run(run_step("true"), runtime=HOST)).task.phase is ExecutorTaskPhase.SUCCESS


async def test_a_service_that_ends_early_is_in_the_log_of_the_setup(running: Rig) -> None:
    broken = container(IMAGE, entrypoint="/bin/ls /nothere")
    done = await running.run(run_step("true"), runtime=pod(IMAGE, broken, container(IMAGE, entrypoint="/bin/env")))
    assert "service 1 (image tiny:1) has ended already, with exit status 1:\nls: /nothere: No such" in await done.log(
        None
    )
    assert done.task.phase is ExecutorTaskPhase.SUCCESS


@pytest.mark.parametrize("driver", [None])
async def test_an_executor_without_an_engine_says_so(tmp_path: Path, driver: None) -> None:
    async with rig(tmp_path) as found:
        done = await found.run(run_step("true"), runtime=pod(IMAGE))
        assert "it has no container engine" in await done.log(None)

"""Tasks in pods of a Kubernetes API server that runs them on this machine; no cluster was available."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

from runstream.events.executor_task import ExecutorTaskPhase, ExecutorTaskStopRequested
from runstream.events.run_config import RegistryAuth, Resources, Runtime, Volume
from runstream.executor.drivers.kubernetes import driver, group
from runstream.executor.drivers.kubernetes.group import CONFIG_MAP, KEY
from runstream.leases import decode_offer
from runstream.settings import ExecutorSettings
from tests.docs.blocks import ROOT, blocks_of
from tests.executor.rig import SETTINGS, Rig, Watched, container, pod, rig, run_step, task_of
from tests.kubernetes_api import BARE, IMAGE, PRIVATE, KubernetesApi, needs_containers, started
from tests.objects.certificates import issued

pytestmark = needs_containers
NOT_KUBERNETES = {"metadata": {"name": "foreign", "labels": {"app": "theirs"}}, "spec": {"containers": []}}


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesApi]:
    """An API server, which the client finds by its configuration."""
    async with started(tmp_path / "cluster") as found:
        monkeypatch.setenv("KUBECONFIG", str(found.write_config()))
        yield found


@pytest.fixture
def settings() -> ExecutorSettings:
    """The settings of an executor with a cluster."""
    return replace(SETTINGS, engine="kubernetes://", stop_grace_seconds=0.5, allow_host=False)


@pytest.fixture
async def running(tmp_path: Path, api: KubernetesApi, settings: ExecutorSettings) -> AsyncIterator[Rig]:
    """An executor with a cluster."""
    async with rig(tmp_path, settings=settings) as found:
        yield found


async def gone(api: KubernetesApi) -> None:
    """Wait until nothing is left of any task."""
    await api.changed("pods", lambda names: not [name for name in names if name.startswith("runstream-")])
    await api.changed("secrets", lambda names: not names)
    assert api.processes() == []


async def failed(running: Rig, api: KubernetesApi, runtime: Runtime, **fields: Any) -> str:
    """Run a task whose setup fails; return the log of the setup when nothing is left of it."""
    done = await running.run(run_step("true"), runtime=runtime, **fields)
    assert done.task.phase is ExecutorTaskPhase.FAILED
    assert done.task.setup_step.phase is ExecutorTaskPhase.FAILED
    assert done.task.steps[0].start_time is None
    await gone(api)
    return await done.log(None)


async def begun(running: Rig) -> Watched:
    """Begin a task whose step runs in its pod until it is ended."""
    step = run_step("echo begun; while :; do sleep 0.05; done")
    watched = await running.assign(task_of("task", step, runtime=pod(IMAGE)))
    await watched.step_begun()
    log = running.task_folder(watched).joinpath("0.log")
    await until(lambda: log.exists() and log.read_bytes() == b"begun\n")
    return watched


async def until(reached: Callable[[], bool]) -> None:
    """Wait for something without an event of its own."""
    while not reached():  # noqa: ASYNC110
        await asyncio.sleep(0.005)  # sleeps: what is waited for is another process's


async def test_a_step_runs_in_the_pod_as_its_user_with_its_variables(running: Rig, api: KubernetesApi) -> None:
    show = 'id -u; echo "$OF_IMAGE $OF_CONTAINER $OF_STEP"; pwd'
    runtime = pod(IMAGE, user="1000:1000", environment={"OF_CONTAINER": "c"}, volumes=(Volume("/scratch", 3 << 20),))
    done = await running.run(
        run_step(show, environment={"OF_STEP": "s"}), runtime=runtime, working_dir="/home/ci/project"
    )
    assert await done.log(0) == "1000\nyes c s\n/home/ci/project\n"
    log = await done.log(None)
    assert "The pod is on node node1." in log
    await gone(api)


async def test_neither_the_script_nor_a_variable_is_in_the_pod_or_in_what_the_server_is_asked(
    running: Rig, api: KubernetesApi
) -> None:
    for tty in (False, True):
        step = run_step("echo begun; : SCRIPTED; echo $HIDDEN", tty=tty, environment={"HIDDEN": "WORD-IN-IT"})
        done = await running.run(step, runtime=pod(IMAGE, environment={"ALSO": "WORD-BESIDE"}))
        assert await done.log(0) == "begun\nWORD-IN-IT\n"
    pods = [each for each in api.made if each["kind"] == "Pod"]
    shown = json.dumps([pods, api.asked])
    assert not [word for word in ("SCRIPTED", "WORD-IN-IT", "WORD-BESIDE") if word in shown]
    assert len(pods) == 2


async def test_a_pod_has_the_labels_of_its_task_and_of_the_executors_group(running: Rig, api: KubernetesApi) -> None:
    watched = await begun(running)
    (name,) = api.names("pods")
    labels = api.objects["pods", name]["metadata"]["labels"]
    assert labels == {
        "runstream.io/runstream": "true",
        "runstream.io/executorid": running.executor_id,
        "runstream.io/executorsgroupid": api.objects["configmaps", CONFIG_MAP]["data"][KEY],
        "runstream.io/podid": name.removeprefix("runstream-task-"),
        "runstream.io/taskid": watched.address.id,
    }
    await watched.say(ExecutorTaskStopRequested())
    assert (await watched.settled()).phase is ExecutorTaskPhase.STOPPED
    await gone(api)


async def test_services_share_the_pod_and_one_that_has_ended_is_in_the_setup_log(
    running: Rig, api: KubernetesApi
) -> None:
    lasting = container(IMAGE, entrypoint="/bin/sleep 60", environment={"OF_SERVICE": "s"})
    limited = Resources(cpu=500, memory=32 << 20)
    runtime = pod(IMAGE, lasting, container(IMAGE, entrypoint="/bin/nc nothere"), resources=limited)
    done = await running.run(run_step("true"), runtime=runtime)
    assert done.task.phase is ExecutorTaskPhase.SUCCESS
    ended = "service 2 (image tiny:1) has ended already, with exit status 1:\n"
    assert f"{ended}nc: bad address" in await done.log(None)
    (sent,) = [each for each in api.made if each["kind"] == "Pod"]
    assert [each["name"] for each in sent["spec"]["containers"]] == ["maincontainer", "service1", "service2"]
    # A cluster takes limits for requests where there are none.
    limits = {"cpu": "500m", "memory": str(32 << 20)}
    assert [each.get("resources") for each in sent["spec"]["containers"]] == [{"limits": limits}, None, None]
    await gone(api)


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        (pod("nothere:1"), "image nothere:1 cannot be pulled: failed to resolve reference"),
        (pod(IMAGE, container("nothere:2")), "image nothere:2 cannot be pulled"),
        (pod(PRIVATE), "image registry.test/private:1 cannot be pulled: failed to pull"),
        (pod(BARE), "the container of image bare:1 cannot be started: RunContainerError: failed to create"),
        (pod(IMAGE, entrypoint="/bin/false"), "the container ended by itself, with exit status 1"),
        (pod(IMAGE, user="ci"), "user 'ci' is not a number"),
        (pod(IMAGE, privileged=True), "which this executor does not allow"),
        (pod(IMAGE, volumes=(Volume("", 0),)), "the cluster refused the pod: "),
    ],
    ids=["image", "service", "login", "shell", "ends", "user", "privileged", "refused"],
)
async def test_a_pod_that_cannot_start_says_why_and_leaves_nothing(
    running: Rig, api: KubernetesApi, runtime: Runtime, said: str
) -> None:
    assert said in await failed(running, api, runtime)


async def test_a_pod_that_no_node_can_take_says_why_until_the_setup_is_too_long(
    tmp_path: Path, api: KubernetesApi, settings: ExecutorSettings
) -> None:
    async with rig(tmp_path, settings=replace(settings, setup_seconds=0.3)) as running:
        runtime = Runtime("pod", "386", pod(IMAGE).containers)
        log = await failed(running, api, runtime)
    assert "no node can take the pod: 0/2 nodes are available" in log
    assert "it took longer than 0 seconds" in log


async def test_a_private_image_is_pulled_with_its_login(running: Rig, api: KubernetesApi) -> None:
    task = task_of("task", run_step("echo in"), runtime=pod(PRIVATE))
    task = replace_auth(task, {"registry.test": RegistryAuth("basic", "ci", "topsecret", "")})
    watched = await running.assign(task)
    await watched.settled()
    assert await watched.log(0) == "in\n"
    shown = json.dumps([each for each in api.made if each["kind"] == "Pod"])
    assert "topsecret" not in shown
    await gone(api)


def replace_auth(task: Any, auth: dict[str, RegistryAuth]) -> Any:
    return msgspec.structs.replace(task, docker_registries_auth=auth)


async def test_a_quota_of_the_cluster_is_the_reason_in_the_setup_log(running: Rig, api: KubernetesApi) -> None:
    api.refusing["pods"] = 403
    assert "the cluster refused the pod: pods is forbidden: exceeded quota" in await failed(running, api, pod(IMAGE))


async def test_calls_that_the_server_cannot_answer_are_repeated(running: Rig, api: KubernetesApi) -> None:
    api.failing = 3
    done = await running.run(run_step("true"), runtime=pod(IMAGE))
    assert done.task.phase is ExecutorTaskPhase.SUCCESS
    assert api.failing == 0
    await gone(api)


async def test_a_task_that_is_stopped_while_the_server_is_slow_leaves_nothing(running: Rig, api: KubernetesApi) -> None:
    api.held = asyncio.Event()
    watched = await running.assign(task_of("task", run_step("true"), runtime=pod(IMAGE, environment={"A": "b"})))
    await until(lambda: any(each.startswith("POST") and "secrets" in each for each in api.asked))
    await watched.say(ExecutorTaskStopRequested())
    assert (await watched.ended()).phase is ExecutorTaskPhase.STOPPED
    api.held.set()
    await api.changed("pods", lambda _names: bool([each for each in api.asked if each.startswith("DELETE")]))
    await gone(api)


async def test_the_rights_in_the_documents_are_what_the_executor_uses(running: Rig, api: KubernetesApi) -> None:
    await running.run(run_step("true"), runtime=pod(IMAGE, environment={"A": "b"}))
    await gone(api)
    blocks = [block.text for block in blocks_of(ROOT / "docs" / "how-to" / "kubernetes.md") if block.what == "cluster"]
    given = rights(blocks)
    assert given - {("nodes", "list")} == rights(
        [(ROOT / "docker" / "kubernetes" / "base" / "executor-rights.yaml").read_text()]
    )
    used = {used for line in api.asked if (used := right(line)) is not None}
    assert used <= given
    rarely = {("pods", "get"), ("pods/log", "get"), ("pods/exec", "create"), ("leases", "delete"), ("leases", "list")}
    assert given - used <= rarely


def rights(texts: list[str]) -> set[tuple[str, str]]:
    """The resources and verbs that roles in these texts give."""
    return {
        (resource, verb)
        for text in texts
        for each in YAML(typ="safe").load_all(text)
        for rule in each.get("rules", ())
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def right(line: str) -> tuple[str, str] | None:
    """The resource and the verb of a request."""
    method, path = line.split()[:2]
    if method == "EXEC":
        return "pods/exec", "get"
    if path.endswith("/log"):
        return "pods/log", "get"
    found = re.fullmatch(r"/apis?/(?:coordination.k8s.io/)?v1/(?:namespaces/ci/)?(\w+)(/[^/]+)?", path)
    if found is None:
        return None
    verbs = {"POST": "create", "PATCH": "patch", "DELETE": "delete", "WATCH": "watch", "GET": "list"}
    return found[1], "get" if method == "GET" and found[2] else verbs[method]


async def test_a_watch_that_is_too_old_begins_anew(running: Rig, api: KubernetesApi) -> None:
    api.forget()
    done = await running.run(run_step("true"), runtime=pod(IMAGE))
    assert done.task.phase is ExecutorTaskPhase.SUCCESS
    api.forget()
    assert (await running.run(run_step("true"), runtime=pod(IMAGE))).task.phase is ExecutorTaskPhase.SUCCESS
    assert api.asked.count("GET /version") == 1  # it was never taken for away


async def test_an_older_server_speaks_the_older_protocol(running: Rig, api: KubernetesApi) -> None:
    api.protocols = ("v4.channel.k8s.io",)
    done = await running.run(run_step("echo out; exit 5"), runtime=pod(IMAGE))
    assert (await done.log(0), done.task.steps[0].exit_status) == ("out\n", 5)


def offer(running: Rig) -> Any:
    found = decode_offer(running.executor_id, running.leases.value())
    assert found is not None
    return found


async def test_commands_run_over_tls_and_a_server_that_is_not_trusted_is_away(
    tmp_path: Path, settings: ExecutorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.joinpath("trusted").mkdir()
    tmp_path.joinpath("other").mkdir()
    _context, trusted = issued(tmp_path / "trusted")
    _context, other = issued(tmp_path / "other")
    async with started(tmp_path / "cluster", certificate=trusted.with_name("server.pem")) as api:
        monkeypatch.setenv("KUBECONFIG", str(api.write_config(trusted)))
        async with rig(tmp_path / "one", settings=settings) as running:
            assert await (await running.run(run_step("echo in"), runtime=pod(IMAGE))).log(0) == "in\n"
        monkeypatch.setenv("KUBECONFIG", str(api.write_config(other)))
        async with rig(tmp_path / "two", settings=settings) as running:
            assert "CERTIFICATE_VERIFY_FAILED" in offer(running).engine_away


async def test_a_server_that_is_away_is_in_the_offer_until_it_is_back(running: Rig, api: KubernetesApi) -> None:
    running.leases.given.touching.clear()
    assert (offer(running).engine, offer(running).engine_away) == ("kubernetes 1.37.0", "")
    assert offer(running).archs == ("amd64", "arm64")
    await api.stop()
    await until(lambda: "refused" in offer(running).engine_away.lower())
    assert running.leases.given.touching.is_set()
    watched = await running.assign(task_of("task", run_step("true"), runtime=pod(IMAGE)))
    await watched.settled()
    assert "the container engine is unreachable: " in await watched.log(None)
    await api.start()
    await until(lambda: not offer(running).engine_away)
    done = await running.run(run_step("true"), runtime=pod(IMAGE))
    assert done.task.phase is ExecutorTaskPhase.SUCCESS


async def test_a_server_that_goes_away_in_the_middle_fails_the_step_and_leaves_nothing_once_it_is_back(
    running: Rig, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = await begun(running)
    await api.stop()
    task = await watched.settled()
    assert task.phase is ExecutorTaskPhase.FAILED
    assert "the connection to the container was lost" in await watched.log(0)
    await api.start()
    await gone(api)


async def test_what_the_cluster_does_to_a_pod_is_in_the_log_of_the_step(running: Rig, api: KubernetesApi) -> None:
    watched = await begun(running)
    (name,) = api.names("pods")
    api.evict(name, "Evicted", "The node was low on resource: memory.")
    assert (await watched.settled()).phase is ExecutorTaskPhase.FAILED
    log = await watched.log(0)
    assert "the pod was ended by the cluster: Evicted: The node was low on resource: memory. (image tiny:1)\n" in log
    await gone(api)


async def test_a_pod_that_is_deleted_fails_its_step(running: Rig, api: KubernetesApi) -> None:
    watched = await begun(running)
    await api.remove(api.names("pods")[0])
    assert (await watched.settled()).phase is ExecutorTaskPhase.FAILED
    assert "the pod was removed from the cluster" in await watched.log(0)
    await gone(api)


def left_by(api: KubernetesApi, executor: str, group_id: str, name: str) -> None:
    """Put what an executor left into the cluster."""
    labels = {"runstream.io/runstream": "true", "runstream.io/executorid": executor, "runstream.io/podid": name}
    labels |= {"runstream.io/executorsgroupid": group_id, "runstream.io/taskid": "some"}
    for plural in ("pods", "secrets"):
        api.put(plural, {"metadata": {"name": f"runstream-task-{name}", "labels": labels}, "spec": {"containers": []}})


async def test_an_executor_that_starts_removes_what_its_earlier_process_left_and_nothing_else(
    tmp_path: Path, api: KubernetesApi, settings: ExecutorSettings
) -> None:
    async with rig(tmp_path, settings=settings) as first:
        await first.run(run_step("true"), runtime=pod(IMAGE))
    group_id = api.objects["configmaps", CONFIG_MAP]["data"][KEY]
    left_by(api, first.executor_id, group_id, "own")
    left_by(api, "another", group_id, "anothers")
    api.put("pods", {**NOT_KUBERNETES})
    async with rig(tmp_path, settings=settings):
        await api.changed("pods", lambda names: "runstream-task-own" not in names)
        await api.changed("secrets", lambda names: "runstream-task-own" not in names)
        assert api.names("pods") == ["foreign", "runstream-task-anothers"]
        assert api.names("secrets") == ["runstream-task-anothers"]


async def test_what_an_executor_that_never_comes_back_left_is_removed_by_another_one_of_its_group(
    tmp_path: Path, api: KubernetesApi, settings: ExecutorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(group, "LOST_SECONDS", 0.4)
    async with (
        rig(tmp_path / "lasting", settings=replace(settings, id="lasting")),
        rig(tmp_path / "beside", settings=replace(settings, id="beside")) as beside,
    ):
        watched = await begun(beside)
        group_id = api.objects["configmaps", CONFIG_MAP]["data"][KEY]
        left_by(api, "killed", group_id, "killed")
        left_by(api, "killed", "another-group", "theirs")
        labels = api.objects["pods", "runstream-task-killed"]["metadata"]["labels"]
        lease: dict[str, Any] = {"metadata": {"name": "runstream-executor-killed", "labels": labels}}
        lease["spec"] = {"renewTime": "2026-11-29T12:00:00.000000Z"}
        api.put("leases", {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease})
        await api.changed("leases", lambda names: "runstream-executor-killed" not in names)
        await api.changed("pods", lambda names: "runstream-task-killed" not in names)
        await api.changed("secrets", lambda names: names == ["runstream-task-theirs"])
        assert len(api.names("pods")) == 2
        assert api.names("leases") == ["runstream-executor-beside", "runstream-executor-lasting"]
        await watched.say(ExecutorTaskStopRequested())
        await watched.settled()
    assert api.names("leases") == []

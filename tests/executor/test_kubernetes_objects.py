"""What a task becomes in a cluster, and what the cluster's words mean: functions without a cluster."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from dataclasses import replace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightkube.resources.core_v1 import Pod

from runstream.errors import BadRequestError
from runstream.events.run_config import Container, Resources, RunConfigTask, Runtime, Volume
from runstream.executor.drivers.kubernetes.channels import Result, result_of
from runstream.executor.drivers.kubernetes.entering import file_script, input_script
from runstream.executor.drivers.kubernetes.manifests import Owner, PodRules, manifests
from runstream.executor.drivers.kubernetes.startup import Startup, startup_of, why_gone
from runstream.executor.limits import Limits
from runstream.executor.spec import ExecutorTaskSpec, GitCredentials, Login
from tests.executor.rig import container, pod, run_step, task_of
from tests.kubernetes_api import IMAGE, check

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
VOLUMES = st.builds(Volume, st.sampled_from(["/scratch", "/cache"]), st.sampled_from([0, 1 << 30]))
CONTAINERS = st.builds(
    Container,
    image=st.sampled_from([IMAGE, "registry.test/a/b@sha256:" + "0" * 64, "ubuntu"]),
    environment=st.dictionaries(NAMES, st.just(""), max_size=3),
    user=st.sampled_from(["", "root", "0", "1000", "1000:1000"]),
    privileged=st.booleans(),
    entrypoint=st.sampled_from(["", "/bin/server --port  8080"]),
    volumes=st.lists(
        st.builds(Volume, st.sampled_from(["/scratch", "/cache"]), st.sampled_from([0, 1 << 30])), max_size=2
    ).map(tuple),
)
RUNTIMES = st.builds(
    Runtime,
    type=st.just("pod"),
    arch=st.sampled_from(["", "arm64", "386"]),
    containers=st.lists(CONTAINERS, min_size=1, max_size=3).map(tuple),
)
OWNER = Owner("executor-1", "group-1")
ALLOWED = PodRules(allow_privileged=True)


def spec_of(task: RunConfigTask, registries: dict[str, Login] | None = None, text: str = "WORD") -> ExecutorTaskSpec:
    """The spec of a task, whose variables have this text."""
    environments = tuple(dict.fromkeys(each.environment, text) for each in task.runtime.containers)
    return ExecutorTaskSpec(
        *(task, {}, (), GitCredentials(), frozenset(), "", ()),
        container_environments=environments,
        registries=registries or {},
    )


def made(task: RunConfigTask, rules: PodRules = ALLOWED, **fields: Any) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The secret and the pod of a task, as they are sent."""
    secret, found = manifests(OWNER, "pod-1", "task-1", spec_of(task, **fields), rules)
    sent = [None if each is None else json.loads(msgspec.json.encode(each)) for each in (secret, found)]
    return sent[0], sent[1] or {}


@given(RUNTIMES, TEXTS, st.sampled_from(["", "1000"]))
def test_what_is_sent_fits_the_published_schemas_and_shows_no_variable(runtime: Runtime, text: str, user: str) -> None:
    secret, sent = made(task_of("task", run_step("true"), runtime=runtime, user=user), text=f"WORD{text}")
    check("pods", sent)
    assert "WORD" not in json.dumps(sent)
    if secret is not None:
        check("secrets", secret)
    assert (secret is None) is not any(each.environment for each in runtime.containers)
    spec = sent["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Never"
    for asked, given_ in zip(runtime.containers, spec["containers"], strict=True):
        context = given_["securityContext"]
        assert context["privileged"] is asked.privileged
        if not asked.privileged:
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]


def test_the_architecture_and_the_settings_choose_the_node_and_tmpfs_is_memory() -> None:
    runtime = replace_arch(pod(IMAGE, volumes=(Volume("/scratch", 3 << 20), Volume("/more", 0))), "arm64")
    _secret, sent = made(task_of("task", runtime=runtime), PodRules("missing", node_selector={"disk": "fast"}))
    spec = sent["spec"]
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64", "disk": "fast"}
    assert spec["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert [each["emptyDir"] for each in spec["volumes"]] == [
        {"medium": "Memory", "sizeLimit": str(3 << 20)},
        {"medium": "Memory"},
    ]
    mounted = {each["mountPath"]: each["name"] for each in spec["containers"][0]["volumeMounts"]}
    assert list(mounted) == ["/scratch", "/more"]
    assert list(mounted.values()) == [each["name"] for each in spec["volumes"]]


def replace_arch(runtime: Runtime, arch: str) -> Runtime:
    return msgspec.structs.replace(runtime, arch=arch)


def test_the_secret_has_the_logins_of_the_images_alone() -> None:
    logins = {
        "https://index.docker.io/v1/": Login("basic", "hub", "one"),
        "registry.test": Login("encodedauth", auth=base64.b64encode(b"ci:two").decode()),
        "other.test": Login("basic", "other", "three"),
    }
    runtime = pod("ubuntu", container("registry.test/a:1"))
    secret, sent = made(task_of("task", runtime=runtime), registries=logins)
    assert secret is not None
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    auths = json.loads(secret["stringData"][".dockerconfigjson"])["auths"]
    assert {registry: base64.b64decode(each["auth"]) for registry, each in auths.items()} == {
        "https://index.docker.io/v1/": b"hub:one",
        "registry.test": b"ci:two",
    }
    assert sent["spec"]["imagePullSecrets"] == [{"name": secret["metadata"]["name"]}]


def test_a_container_without_a_memory_limit_has_that_of_the_executor_and_none_has_more() -> None:
    named = [container(IMAGE, resources=Resources(memory=size << 20)) for size in (0, 16, 64)]
    runtime = Runtime("pod", "", tuple(named))
    _secret, found = made(task_of("task", runtime=runtime), PodRules(limits=Limits(memory_bytes=32 << 20)))
    limits = [each["resources"]["limits"] for each in found["spec"]["containers"]]
    assert limits == [{"memory": str(size << 20)} for size in (32, 16, 32)]


@pytest.mark.parametrize(
    ("runtime", "code"),
    [
        (pod(IMAGE, user="ci"), "userNotSupported"),
        (pod(IMAGE, user="99999999999"), "userNotSupported"),
        (pod(IMAGE, privileged=True), "privilegedNotAllowed"),
        (pod(IMAGE, container(IMAGE, privileged=True)), "privilegedNotAllowed"),
        (pod(""), "imageMissing"),
        (pod("tiny:1:2"), "invalidImage"),
    ],
)
def test_what_a_cluster_or_this_executor_does_not_do_is_refused(runtime: Runtime, code: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        made(task_of("task", runtime=runtime), PodRules())
    assert refused.value.code == code


@pytest.mark.parametrize("executor_id", ["-Builder_1-", "x" * 64, "_", "Builder"])
def test_an_executor_id_that_is_no_name_in_a_cluster_gets_one(executor_id: str) -> None:
    _secret, found = manifests(
        replace(OWNER, executor=executor_id), "pod-1", "task-1", spec_of(task_of("task", runtime=pod(IMAGE))), ALLOWED
    )
    check("pods", json.loads(msgspec.json.encode(found)))


def pod_of(phase: str = "Pending", *states: dict[str, Any], **status: Any) -> Pod:
    """A pod whose containers are in these states."""
    names = ["maincontainer", "service1"][: max(len(states), 1)]
    found = {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": name, "image": f"{name}:1"} for name in names]},
        "status": {
            "phase": phase,
            "containerStatuses": [
                {"name": name, "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": state}
                for name, state in zip(names, states, strict=False)
            ],
            **status,
        },
    }
    return cast("Pod", Pod.from_dict(found))


def waits(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


RUNNING: dict[str, Any] = {"running": {}}
ENDED: dict[str, Any] = {"terminated": {"exitCode": 3, "reason": "Error"}}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (pod_of("Running", RUNNING, RUNNING), Startup(started=True)),
        (pod_of("Running", RUNNING, ENDED), Startup(started=True)),
        (pod_of("Pending", RUNNING, waits("ContainerCreating")), Startup(False, "service1: ContainerCreating")),
        (
            pod_of("Pending", waits("ErrImagePull", "not found")),
            Startup(False, "image maincontainer:1 cannot be pulled: not found", pull_error="not found"),
        ),
        (
            pod_of("Pending", waits("ImagePullBackOff", "Back-off")),
            Startup(False, failed="image maincontainer:1 cannot be pulled: Back-off", code="imageNotPulled"),
        ),
        (
            pod_of("Pending", RUNNING, waits("CreateContainerError", "no\n room")),
            Startup(
                False,
                failed="the container of image service1:1 cannot be started: CreateContainerError: no room",
                code="containerNotStarted",
            ),
        ),
        (
            pod_of("Failed", reason="Evicted", message="low on memory"),
            Startup(False, failed="the pod was ended by the cluster: Evicted: low on memory", code="podEnded"),
        ),
        (
            pod_of(
                conditions=[
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
                ]
            ),
            Startup(False, "no node can take the pod: 0/2 nodes"),
        ),
    ],
)
def test_the_status_of_a_pod_says_how_far_its_start_is(found: Pod, said: Startup) -> None:
    assert startup_of(found) == said


def test_a_pull_that_is_tried_again_fails_with_the_error_of_the_first() -> None:
    first = startup_of(pod_of("Pending", waits("ErrImagePull", "401 Unauthorized")))
    again = startup_of(pod_of("Pending", waits("ImagePullBackOff", "Back-off")), first.pull_error)
    assert again.failed == "image maincontainer:1 cannot be pulled: 401 Unauthorized"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "the pod was removed from the cluster"),
        (pod_of("Running", RUNNING), ""),
        (pod_of("Running", ENDED), "the container ended by itself, with exit status 3"),
        (
            pod_of("Running", {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
            "the container was killed: out of memory",
        ),
        (pod_of("Failed", reason="Evicted"), "the pod was ended by the cluster: Evicted"),
    ],
)
def test_the_status_of_a_pod_says_why_its_commands_ended(found: Pod | None, said: str) -> None:
    assert why_gone(found) == said


@pytest.mark.parametrize(
    ("message", "result"),
    [
        (b'{"status":"Success"}', Result(0)),
        (
            b'{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}',
            Result(7),
        ),
        (b'{"status":"Failure","message":"exec: no such file"}', Result(-1, "exec: no such file")),
        (b"not json", Result(-1, "not json")),
        (b"", Result(-1, "the server told no result")),
    ],
)
def test_the_error_channel_tells_the_exit_status(message: bytes, result: Result) -> None:
    assert result_of(message) == result


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["status", "details", "causes", "reason", "message"]), inner, max_size=5)
    ),
)


@given(st.binary(max_size=60) | JSON.map(msgspec.json.encode))
def test_no_message_on_the_error_channel_breaks_a_task(message: bytes) -> None:
    assert isinstance(result_of(message).status, int)


SHELLS = [words for words in (["/bin/sh"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(words[0])]
VARIABLES = st.dictionaries(st.from_regex(r"[A-Z_][a-z0-9_]{1,9}", fullmatch=True), TEXTS, max_size=4)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
@settings(max_examples=30)
@given(environment=VARIABLES, word=TEXTS)
def test_a_command_gets_its_variables_and_words_unchanged_and_no_input(
    shell: list[str], environment: dict[str, str], word: str
) -> None:
    arguments = ["/bin/sh", "-c", 'cat; printf "%s\\0" "$1"; env -0', "sh", word]
    of_file = [*shell, "-c", file_script(arguments, environment), "/dev/null"]
    for words, given_input in (([*shell, "-s"], input_script(arguments, environment)), (of_file, b"")):
        done = subprocess.run(words, input=given_input, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True)
        first, *shown = done.stdout.decode().split("\0")
        assert first == word
        assert environment.items() <= dict(each.split("=", 1) for each in shown if each).items()

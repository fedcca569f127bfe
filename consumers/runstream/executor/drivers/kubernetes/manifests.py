"""The objects that a task is in the cluster: a pod, and a secret with its logins and the variables of its containers.

All of them carry the labels by which they are found again, and nothing without these labels is touched. A container
gets no service account, and no new privileges and few capabilities unless it is privileged. Variables are in a secret,
because more people may read the pods of a namespace than its secrets.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightkube.models.core_v1 import (
    Capabilities,
    Container,
    EmptyDirVolumeSource,
    EnvVar,
    EnvVarSource,
    LocalObjectReference,
    PodSecurityContext,
    PodSpec,
    ResourceRequirements,
    SeccompProfile,
    SecretKeySelector,
    SecurityContext,
    Volume,
    VolumeMount,
)
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Pod, Secret

from runstream.errors import BadRequestError
from runstream.events.run_config import Container as ContainerConfig
from runstream.events.run_config import Resources
from runstream.executor.drivers.containers import CAPABILITIES, EXECUTOR, LABEL, OWN, POD, TASK, require_allowed
from runstream.executor.drivers.registries import HUB, PullPolicy, login_for, registry_of, require_reference
from runstream.executor.drivers.shell import SHELL, SLEEPER
from runstream.executor.limits import Limits
from runstream.executor.spec import ExecutorTaskSpec

GROUP = f"{LABEL}/executorsgroupid"
MAIN = "maincontainer"
_HUB_KEY = "https://index.docker.io/v1/"
_POLICIES: dict[PullPolicy, str] = {"always": "Always", "missing": "IfNotPresent", "never": "Never"}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?")
_MAX_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Owner:
    """The executor that a pod belongs to."""

    executor: str
    group: str
    """The id of the executors that clean up after each other."""


@dataclass(frozen=True, slots=True)
class PodRules:
    """The rules for pods."""

    pull_policy: PullPolicy = "always"
    allow_privileged: bool = False
    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels that the node of each pod must have."""
    limits: Limits = field(default_factory=Limits)
    """The limits of each container; a cluster enforces that of memory."""


def object_name(executor_id: str) -> str:
    """Return the name for an executor's objects: the id, or a hash of one that is no name in a cluster."""
    return executor_id if _NAME.fullmatch(executor_id) else hashlib.sha256(executor_id.encode()).hexdigest()[:40]


def pod_name(pod_id: str) -> str:
    """Return the name of a pod and its secret."""
    return f"runstream-task-{pod_id}"


def container_name(index: int) -> str:
    """Return the name of a container of a pod."""
    return f"service{index}" if index else MAIN


def labels_of(owner: Owner, pod_id: str, task_id: str) -> dict[str, str]:
    """Return the labels of a task's objects."""
    return {OWN: "true", EXECUTOR: label_value(owner.executor), GROUP: owner.group, POD: pod_id, TASK: task_id}


def label_value(executor_id: str) -> str:
    """Return the value of the label for an executor: its id cannot begin or end with `-` or `_` in a label."""
    return (
        executor_id
        if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?", executor_id)
        else (hashlib.sha256(executor_id.encode()).hexdigest()[:40])
    )


def manifests(
    owner: Owner, pod_id: str, task_id: str, spec: ExecutorTaskSpec, rules: PodRules
) -> tuple[Secret | None, Pod]:
    """Return the secret and the pod of a task.

    Raises BadRequestError for a privileged container that is not allowed, for a user that is not a number, for a
    container without an image, and for a malformed login.
    """
    labels = labels_of(owner, pod_id, task_id)
    name = pod_name(pod_id)
    runtime = spec.task.runtime
    require_allowed(runtime.containers, allow_privileged=rules.allow_privileged)
    for container in runtime.containers:
        _require_image(container)
    secret = _secret(name, labels, spec)
    containers, volumes = [], []
    for index, container in enumerate(runtime.containers):
        user = (spec.task.user if not index else "") or container.user
        sizes = {volume.path: volume.tmpfs_size for volume in container.volumes}
        mounts = [(f"tmpfs{index}-{at}", path, size) for at, (path, size) in enumerate(sizes.items())]
        volumes += [
            Volume(name=volume, emptyDir=EmptyDirVolumeSource(medium="Memory", sizeLimit=str(size) if size else None))
            for volume, _path, size in mounts
        ]
        containers.append(
            Container(
                name=container_name(index),
                image=container.image,
                imagePullPolicy=_POLICIES[rules.pull_policy],
                **_process(index, container),
                env=[
                    EnvVar(
                        name=variable,
                        valueFrom=EnvVarSource(secretKeyRef=SecretKeySelector(name=name, key=f"{index}.{at}")),
                    )
                    for at, variable in enumerate(spec.container_environments[index])
                ]
                or None,
                securityContext=_security(container, user),
                resources=_limits(container.resources, rules.limits),
                volumeMounts=[VolumeMount(name=volume, mountPath=path) for volume, path, _size in mounts] or None,
            )
        )
    selector = {"kubernetes.io/os": "linux", **rules.node_selector}
    if runtime.arch:
        selector["kubernetes.io/arch"] = runtime.arch
    pod = Pod(
        apiVersion="v1",
        kind="Pod",
        metadata=ObjectMeta(name=name, labels=labels),
        spec=PodSpec(
            automountServiceAccountToken=False,
            containers=containers,
            enableServiceLinks=False,
            imagePullSecrets=[LocalObjectReference(name=name)] if secret and secret.type != "Opaque" else None,
            nodeSelector=selector,
            restartPolicy="Never",
            securityContext=PodSecurityContext(seccompProfile=SeccompProfile(type="RuntimeDefault"))
            if not any(container.privileged for container in runtime.containers)
            else None,
            terminationGracePeriodSeconds=1,
            volumes=volumes or None,
        ),
    )
    return secret, pod


def _require_image(container: ContainerConfig) -> None:
    require_reference(container.image)


def _secret(name: str, labels: dict[str, str], spec: ExecutorTaskSpec) -> Secret | None:
    auths = {}
    for container in spec.task.runtime.containers:
        if (login := login_for(container.image, spec.registries)) is not None:
            user, password = login
            registry = registry_of(container.image)
            encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
            auths[_HUB_KEY if registry == HUB else registry] = {"username": user, "password": password, "auth": encoded}
    texts = {
        f"{index}.{at}": text
        for index, environment in enumerate(spec.container_environments)
        for at, text in enumerate(environment.values())
    }
    if auths:
        texts[".dockerconfigjson"] = json.dumps({"auths": auths})
    if not texts:
        return None
    return Secret(
        apiVersion="v1",
        kind="Secret",
        metadata=ObjectMeta(name=name, labels=labels),
        immutable=True,
        type="kubernetes.io/dockerconfigjson" if auths else "Opaque",
        stringData=texts,
    )


def _process(index: int, container: ContainerConfig) -> dict[str, Any]:
    if container.entrypoint:
        return {"command": [word for word in container.entrypoint.split(" ") if word]}
    if index:
        return {}
    # The input stays open, so that the shell waits for the end of the pod; where it does not, the image needs `sleep`.
    return {"command": [SHELL, "-c", f"{SLEEPER}; while sleep 86400; do :; done"], "stdin": True}


def _limits(resources: Resources, bounds: Limits) -> ResourceRequirements | None:
    memory = bounds.memory_of(resources.memory)
    limits = {
        **({"cpu": f"{resources.cpu}m"} if resources.cpu else {}),
        **({"memory": str(memory)} if memory else {}),
    }
    return ResourceRequirements(limits=limits) if limits else None


def _security(container: ContainerConfig, user: str) -> SecurityContext:
    uid, gid = _numbers(user)
    if container.privileged:
        return SecurityContext(privileged=True, runAsUser=uid, runAsGroup=gid)
    return SecurityContext(
        allowPrivilegeEscalation=False,
        capabilities=Capabilities(drop=["ALL"], add=list(CAPABILITIES)),
        privileged=False,
        runAsUser=uid,
        runAsGroup=gid,
    )


def _numbers(user: str) -> tuple[int | None, int | None]:
    """Return the ids of a user such as `1000` or `1000:1000`; None for the image's."""
    if not user:
        return None, None
    name, colon, group = user.partition(":")
    ids = [{"root": "0"}.get(text, text) for text in ((name, group) if colon else (name,))]
    if not all(text.isascii() and text.isdigit() and int(text) <= _MAX_ID for text in ids):
        raise BadRequestError(
            f"user {user[:60]!r} is not a number, and a cluster cannot look a name up in the image",
            code="userNotSupported",
            hint='write the user\'s number, such as `user: "1000"`, or leave `user` out',
        )
    return int(ids[0]), int(ids[1]) if colon else None

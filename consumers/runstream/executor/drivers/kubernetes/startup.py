"""What a pod's status says about its start: what it waits for, and what it will never get over."""

from __future__ import annotations

from dataclasses import dataclass

from lightkube.models.core_v1 import ContainerStatus
from lightkube.resources.core_v1 import Pod

from runstream.executor.drivers.kubernetes.manifests import MAIN

_HOPELESS = frozenset(
    {
        *("InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "CreateContainerConfigError"),
        *("CreateContainerError", "RunContainerError", "PreCreateHookError", "PreStartHookError"),
    }
)
_PULL_FAILED, _PULL_AGAIN = "ErrImagePull", "ImagePullBackOff"
_MAX_TEXT = 600
BY_ITSELF = "the container ended by itself"


@dataclass(frozen=True, slots=True)
class Startup:
    """How far the start of a pod is."""

    started: bool
    """Whether all its containers were started."""
    waiting: str = ""
    """What it waits for, as a sentence; empty if nothing is known."""
    failed: str = ""
    """Why it cannot start; empty if it can."""
    code: str = ""
    """The code of the error for `failed`."""
    pull_error: str = ""
    """The error of the last pull, which the cluster repeats."""


def startup_of(pod: Pod, pull_error: str = "") -> Startup:
    """Return how far the start is; `pull_error` is that of an earlier call.

    An image that cannot be pulled fails the start at the second time, because the first may be the registry's fault.
    """
    status = pod.status
    if status is None:
        return Startup(started=False)
    if status.phase == "Failed" and (reason := ended_by(pod)):
        return Startup(started=False, failed=f"the pod was ended by the cluster: {reason}", code="podEnded")
    for condition in status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            text = _short(condition.message or condition.reason or "")
            return Startup(started=False, waiting=f"no node can take the pod: {text}", pull_error=pull_error)
    waiting, begun = "", 0
    wanted = len(pod.spec.containers) if pod.spec is not None else 1
    for container in status.containerStatuses or ():
        if container.state is None or container.state.waiting is None:
            begun += 1
            continue
        reason = container.state.waiting.reason or ""
        text = _short(container.state.waiting.message or reason)
        if reason == _PULL_FAILED:
            pull_error = text
            waiting = f"image {_image(pod, container)} cannot be pulled: {text}"
        elif reason == _PULL_AGAIN:
            why = pull_error or text
            return Startup(
                started=False, failed=f"image {_image(pod, container)} cannot be pulled: {why}", code="imageNotPulled"
            )
        elif reason in _HOPELESS:
            failed = f"the container of image {_image(pod, container)} cannot be started: {reason}: {text}"
            return Startup(started=False, failed=failed, code="containerNotStarted")
        elif reason:
            waiting = waiting or f"{container.name}: {text}"
    return Startup(started=begun >= wanted, waiting=waiting, pull_error=pull_error)


@dataclass(frozen=True, slots=True)
class ContainerEnd:
    """A container that has ended."""

    image: str
    status: int
    reason: str
    """Such as `OOMKilled`, `Error`, `Completed`."""


def ended_containers(pod: Pod) -> dict[str, ContainerEnd]:
    """Return the containers that have ended, by name."""
    found = {}
    for container in (pod.status.containerStatuses if pod.status is not None else None) or ():
        if container.state is not None and (ended := container.state.terminated) is not None:
            found[container.name] = ContainerEnd(_image(pod, container), ended.exitCode, ended.reason or "")
    return found


def ended_by(pod: Pod) -> str:
    """Return why the cluster ended a pod, such as an eviction; empty if it did not."""
    status = pod.status
    if status is None or not status.reason:
        return ""
    return _short(f"{status.reason}: {status.message}" if status.message else status.reason)


def why_gone(pod: Pod | None) -> str:
    """Return why commands cannot run in a pod any more; empty if they can, or if nothing is known.

    `pod` is its last known state, None for a pod that is gone.
    """
    if pod is None:
        return "the pod was removed from the cluster"
    if reason := ended_by(pod):
        return f"the pod was ended by the cluster: {reason}"
    if (main := ended_containers(pod).get(MAIN)) is not None:
        if main.reason == "OOMKilled":
            return "the container was killed: out of memory"
        return f"{BY_ITSELF}, with exit status {main.status}"
    if pod.metadata is not None and pod.metadata.deletionTimestamp is not None:
        return "the pod is being removed from the cluster"
    return ""


def _image(pod: Pod, container: ContainerStatus) -> str:
    for each in pod.spec.containers if pod.spec is not None else ():
        if each.name == container.name and each.image:
            return each.image
    return container.image


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"

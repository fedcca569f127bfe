"""Where a task runs: in a pod of containers, or on the executor's machine (rule config-6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runstream.events.run_config import Volume
from runstream.runconfig.cursor import Cursor, Fields
from runstream.runconfig.fields import CONTAINER, RUNTIME, TMPFS, VOLUME
from runstream.runconfig.foreign import FOREIGN_CONTAINER, FOREIGN_RUNTIME
from runstream.runconfig.nodes import Scalar, describe
from runstream.runconfig.problems import nearest, shown
from runstream.runconfig.quantity import parse_quantity
from runstream.runconfig.values import Value, decode_environment

ARCHS = ("386", "amd64", "arm", "arm64")
TYPES = ("pod", "host")


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container, before variables are known."""

    image: str
    environment: dict[str, Value]
    user: str
    privileged: bool
    entrypoint: str
    volumes: tuple[Volume, ...]


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """A pod has at least one container, a host none."""

    type: Literal["pod", "host"]
    arch: str
    """Empty for any."""
    containers: tuple[ContainerSpec, ...]
    labels: dict[str, str]
    """What its executor must be labelled with."""


def decode_runtime(fields: Fields, owner: str) -> RuntimeSpec:
    """The field `runtime`, which every task needs; `owner` is the task as messages name it."""
    place = fields.get("runtime")
    if place is None:
        fields.place.wrong(f"{owner}: runtime is not defined", "add `runtime: {type: host}`, or a pod with containers")
        return RuntimeSpec("pod", "", (), {})
    found = place.fields(RUNTIME, foreign=FOREIGN_RUNTIME)
    runtime_type, arch = found.text("type") or "pod", found.text("arch")
    if runtime_type not in TYPES:
        place.wrong(f"{owner} runtime: wrong type {shown(runtime_type)}", nearest(runtime_type, TYPES))
    if arch and arch not in ARCHS:
        place.wrong(f"{owner} runtime: invalid arch {shown(arch)}", nearest(arch, ARCHS))
    containers = tuple(_container(item) for item in found.items("containers"))
    if runtime_type == "pod" and not containers:
        place.wrong(f"{owner} runtime: at least one container must be defined", "or say `type: host`")
    if runtime_type == "host" and containers:
        place.wrong(f"{owner} runtime: a host has no containers", "leave containers out, or say `type: pod`")
    return RuntimeSpec("host" if runtime_type == "host" else "pod", arch, containers, _labels(found))


def _labels(fields: Fields) -> dict[str, str]:
    place = fields.get("labels")
    if place is None:
        return {}
    labels = {}
    for name, value in place.entries():
        if not name:
            value.wrong("the label has no name", "labels are written `name: value`")
        value.require_shown(name, "the label")
        labels[name] = text = value.text()
        value.require_shown(text, "the value of the label")
    return labels


def _container(place: Cursor) -> ContainerSpec:
    if place.is_null:
        place.wrong("the container is empty")
        return ContainerSpec("", {}, "", False, "", ())
    fields = place.fields(CONTAINER, foreign=FOREIGN_CONTAINER)
    for name in ("image", "user"):
        if (found := fields.get(name)) is not None:
            found.require_shown(found.text(), name)
    return ContainerSpec(
        image=fields.text("image"),
        environment=decode_environment(fields),
        user=fields.text("user"),
        privileged=fields.flag("privileged"),
        entrypoint=fields.text("entrypoint"),
        volumes=tuple(_volume(item) for item in fields.items("volumes")),
    )


def _volume(place: Cursor) -> Volume:
    if place.is_null:
        place.wrong("the volume is empty")
        return Volume("", 0)
    fields = place.fields(VOLUME)
    tmpfs = fields.get("tmpfs")
    if tmpfs is None:
        place.wrong("the volume has no tmpfs", "tmpfs is the only kind of volume; `tmpfs: {}` has no limit")
        return Volume(fields.text("path"), 0)
    return Volume(fields.text("path"), _size(tmpfs.fields(TMPFS)))


def _size(fields: Fields) -> int:
    place = fields.get("size")
    if place is None:
        return 0
    if not isinstance(place.node, Scalar) or place.node.kind == "bool":
        place.wrong(f"expected an amount of bytes, found {describe(place.node)}", "such as 1Gi or 512M")
        return 0
    try:
        return parse_quantity(place.node.text)
    except ValueError as error:
        place.wrong(str(error), "such as 1Gi or 512M")
        return 0

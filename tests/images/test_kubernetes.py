"""The manifests of docker/kubernetes: each object is what Kubernetes' published schemas allow, and names what exists.

No cluster was available: these tests compare files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from ruamel.yaml import YAML

from runstream.service.configuration import load_settings
from runstream.settings import COMPONENTS
from tests.images.test_files import known_variables

KUBERNETES = Path(__file__).parents[2] / "docker" / "kubernetes"
MANIFESTS = sorted(path for part in ("base", "servers") for path in (KUBERNETES / part).glob("*.yaml"))
OVERLAYS = ("trial", "production")
VERSIONS = ("1.28", "1.37")
WORKLOADS = ("Deployment", "StatefulSet")


def documents(path: Path) -> list[dict[str, Any]]:
    # Version 1.1 reads `mode: 0440` as kubectl does.
    yaml = YAML(typ="safe")
    yaml.version = "1.1"
    return list(yaml.load_all(path.read_text()))


OBJECTS = [
    pytest.param(each, id=f"{path.parent.name}/{path.name}:{each['kind']}/{each['metadata']['name']}")
    for path in MANIFESTS
    if path.name != "kustomization.yaml"
    for each in documents(path)
]
ALL: list[dict[str, Any]] = [each.values[0] for each in OBJECTS]  # type: ignore[misc]


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [each for each in ALL if each["kind"] in kinds]


def pod(workload: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = workload["spec"]["template"]["spec"]
    return found


def container(workload: Mapping[str, Any]) -> dict[str, Any]:
    (found,) = pod(workload)["containers"]
    assert isinstance(found, dict)
    return found


WORKLOAD_OBJECTS = [pytest.param(each, id=each["metadata"]["name"]) for each in of_kind(*WORKLOADS)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("thing", OBJECTS)
def test_each_object_is_what_the_published_schema_allows(thing: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(thing, version, strict=True)


@pytest.mark.parametrize("path", sorted(KUBERNETES.rglob("kustomization.yaml")), ids=lambda path: path.parent.name)
def test_each_kustomization_names_files_that_exist(path: Path) -> None:
    (kustomization,) = documents(path)
    for name in kustomization["resources"]:
        assert (path.parent / name).exists(), name
    if path.parent.name in ("base", "servers"):
        named = {path.parent / name for name in kustomization["resources"]}
        assert named == {each for each in path.parent.glob("*.yaml") if each != path}
    for secret in kustomization.get("secretGenerator", ()):
        for name in secret["envs"]:
            assert (path.parent / f"{name}.example").exists()
        # They are made by the reader, and never committed.
        ignored = (KUBERNETES / ".gitignore").read_text().split()
        assert set(secret["envs"]) | set(secret.get("files", ())) <= set(ignored)
    for image in kustomization.get("images", ()):
        assert image["name"] in {container(each)["image"] for each in of_kind(*WORKLOADS)}
    for replica in kustomization.get("replicas", ()):
        assert replica["name"] in {each["metadata"]["name"] for each in of_kind(*WORKLOADS)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_secret_key_that_a_pod_reads_is_made_by_the_overlay(overlay: str) -> None:
    folder = KUBERNETES / "overlays" / overlay
    (kustomization,) = documents(folder / "kustomization.yaml")
    made = {
        (secret["name"], key)
        for secret in kustomization["secretGenerator"]
        for key in (
            *secret.get("files", ()),
            *(key for name in secret["envs"] for key, _ in pairs(folder / f"{name}.example")),
        )
    }
    with_servers = "../../servers" in kustomization["resources"]
    read = {key for each in of_kind(*WORKLOADS) for key in secret_keys(each) if with_servers or key[0] == "runstream"}
    assert read == made


def components(workload: Any) -> list[str]:
    """Return the components that the pods of a workload run; none for those of the servers."""
    match container(workload).get("args"):
        case ["serve", "--components", str(named)]:
            return named.split(",")
    return []


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("component", COMPONENTS)
def test_each_component_has_settings_that_exist(component: str, overlay: str) -> None:
    (workload,) = (each for each in of_kind(*WORKLOADS) if component in components(each))
    (shared,) = (each["data"] for each in of_kind("ConfigMap"))
    secrets = dict(pairs(KUBERNETES / "overlays" / overlay / "secrets.env.example"))
    environment = dict(shared)
    for each in container(workload)["env"]:
        environment[each["name"]] = each.get("value") or secrets[each["valueFrom"]["secretKeyRef"]["key"]]
    assert set(environment) <= known_variables()
    assert workload["metadata"]["name"] == f"runstream-{components(workload)[0]}"
    settings = load_settings({"components": components(workload)}, environment, None)
    assert settings.replicas == 3
    assert bool(settings.database_url) == (component != "executor")
    assert bool(settings.token) == (component == "gateway")
    assert (settings.secrets_key_file is not None) == (component in ("gateway", "executor"))
    if component == "executor":
        (role,) = of_kind("Role")
        assert settings.executor.engine == f"kubernetes://{role['metadata']['namespace']}"
        assert not settings.executor.allow_host


@pytest.mark.parametrize("workload", WORKLOAD_OBJECTS)
def test_each_process_is_probed_budgeted_and_an_ordinary_user(workload: dict[str, Any]) -> None:
    it = container(workload)
    ports = {each["name"] for each in it["ports"]}
    for probe in ("startupProbe", "readinessProbe"):
        assert (it[probe].get("httpGet") or it[probe]["tcpSocket"])["port"] in ports
    assert pod(workload)["securityContext"]["runAsNonRoot"]
    assert pod(workload)["enableServiceLinks"] is False
    assert it["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
    budgets = [each["spec"]["selector"]["matchLabels"] for each in of_kind("PodDisruptionBudget")]
    assert [each for each in budgets if each.items() <= labels.items()] == [labels]
    # What is written has a volume.
    volumes = {each["name"] for each in pod(workload)["volumes"]}
    volumes |= {each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", ())}
    assert {each["name"] for each in it["volumeMounts"]} == volumes
    if workload["kind"] == "StatefulSet":
        services = {each["metadata"]["name"]: each["spec"] for each in of_kind("Service")}
        assert services[workload["spec"]["serviceName"]]["clusterIP"] == "None"


def test_services_and_policies_select_pods_that_exist() -> None:
    pods = [each["spec"]["template"]["metadata"]["labels"] for each in of_kind(*WORKLOADS)]
    for service in of_kind("Service"):
        assert any(service["spec"]["selector"].items() <= labels.items() for labels in pods), service["metadata"]
    for policy in of_kind("NetworkPolicy"):
        for selector in selectors(policy["spec"]):
            wanted = selector.get("matchLabels", {})
            assert any(wanted.items() <= labels.items() for labels in pods), policy["metadata"]
            for each in selector.get("matchExpressions", ()):
                assert set(each["values"]) <= {labels.get(each["key"]) for labels in pods}
    assert {each["metadata"]["namespace"] for each in ALL if "namespace" in each["metadata"]} == {
        each["metadata"]["name"] for each in of_kind("Namespace")
    }


def test_executors_may_do_what_the_driver_does_and_no_more() -> None:
    (role,) = of_kind("Role")
    (binding,) = of_kind("RoleBinding")
    assert of_kind("ClusterRole", "ClusterRoleBinding") == []
    assert {(resource, *rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]} == {
        ("pods", "create", "get", "list", "watch", "delete"),
        ("pods/exec", "get", "create"),
        ("pods/log", "get"),
        ("secrets", "create", "list", "delete"),
        ("configmaps", "create", "get"),
        ("leases", "create", "list", "patch", "delete"),
    }
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "runstream-tasks"
    assert (binding["roleRef"]["name"], binding["subjects"][0]["name"]) == ("runstream-executor", "runstream-executor")
    accounts = {each["metadata"]["name"]: pod(each).get("serviceAccountName") for each in of_kind(*WORKLOADS)}
    assert {name for name, account in accounts.items() if account} == {"runstream-executor"}
    for each in of_kind(*WORKLOADS):
        if not pod(each).get("serviceAccountName"):
            assert pod(each)["automountServiceAccountToken"] is False


def pairs(path: Path) -> list[tuple[str, str]]:
    """Return keys and values of a file of variables."""
    return [(key, value) for key, _, value in (line.partition("=") for line in path.read_text().splitlines())]


def secret_keys(workload: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the secrets that a workload reads, and of each the key."""
    for each in container(workload)["env"]:
        if (reference := each.get("valueFrom", {}).get("secretKeyRef")) is not None:
            yield reference["name"], reference["key"]
        for name in re.findall(r"\$\((\w+)\)", each.get("value", "")):
            assert name in {other["name"] for other in container(workload)["env"]}
    for volume in pod(workload)["volumes"]:
        for item in volume.get("secret", {}).get("items", ()):
            yield volume["secret"]["secretName"], item["key"]


def selectors(part: Any) -> Iterator[dict[str, Any]]:
    """Yield the pod selectors in a network policy."""
    if isinstance(part, list):
        for each in part:
            yield from selectors(each)
    elif isinstance(part, dict):
        for name, value in part.items():
            if name == "podSelector":
                yield value
            else:
                yield from selectors(value)

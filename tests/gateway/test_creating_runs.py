"""POST /runs and /createruns: what they append, what they answer, what they refuse."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest
from msgspec import structs

from runstream.domain.executor import Offer, Sighting
from runstream.events.run import RunCreated
from runstream.events.run_config import RunConfigStored
from runstream.ids import run_task_id
from runstream.jetstream.api import UnavailableError
from runstream.subjects import Address, partition_of
from tests.gateway.world import BEGUN, World, run_body, task

CONFIG = """
runs:
  - name: first
    tasks:
      - name: build
        runtime: {type: host}
        steps: [{run: {name: hello, command: echo hello}}]
      - name: test
        depends: [build]
        runtime: {type: host}
        steps: [{run: {name: bye, command: "false"}}]
  - name: only-on-main
    when: {branch: main}
    tasks: []
"""


async def test_a_run_is_appended_and_answered_as_it_is_known() -> None:
    world = World.make()
    async with world.http() as http:
        answer = await http.post("/runs", json=run_body(annotations={"who": "me"}))
    assert answer.status_code == 201
    run = answer.json()["run"]
    assert (run["phase"], run["result"], run["counter"], run["annotations"]) == ("queued", "unknown", 0, {"who": "me"})
    task_id = run_task_id(run["id"], "build")
    assert run["tasks"][task_id]["status"] == "notstarted"
    assert answer.json()["run_config"]["tasks"][task_id]["steps"][0]["command"] == "true"
    partition = partition_of("/project/web", 4)
    assert answer.headers["Runstream-Position"] == f"1/{partition}/2"
    (stored,) = await world.log.history(Address(partition, "run", run["id"]))
    (event,) = stored.commit.events
    assert isinstance(event, RunCreated)
    (config,) = await world.log.history(Address(partition, "runconfig", event.run_config))
    assert isinstance(config.commit.events[0], RunConfigStored)
    assert stored.commit.trace.startswith("00-")


async def test_equal_run_configs_are_stored_once() -> None:
    world = World.make()
    other = World.make(log=world.log)
    async with world.http() as http, other.http() as another:
        for client in (http, http, another):
            assert (await client.post("/runs", json=run_body())).status_code == 201
    assert await world.log.end(partition_of("/project/web", 4)) == 4


async def test_the_trace_of_the_request_is_the_trace_of_the_commit() -> None:
    world = World.make()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with world.http(traceparent=trace) as http:
        run = (await http.post("/runs", json=run_body())).json()["run"]
    (stored,) = await world.log.history(Address(partition_of("/project/web", 4), "run", run["id"]))
    assert stored.commit.trace.split("-")[1] == trace.split("-")[1]


async def test_levels_are_worked_out_and_dependencies_are_kept_by_name() -> None:
    world = World.make()
    depends = {"a": {"task_id": "a", "conditions": ["on_failure"]}}
    tasks = {"a": task("one"), "b": task("two", depends=depends, level=7)}
    async with world.http() as http:
        run = (await http.post("/runs", json=run_body(run_config_tasks=tasks))).json()["run"]
    two = run["tasks"][run_task_id(run["id"], "two")]
    one_id = run_task_id(run["id"], "one")
    assert (two["level"], two["depends"]) == (1, {one_id: {"task_id": one_id, "conditions": ["on_failure"]}})


async def test_concurrency_priority_and_labels_are_kept_and_shown() -> None:
    world = World.make()
    host = {"type": "host", "labels": {"gpu": "yes"}}
    async with world.http() as http:
        body = run_body(concurrency={"policy": "skip"}, priority=-3, run_config_tasks={"t": task(runtime=host)})
        told = (await http.post("/runs", json=body)).json()
        short = (await http.post("/runs", json=run_body(concurrency="cancel_running"))).json()
        file = {"name": "config.yml", "content": "runs: [{name: r, priority: 1}, {name: s}]"}
        of_file = [
            [one["run"]["priority"] for one in (await http.post("/createruns", json=asked)).json()["runs"]]
            for asked in ({"config": file}, {"config": file, "priority": 100})
        ]
        refused = [
            (await http.post("/runs", json=run_body(**wrong))).json()[0]["message"]
            for wrong in (
                {"priority": 101},
                {"concurrency": "stop"},
                {"concurrency": {"max_waiting": -1}},
                {"run_config_tasks": {"t": task(runtime={"type": "host", "labels": {"": "x"}})}},
            )
        ]
    assert told["run_config"]["concurrency"] == {"policy": "skip", "max_waiting": 0}
    assert (told["run"]["priority"], told["run_config"]["priority"], told["run"]["paused_at"]) == (-3, -3, None)
    assert next(iter(told["run_config"]["tasks"].values()))["runtime"]["labels"] == {"gpu": "yes"}
    assert short["run_config"]["concurrency"] == {"policy": "cancel_running", "max_waiting": 0}
    assert of_file == [[1, 0], [100, 100]]
    for message, part in zip(
        refused, ("$.priority", "$.concurrency", "$.concurrency.max_waiting", "label"), strict=True
    ):
        assert part in message


async def test_retries_and_limits_are_kept_and_shown() -> None:
    world = World.make()
    retry = {"max": 2, "backoff": 1_000_000_000, "on": ["timeout", "failure"]}
    steps = [{"type": "run", "command": "make", "step_timeout_interval": 7, "no_output_timeout": 8}]
    tasks = {"a": task("a", retry=retry, steps=steps), "b": task("b", retry=1), "c": task("c")}
    async with world.http() as http:
        told = (await http.post("/runs", json=run_body(run_config_tasks=tasks, run_timeout_interval=9))).json()
        refused = [
            (await http.post("/runs", json=run_body(**wrong))).json()[0]["message"]
            for wrong in (
                {"run_timeout_interval": -1},
                {"run_config_tasks": {"a": task(retry=11)}},
                {"run_config_tasks": {"a": task(retry={"max": 1, "on": []})}},
                {"run_config_tasks": {"a": task(retry={"max": 1, "backoff": 86_400_000_000_001})}},
                {"run_config_tasks": {"a": task(steps=[{"type": "clone", "no_output_timeout": 1}])}},
            )
        ]
    assert told["run_config"]["run_timeout_interval"] == 9
    a, b, c = sorted(told["run_config"]["tasks"].values(), key=lambda one: one["name"])
    assert a["retry"] == {**retry, "on": ["failure", "timeout"]}
    assert b["retry"] == {"max": 1, "backoff": 0, "on": ["failure", "lost", "timeout"]}
    assert c["retry"] is None
    assert (a["steps"][0]["step_timeout_interval"], a["steps"][0]["no_output_timeout"]) == (7, 8)
    for message, part in zip(
        refused, ("run_timeout_interval", "retry", "retry.on", "retry.backoff", "is for run steps"), strict=True
    ):
        assert part in message


async def test_a_graph_that_cannot_run_makes_a_run_with_setup_errors() -> None:
    world = World.make()
    tasks = {
        "a": task("one", depends={"b": {"task_id": "b"}}),
        "b": task("two", depends={"a": {"task_id": "a"}}),
    }
    async with world.http() as http:
        answer = await http.post("/runs", json=run_body(run_config_tasks=tasks))
    run = answer.json()["run"]
    assert (answer.status_code, run["phase"], run["tasks"]) == (201, "setuperror", {})
    assert any("circular dependency" in error for error in run["setup_errors"])


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"group": ""}, "invalidRunGroup", "group"),
        ({"group": "project/web"}, "invalidRunGroup", "absolute path"),
        ({"group": "/project"}, "invalidRunGroup", "two elements"),
        ({"run_config_tasks": None}, "invalidRunConfigTasks", "neither"),
        ({"name": ""}, "invalidName", "run name"),
        ({"name": "é" * 51}, "textTooLong", "at most 100"),
        ({"run_config_tasks": {"a": task(), "b": task()}}, "invalidRunConfigTasks", "two tasks have the name"),
        (
            {"run_config_tasks": {"a": task(depends={"x": {"task_id": "x"}})}},
            "invalidRunConfigTasks",
            "depends on 'x', which is not there",
        ),
        ({"run_config_tasks": {"a": task(runtime={"type": "pod"})}}, "invalidRunConfigTasks", "without containers"),
        ({"run_config_tasks": {"a": task(steps=[{"type": "run"}])}}, "invalidRunConfigTasks", "has no command"),
        ({"run_config_tasks": {"a": task(steps=[{"type": "walk"}])}}, "invalidBody", "steps[0].type"),
        ({"run_config_tasks": {"a": task(colour="red")}}, "invalidBody", "colour"),
        ({"annotations": {"a": "\0"}}, "nulCharacter", "NUL"),
    ],
)
async def test_what_cannot_be_a_run_is_refused_and_nothing_is_appended(
    changes: dict[str, Any], code: str, says: str
) -> None:
    world = World.make()
    async with world.http() as http:
        answer = await http.post("/runs", json=run_body(**changes))
    (error,) = answer.json()
    assert (answer.status_code, error["code"], error["kind"]) == (400, code, "bad-request")
    assert says in error["message"] + error["hint"]
    assert [await world.log.end(partition) for partition in range(4)] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("container", "code", "says"),
    [
        ({"resources": {"cpu": 9}}, "invalidRunConfigTasks", "containers[1].resources.cpu: 9m of a processor are less"),
        ({"resources": {"memory": 5 << 20}}, "invalidRunConfigTasks", "containers[1].resources.memory: 5242880 bytes"),
        ({"volumes": ["a"]}, "invalidRunConfigTasks", 'volumes[0].path: the path "a" of the volume is not absolute'),
        ({"volumes": [""]}, "invalidRunConfigTasks", "containers[1].volumes[0].path: the volume has no path"),
        ({"volumes": ["/a", "/b/../a/"]}, "invalidRunConfigTasks", "volumes[1].path: duplicate volume"),
        ({"volumes": ["/proc/x"]}, "invalidRunConfigTasks", "volumes[0].path: a volume cannot be at"),
        ({"size": -1}, "invalidBody", "containers[1].volumes[0].tmpfs.size"),
        ({"size": 1 << 63}, "invalidBody", "containers[1].volumes[0].tmpfs.size"),
    ],
)
async def test_what_no_engine_gives_is_refused_in_a_ready_made_config_as_in_a_file(
    container: dict[str, Any], code: str, says: str
) -> None:
    world = World.make()
    size = container.get("size", 0)
    volumes = [{"path": path, "tmpfs": {"size": size}} for path in container.get("volumes", ["/scratch"])]
    limited = {"image": "b", "volumes": volumes, "resources": container.get("resources", {})}
    pod = {"containers": [{"image": "a"}, limited]}
    async with world.http() as http:
        answer = await http.post("/runs", json=run_body(run_config_tasks={"t": task(runtime=pod)}))
    (error,) = answer.json()
    assert (answer.status_code, error["code"]) == (400, code)
    assert says in error["message"] + error["hint"]


async def test_all_misfits_of_the_tasks_are_reported_at_once() -> None:
    world = World.make()
    tasks = {"a": task("", steps=[{"type": "run"}]), "b": task(task_timeout_interval=-1)}
    async with world.http() as http:
        (error,) = (await http.post("/runs", json=run_body(run_config_tasks=tasks))).json()
    assert len(error["details"]["errors"]) == 3


async def test_the_runs_of_a_file_are_those_whose_when_matches() -> None:
    world = World.make()
    body = {"config": {"name": "config.yml", "content": CONFIG}, "branch": "main", "commit_sha": "c" * 40}
    async with world.http() as http:
        on_main = (await http.post("/createruns", json=body)).json()["runs"]
        elsewhere = (await http.post("/createruns", json={**body, "branch": "feature/x"})).json()["runs"]
    assert [one["run"]["name"] for one in on_main] == ["first", "only-on-main"]
    assert [one["run"]["name"] for one in elsewhere] == ["first"]
    assert on_main[0]["run"]["group"] == "/user/admin/branch/main"
    assert elsewhere[0]["run"]["group"] == "/user/admin/branch/feature%2Fx"
    assert on_main[0]["run"]["annotations"]["commit_sha"] == "c" * 40
    assert on_main[0]["run_config"]["static_environment"]["RUNSTREAM_GIT_BRANCH"] == "main"
    levels = {one["name"]: one["level"] for one in on_main[0]["run"]["tasks"].values()}
    assert levels == {"build": 0, "test": 1}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.star", "def main(ctx):\n  return {'runs': [{'name': ctx['branch'] + ' ' + ctx['commit_sha']}]}"),
        ("config.jsonnet", "function(ctx) { runs: [{ name: ctx.branch + ' ' + ctx.commit_sha }] }"),
    ],
)
async def test_a_program_makes_runs_of_the_ref(name: str, content: str) -> None:
    body = {"config": {"name": name, "content": content}, "branch": "main", "commit_sha": "c0ffee"}
    async with World.make().http() as http:
        (made,) = (await http.post("/createruns", json=body)).json()["runs"]
    assert made["run"]["name"] == "main c0ffee"


async def test_a_program_that_fails_creates_nothing() -> None:
    world = World.make()
    async with world.http() as http:
        answer = await http.post("/createruns", json={"config": {"name": "config.jsonnet", "content": "{"}})
    (error,) = answer.json()
    assert (answer.status_code, error["code"]) == (400, "configEvaluationFailed")
    assert [await world.log.end(partition) for partition in range(4)] == [0, 0, 0, 0]


async def test_a_file_with_mistakes_creates_nothing_and_its_error_names_all() -> None:
    world = World.make()
    content = "runs:\n  - name: a\n    tasks:\n      - name: b\n        step: []\n  - {}\n"
    async with world.http() as http:
        answer = await http.post("/createruns", json={"config": {"name": "config.yml", "content": content}})
    (error,) = answer.json()
    assert (answer.status_code, error["code"]) == (400, "invalidConfig")
    assert len(error["details"]["problems"]) >= 3
    assert all(problem["line"] for problem in error["details"]["problems"])
    assert [await world.log.end(partition) for partition in range(4)] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.yml", "runs:\n  - name: a\n    task: []\n  - {}\n", ["line 3, runs[0].task", "line 4, runs[1]"]),
        ("config.yml", "runs: [", ["not readable"]),
        ("config.jsonnet", "error 'boom'", ["boom"]),
        ("config.star", "def main(ctx):\n  return 1", ["must return a dict"]),
    ],
)
async def test_a_file_that_is_no_configuration_makes_a_run_that_shows_why_where_that_is_asked_for(
    name: str, content: str, told: list[str]
) -> None:
    world = World.make()
    body = {
        "config": {"name": name, "content": content},
        "branch": "main",
        "message": "try it [ci skip]",
        "on_setup_error": "run",
    }
    async with world.http() as http:
        answer = await http.post("/createruns", json=body)
    assert answer.status_code == 201
    (made,) = answer.json()["runs"]
    assert (made["run"]["name"], made["run"]["phase"], made["run"]["tasks"]) == ("Setup Error", "setuperror", {})
    assert made["run"]["group"] == "/user/admin/branch/main"
    assert made["run"]["annotations"]["message"] == "try it [ci skip]"
    assert made["run_config"]["static_environment"]["AGOLA_GIT_BRANCH"] == "main"
    assert len(made["run"]["setup_errors"]) == len(told)
    assert all(text in error for text, error in zip(told, made["run"]["setup_errors"], strict=True))


@pytest.mark.parametrize("ref", [{"branch": "a", "tag": "b"}, {"branch": "b" * 2000}, {"group": "nowhere"}])
async def test_what_is_wrong_with_the_request_itself_makes_no_run(ref: dict[str, str]) -> None:
    world = World.make()
    body = {"config": {"name": "config.yml", "content": "["}, "on_setup_error": "run", **ref}
    async with world.http() as http:
        assert (await http.post("/createruns", json=body)).status_code == 400
    assert [await world.log.end(partition) for partition in range(4)] == [0, 0, 0, 0]


async def test_runs_that_are_not_created_are_named_with_the_reason() -> None:
    world = World.make()
    body = {"config": {"name": "config.yml", "content": CONFIG}, "branch": "other"}
    async with world.http() as http:
        other = (await http.post("/createruns", json=body)).json()
        skipped = (await http.post("/createruns", json={**body, "message": "docs\n\n[ci skip] please"})).json()
    assert [one["run"]["name"] for one in other["runs"]] == ["first"]
    assert other["skipped"] == [{"name": "only-on-main", "reason": "when"}]
    assert skipped["runs"] == []
    assert skipped["skipped"] == [{"name": name, "reason": "ci_skip"} for name in ("first", "only-on-main")]


@pytest.mark.parametrize("mark", ["[ci skip]", "[skip ci]"])
async def test_a_mark_anywhere_in_the_message_wants_no_runs(mark: str) -> None:
    world = World.make()
    body = {"config": {"name": "config.yml", "content": CONFIG}, "branch": "main", "message": f"docs\n\nx {mark}"}
    async with world.http() as http:
        answer = (await http.post("/createruns", json=body)).json()
    assert (answer["runs"], {one["reason"] for one in answer["skipped"]}) == ([], {"ci_skip"})


async def test_an_environment_that_no_process_can_take_is_refused_at_creation_by_name() -> None:
    content = "runs: [{name: r, tasks: [{name: t, runtime: {type: host}, environment: {BIG: V}, steps: [{run: x}]}]}]"
    config = {"name": "config.yml", "content": content.replace("V", "x" * 200_000)}
    body = run_body(run_config_tasks={"t1": task(environment={"BIG": "x" * 200_000})})
    async with World.make().http() as http:
        for answer in (await http.post("/createruns", json={"config": config}), await http.post("/runs", json=body)):
            (error,) = answer.json()
            assert (answer.status_code, error["code"]) == (400, "environmentTooLarge")
            assert error["message"] == "BIG is 200,000 bytes, a process can take 131,072"


async def test_a_clone_step_without_a_repository_is_refused_at_creation() -> None:
    content = "runs: [{name: r, tasks: [{name: t, runtime: {type: host}, WHEN steps: [{clone: }]}]}]"
    url = "AGOLA_REPOSITORY_URL"
    async with World.make().http() as http:
        for when, given, status in (
            ("", {}, 400),
            ("", {"repository_url": "/r"}, 201),
            ("", {"environment": {url: "/r"}}, 201),
            ("when: {tag: v1},", {}, 201),
        ):
            config = {"name": "config.yml", "content": content.replace("WHEN", when)}
            answer = await http.post("/createruns", json={"config": config, "branch": "main", **given})
            assert answer.status_code == status
            assert status == 201 or "task 't' of run 'r' has a clone step" in answer.text


async def test_ignored_fields_are_reported() -> None:
    content = "runs:\n  - name: a\n    colour: red\n"
    async with World.make().http() as http:
        answer = (await http.post("/createruns", json={"config": {"name": "config.yml", "content": content}})).json()
    (warning,) = answer["warnings"]
    assert (warning["path"], warning["line"]) == ("runs[0].colour", 3)
    assert len(answer["runs"]) == 1


async def test_a_program_imports_what_comes_with_it() -> None:
    content = "local lib = import 'lib/a.libsonnet'; { runs: [{ name: lib.name }] }"
    imports = {"lib/a.libsonnet": "{ name: importstr '../name.txt' }", "name.txt": "imported"}
    config = {"name": "config.jsonnet", "content": content, "imports": imports}
    async with World.make().http() as http:
        (made,) = (await http.post("/createruns", json={"config": config})).json()["runs"]
    assert made["run"]["name"] == "imported"


async def test_only_one_of_branch_tag_and_ref_is_taken() -> None:
    world = World.make()
    body = {"config": {"name": "config.yml", "content": CONFIG}, "branch": "main", "tag": "v1"}
    async with world.http() as http:
        (error,) = (await http.post("/createruns", json=body)).json()
    assert error["code"] == "invalidRef"


async def test_a_strict_request_refuses_what_is_only_worth_a_warning() -> None:
    world = World.make()
    content = "runs:\n  - name: a\n    colour: red\n    tasks: [{name: t, runtime: {type: host}}]\n"
    body = {"config": {"name": "config.yml", "content": content}, "strict": True}
    async with world.http() as http:
        refused = await http.post("/createruns", json=body)
        assert [await world.log.end(partition) for partition in range(4)] == [0, 0, 0, 0]
        (made,) = (await http.post("/createruns", json={**body, "on_setup_error": "run"})).json()["runs"]
        (fine,) = (await http.post("/createruns", json={**body, "strict": False})).json()["runs"]
    assert refused.status_code == 400
    assert [one["path"] for one in refused.json()[0]["details"]["problems"]] == [
        "runs[0].colour",
        "runs[0].tasks[0].steps",
    ]
    assert [len(made["run"]["setup_errors"]), len(fine["run"]["setup_errors"])] == [2, 0]


def executors(**changes: Any) -> dict[str, Offer]:
    plain = Offer("", ("amd64",), {"disk": "ssd"}, False, True, False, 1, {})
    return {f"e{number}": structs.replace(plain, executor_id=f"e{number}", **changes) for number in (1, 2)}


@dataclass(frozen=True)
class Seen:
    """Executors that a test says are alive."""

    offers: dict[str, Offer]

    async def seen(self) -> dict[str, Sighting]:
        return {name: Sighting(offer, BEGUN, 0, 0) for name, offer in self.offers.items()}


POD = "{containers: [{image: 'python:3.12'}]}"


@pytest.mark.parametrize(
    ("runtime", "offers", "told"),
    [
        (POD, {}, 'task "t" needs an executor that runs containers'),
        (POD, executors(allow_pod=True), ""),
        (POD, {**executors(), "e3": executors(allow_pod=True)["e1"]}, ""),
        (
            POD,
            executors(),
            "(needed: containers (python:3.12)): e1 cannot run containers: it has no engine (executor.engine); "
            "e2 cannot run containers: it has no engine (executor.engine)",
        ),
        (
            "{type: host}",
            executors(allow_host=False),
            "(needed: host): e1 does not allow tasks on its host; e2 does not",
        ),
        ("{type: host}", executors(), ""),
        ("{type: host}", executors(draining=True, full="no room"), ""),
        ("{type: host, arch: arm64, labels: {disk: nvme, gpu: a}}", {}, ""),
        ("{type: host, labels: {disk: ssd}}", executors(), ""),
        (
            "{type: host, arch: arm64, labels: {disk: nvme, gpu: a}}",
            executors(),
            'no executor here can run task "t" of run "r" (needed: host, architecture arm64, label disk=nvme, '
            "label gpu=a): e1 has no architecture arm64 and has the label disk with the value 'ssd', not 'nvme' "
            "and has no label gpu; e2 has no architecture",
        ),
    ],
)
async def test_creating_a_run_warns_of_a_task_that_no_living_executor_can_run(
    runtime: str, offers: dict[str, Offer], told: str
) -> None:
    world = World.make()
    world.context = replace(world.context, sightings=Seen(offers))
    content = f"runs: [{{name: r, tasks: [{{name: t, runtime: {runtime}, steps: [{{run: make}}]}}]}}]"
    async with world.http() as http:
        answer = (await http.post("/createruns", json={"config": {"name": "config.yml", "content": content}})).json()
    assert (len(answer["runs"]), [told in one["message"] for one in answer["warnings"]]) == (1, [True] if told else [])


@dataclass(frozen=True)
class Unseen:
    """Leases that cannot be read: at once, or ever."""

    at_once: bool

    async def seen(self) -> dict[str, Sighting]:
        if self.at_once:
            raise UnavailableError("leases", "the bucket has no leader")
        await asyncio.Event().wait()
        return {}


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_run_is_created_although_nothing_can_be_read_of_executors(
    at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstream.gateway.context.OFFERS_SECONDS", 0.01)
    world = World.make()
    world.context = replace(world.context, sightings=Unseen(at_once))
    async with world.http() as http:
        answer = await http.post("/createruns", json={"config": {"name": "config.yml", "content": CONFIG}})
    assert (answer.status_code, answer.json()["warnings"]) == (201, [])


async def test_tasks_that_lack_the_same_executor_share_a_warning_and_skipped_ones_have_none() -> None:
    world = World.make()
    world.context = replace(world.context, sightings=Seen(executors()))
    tasks = ", ".join(
        f"{{name: {name}, when: {{branch: {branch}}}, runtime: {POD}, steps: [{{run: make}}]}}"
        for name, branch in (("a", "main"), ("b", "other"), ("c", "main"))
    )
    config = {"name": "config.yml", "content": f"runs: [{{name: r, tasks: [{tasks}]}}]"}
    body = {"config": config, "branch": "main"}
    async with world.http() as http:
        (warning,) = (await http.post("/createruns", json=body)).json()["warnings"]
    assert warning["message"].startswith('no executor here can run task "a", "c" of run "r"')

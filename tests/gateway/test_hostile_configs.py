"""Configurations that mean harm, sent to a gateway on a socket: each is refused; others are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from runstream.evaluation.program import LIMITS, EvaluationLimits
from tests.gateway.world import TOKEN, World

MOST_SECONDS = 15
"""A limit of an evaluation is 5 s; the rest is for a busy machine."""
QUICK = EvaluationLimits(seconds=1.5)
"""For programs that pass this limit however long it is."""
MOST_BYTES = 500 << 20
STAR = "def main(ctx):\n"
ENDED = "configEvaluationFailed configMemoryLimit configTimeLimit"
"""Which limit is passed first depends on the machine."""
RUNS = "runs:\n- name: r\n  tasks:\n"
LAUGHS = "x0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"x{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
HOSTILE: dict[str, tuple[str, str, str]] = {
    "endless recursion in jsonnet": ("config.jsonnet", "local f(x) = f(x + 1) + 1; f(1)", "configEvaluationFailed"),
    "endless tail calls in jsonnet": ("config.jsonnet", "local f(x) = f(x + 1) tailstrict; f(1)", ENDED),
    "endless recursion in starlark": (
        "config.star",
        f"def f(x):\n  return f(x)\n{STAR}  return f(1)",
        "configEvaluationFailed",
    ),
    "an endless loop": (
        "config.star",
        f"{STAR}  for a in range(1 << 30):\n    for b in range(1 << 30):\n      pass\n  return {{}}",
        "configTimeLimit",
    ),
    "1 GiB of output of jsonnet": (
        "config.jsonnet",
        "local s = std.repeat('x', 1048576); [s for n in std.range(1, 1024)]",
        f"{ENDED} configOutputLimit",
    ),
    "1 GiB of output of starlark": (
        "config.star",
        f"{STAR}  s = 'x' * (1 << 20)\n  return {{'runs': [s for n in range(1024)]}}",
        f"{ENDED} configOutputLimit",
    ),
    "a text of 1 GiB": ("config.star", f"{STAR}  return {{'a': 'x' * (1 << 30)}}", "configMemoryLimit"),
    "a list that grows": (
        "config.star",
        f"{STAR}  a = []\n  for n in range(1 << 30):\n    a.append('x' * n)\n  return {{}}",
        ENDED,
    ),
    "deep nesting in jsonnet": (
        "config.jsonnet",
        "std.foldl(function(a, n) [a], std.range(1, 300), [])",
        "invalidConfig",
    ),
    "deeper nesting in jsonnet": (
        "config.jsonnet",
        "std.foldl(function(a, n) [a], std.range(1, 100000), [])",
        "configEvaluationFailed configMemoryLimit",
    ),
    "deep nesting in starlark": (
        "config.star",
        f"{STAR}  a = []\n  for n in range(300):\n    a = [a]\n  return {{'a': a}}",
        "invalidConfig configEvaluationFailed",
    ),
    "deeper nesting in starlark": (
        "config.star",
        f"{STAR}  a = []\n  for n in range(100000):\n    a = [a]\n  return {{'a': a}}",
        "configEvaluationFailed configMemoryLimit",
    ),
    "a list within itself": (
        "config.star",
        f"{STAR}  a = []\n  a.append(a)\n  return {{'a': a}}",
        "configEvaluationFailed configMemoryLimit",
    ),
    "100,000 tasks of jsonnet": (
        "config.jsonnet",
        "{runs: [{name: 'r', tasks: [{name: n, runtime: {type: 'host'}} for n in std.range(1, 100000)]}]}",
        f"{ENDED} configOutputLimit",
    ),
    "100,000 tasks of starlark": (
        "config.star",
        f"{STAR}  return {{'runs': [{{'name': 'r', 'tasks': [{{'name': n}} for n in range(100000)]}}]}}",
        f"{ENDED} configOutputLimit",
    ),
    "50,000 short tasks of jsonnet": (
        "config.jsonnet",
        "{runs: [{name: 'r', tasks: [{} for n in std.range(1, 50000)]}]}",
        "invalidConfig configOutputLimit",
    ),
    "a list that doubles in jsonnet": (
        "config.jsonnet",
        "std.foldl(function(a, n) [a, a], std.range(1, 40), 1)",
        f"{ENDED} configOutputLimit",
    ),
    "a list that doubles in starlark": (
        "config.star",
        f"{STAR}  a = []\n  for n in range(40):\n    a = [a, a]\n  return {{'a': a}}",
        f"{ENDED} configOutputLimit",
    ),
    "a number of a million digits": (
        "config.star",
        f"{STAR}  return {{'a': 1 << 100000000}}",
        f"{ENDED} invalidConfig",
    ),
    "a program that imports itself": (
        "config.jsonnet",
        "local f = import 'f'; f",
        "configEvaluationFailed",
    ),
    "regular expressions of jsonnet": (
        "config.jsonnet",
        "{runs: [{name: 'r', when: {branch: ['/(a{99}){99}' + n + '/' for n in std.range(1, 10000)]}}]}",
        "invalidConfig",
    ),
    "regular expressions of starlark": (
        "config.star",
        f"{STAR}  when = ['/\\\\pL{{300}}%d/' % n for n in range(30000)]\n"
        "  return {'runs': [{'name': 'r', 'when': {'branch': when}}]}",
        "invalidConfig",
    ),
    "unknown fields, each another": (
        "config.yml",
        "runs: [{name: r}]\n" + "".join(f"task_timeout_interva{n}: 1\n" for n in range(30_000)),
        "invalidConfig",
    ),
    "unknown fields of jsonnet": (
        "config.jsonnet",
        "{runs: [{name: 'r'}]} + {['zzzzzzzzzzz' + n]: 1 for n in std.range(1, 30000)}",
        "invalidConfig",
    ),
    "deep nesting in a source": ("config.jsonnet", "[" * 100_000, "configEvaluationFailed configMemoryLimit"),
    "deep parentheses in a source": ("config.star", f"x = {'(' * 100_000}", "configEvaluationFailed configMemoryLimit"),
    "what another process holds": ("config.jsonnet", "importstr '/proc/self/environ'", "configEvaluationFailed"),
    "100,000 tasks": ("config.yml", RUNS + "  - name: t\n" * 74_000, "invalidConfig"),
    "100,000 tasks, each an alias": ("config.yml", RUNS + "  - &t {name: t}\n" + "  - *t\n" * 100_000, "invalidConfig"),
    "100,000 tasks, each a merge": (
        "config.yml",
        "x-t: &t {name: t, runtime: {type: host}}\n" + RUNS + "  - {<<: *t}\n" * 60_000,
        "invalidConfig",
    ),
    "a billion aliases in json": ("config.json", LAUGHS, "invalidConfig"),
    "100,000 tasks in json": (
        "config.json",
        json.dumps({"runs": [{"name": "r", "tasks": [{"name": "t"}] * 50_000}]}),
        "invalidConfig",
    ),
    "100,000 runs": ("config.yml", "runs:\n" + "".join(f"- name: {n}\n" for n in range(60_000)), "invalidConfig"),
    "deep nesting": ("config.yml", "[" * 1_000_000, "invalidConfig"),
    "a billion aliases": ("config.yml", LAUGHS, "invalidConfig"),
    "a billion regular expressions": (
        "config.yml",
        "runs:\n- name: r\n  when:\n    branch:\n" + "".join(f"    - /(\\pL{{300}}){n}/\n" for n in range(30_000)),
        "invalidConfig",
    ),
    "an expression that goes back and forth": (
        "config.yml",
        "runs: [{name: r, when: {branch: '/^(a+)+$/', ref: '/(a*)*\\1/'}}]",
        "invalidConfig",
    ),
    "misspelled names among thousands": (
        "config.yml",
        RUNS + "".join(f"  - {{name: {'x' * 90}{n}, depends: [{'x' * 90}{n}y]}}\n" for n in range(1_999)),
        "invalidConfig",
    ),
    "a long value in many places": (
        "config.yml",
        RUNS
        + "".join(
            f"  - {{name: {n}, runtime: {{type: host}}, environment: {{A: {{from_variable: v}}}}}}\n"
            for n in range(1_999)
        ),
        "configTooLarge",
    ),
    "no context, and a function that wants another": ("config.jsonnet", "function(other) {}", "configEvaluationFailed"),
}


@asynccontextmanager
async def gateway(limits: EvaluationLimits = LIMITS) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"token {TOKEN}"}
    async with (
        World.make(limits=limits).served() as url,
        httpx2.AsyncClient(base_url=f"{url}/api/v1alpha", headers=headers) as http,
    ):
        yield http


async def create(http: httpx2.AsyncClient, name: str, content: str, **more: object) -> httpx2.Response:
    body = {"config": {"name": name, "content": content}, "branch": "main", **more}
    return await http.post("/createruns", json=body, timeout=MOST_SECONDS)


@pytest.mark.parametrize("case", HOSTILE)
async def test_it_is_refused_and_the_service_goes_on(case: str) -> None:
    name, content, codes = HOSTILE[case]
    before, children_before = memory_now(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    async with gateway(QUICK if "configTimeLimit" in codes else LIMITS) as http:
        config = {"name": name, "content": content, "imports": {"f": "import 'f'"}}
        hostile = asyncio.create_task(create(http, name, content, config=config, variables={"v": "x" * 10_000}))
        await asyncio.sleep(0)
        fine = await create(http, "config.yml", "runs: [{name: fine}]")
        answer = await hostile
        (error,) = answer.json()
        assert (answer.status_code, error["kind"]) == (400, "bad-request")
        assert error["code"] in codes.split()
        assert len(answer.content) < 200_000
        assert fine.status_code == 201
        assert (await create(http, "config.jsonnet", "{runs: [{name: 'fine'}]}")).status_code == 201
    assert most_memory() - before < MOST_BYTES
    # The peak of all children that this process ever had: those of other tests may have used more, and a forked one
    # begins with the memory of this process.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(children_before, own, MOST_BYTES >> 10)


def memory_now() -> int:
    """Return the bytes that this process has in memory; from here on `most_memory` counts."""
    Path("/proc/self/clear_refs").write_text("5")
    return most_memory()


def most_memory() -> int:
    """Return the most bytes that this process had in memory since `memory_now`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


@pytest.mark.parametrize(
    "content", [f"{STAR}  return {{'runs': [s for n in range(1024)]}}", f"{STAR}  fail('x' * 1000000)", STAR * 100]
)
async def test_what_is_wrong_may_be_kept_with_a_run_and_is_little(content: str) -> None:
    async with gateway() as http:
        answer = await create(http, "config.star", content, on_setup_error="run")
        assert answer.json()["runs"][0]["run"]["phase"] == "setuperror"
        assert len(answer.content) < 10_000


async def test_an_expression_that_is_slow_elsewhere_is_quick_here() -> None:
    content = "runs: [{name: r, when: {branch: '/^(a+)+$/'}}, {name: s, when: {ref: '#(x*x*)*y#'}}]"
    async with gateway() as http:
        answer = await create(http, "config.yml", content, branch=f"{'a' * 900}!")
        assert answer.json()["skipped"] == [{"name": "r", "reason": "when"}, {"name": "s", "reason": "when"}]


async def test_many_hostile_programs_at_once_leave_texts_alone() -> None:
    name, content, _ = HOSTILE["an endless loop"]
    async with gateway() as http:
        hostile = [asyncio.create_task(create(http, name, content)) for _ in range(4)]
        for _ in range(20):
            assert (await create(http, "config.yml", "runs: [{name: fine}]")).status_code == 201
        assert not any(task.done() for task in hostile)
        for task in hostile:
            task.cancel()
        for task in hostile:
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"x" * (10 << 20), 413, "bodyTooLarge"),
        (json.dumps({"config": {"name": "config.yml", "content": "a" * (10 << 20)}}).encode(), 413, "bodyTooLarge"),
        (b'{"config": {"name": "config.yml", "content": "\xff\xfe"}}', 400, "malformedBody"),
        (b'{"config": {"name": "config.yml", "content": "\\ud800"}}', 400, "malformedBody"),
        (b'{"config": {"name": "config.yml", "content": ' + b"[" * 500_000, 400, "malformedBody invalidBody"),
        (b'{"config": {"name": "config.toml", "content": ""}}', 400, "invalidBody"),
        (b'{"config": {"name": "../config.yml", "content": ""}}', 400, "invalidBody"),
    ],
)
async def test_what_no_file_is(body: bytes, status: int, code: str) -> None:
    async with gateway() as http:
        answer = await http.post("/createruns", content=body, timeout=MOST_SECONDS)
        (error,) = answer.json()
        assert answer.status_code == status
        assert error["code"] in code.split()
        assert (await create(http, "config.yml", "runs: [{name: fine}]")).status_code == 201


async def test_names_of_refs_have_a_bound() -> None:
    async with gateway() as http:
        answer = await create(http, "config.yml", "runs: [{name: r, when: {branch: '/a{999}b/'}}]", branch="a" * 2_000)
        assert answer.json()[0]["code"] == "invalidRef"
